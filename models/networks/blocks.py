"""Blocks of layers of residual networks and transformers."""

from __future__ import annotations

from collections.abc import Callable
from math import sqrt

import jax
import jax.numpy as jnp
from flax import nnx

from stalegrad.models.networks.layers import SameConv
from stalegrad.models.networks.network import Layer, Norm
from stalegrad.models.networks.starts import normal, scaled

MakeNorm = Callable[[int], Layer]


class BasicBlock(nnx.Module):
    """``relu(shortcut(x) + norm(conv(relu(norm(conv(x))))))`` with 3 x 3 convolutions."""

    def __init__(self, before: int, after: int, stride: int, norm_of: MakeNorm, rngs: nnx.Rngs) -> None:
        self.path = nnx.Sequential(
            conv(before, after, 3, stride, rngs),
            norm_of(after),
            nnx.relu,
            conv(after, after, 3, 1, rngs),
            norm_of(after),
        )
        self.shortcut = _shortcut(before, after, stride, norm_of, rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Map (batch, height, width, before) to (batch, height / stride, width / stride, after)."""
        return nnx.relu(self.shortcut(x) + self.path(x))


class Bottleneck(nnx.Module):
    """As `BasicBlock`, with convolutions 1 x 1, 3 x 3 and 1 x 1; the last widens to ``4 * inner`` channels."""

    def __init__(self, before: int, inner: int, stride: int, norm_of: MakeNorm, rngs: nnx.Rngs) -> None:
        self.path = nnx.Sequential(
            conv(before, inner, 1, 1, rngs),
            norm_of(inner),
            nnx.relu,
            conv(inner, inner, 3, stride, rngs),
            norm_of(inner),
            nnx.relu,
            conv(inner, 4 * inner, 1, 1, rngs),
            norm_of(4 * inner),
        )
        self.shortcut = _shortcut(before, 4 * inner, stride, norm_of, rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Map (batch, height, width, before) to (batch, height / stride, width / stride, 4 * inner)."""
        return nnx.relu(self.shortcut(x) + self.path(x))


class WideBlock(nnx.Module):
    """``shortcut + conv(relu(norm(conv(relu(norm(x))))))``; a shortcut that widens starts after the first relu."""

    def __init__(self, before: int, after: int, stride: int, norm_of: MakeNorm, rngs: nnx.Rngs) -> None:
        self.activate = nnx.Sequential(norm_of(before), nnx.relu)
        self.path = nnx.Sequential(
            conv(before, after, 3, stride, rngs), norm_of(after), nnx.relu, conv(after, after, 3, 1, rngs)
        )
        self.widen = None if before == after else conv(before, after, 1, stride, rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Map (batch, height, width, before) to (batch, height / stride, width / stride, after)."""
        active = self.activate(x)
        return jnp.asarray(self.path(active) + (x if self.widen is None else self.widen(active)))


def _unchanged(x: jax.Array) -> jax.Array:
    return x


def _shortcut(before: int, after: int, stride: int, norm_of: MakeNorm, rngs: nnx.Rngs) -> nnx.Sequential:
    if before == after:
        return nnx.Sequential(_unchanged)  # an empty Sequential returns None before flax 0.11
    return nnx.Sequential(conv(before, after, 1, stride, rngs), norm_of(after))


def conv(before: int, after: int, size: int, stride: int, rngs: nnx.Rngs) -> SameConv:
    """Return a convolution with He-normal weights, scaled by the number of outputs."""
    return SameConv(before, after, size, stride, kernel_init=scaled(2.0, "out", truncated=False), rngs=rngs)


def norm_layer(norm: Norm, rngs: nnx.Rngs, channels: int) -> nnx.BatchNorm | nnx.GroupNorm:
    """Return batch norm, or group norm with up to 32 groups."""
    if norm == "batch":
        return nnx.BatchNorm(channels, momentum=0.9, epsilon=1e-5, rngs=rngs)
    return nnx.GroupNorm(channels, num_groups=min(32, channels // 2), epsilon=1e-5, rngs=rngs)


def overlapping_pool(images: jax.Array) -> jax.Array:
    """Return the maximum over 3 x 3 pixels around every second row and column."""
    window, stride, padding = (1, 3, 3, 1), (1, 2, 2, 1), ((0, 0), (1, 1), (1, 1), (0, 0))
    return jnp.asarray(jax.lax.reduce_window(images, -jnp.inf, jax.lax.max, window, stride, padding))


class Decoder(nnx.Module):
    """A decoder-only transformer from tokens to logits."""

    def __init__(self, vocabulary: int, context: int, layers: int, width: int, heads: int, rngs: nnx.Rngs) -> None:
        self.tokens = nnx.Embed(vocabulary, width, embedding_init=normal(0.02), rngs=rngs)
        self.positions = nnx.Embed(context, width, embedding_init=normal(0.02), rngs=rngs)
        self.blocks = nnx.Sequential(*(Block(width, heads, 0.02 / sqrt(2 * layers), rngs) for _ in range(layers)))
        self.norm = nnx.LayerNorm(width, epsilon=1e-5, rngs=rngs)

    def __call__(self, tokens: jax.Array) -> jax.Array:
        """Map (batch, context) to (batch, context, vocabulary); row t depends on tokens 0, ..., t only."""
        x = self.tokens(tokens) + self.positions(jnp.arange(tokens.shape[1]))
        return jnp.asarray(self.tokens.attend(self.norm(self.blocks(x))))


class Block(nnx.Module):
    """``x + attention(norm(x))``, then ``x + dense(norm(x))``, whose hidden layer has four times the width."""

    def __init__(self, width: int, heads: int, last_scale: float, rngs: nnx.Rngs) -> None:
        inner, last = normal(0.02), normal(last_scale)
        self.heads = heads
        self.before_attention = nnx.LayerNorm(width, epsilon=1e-5, rngs=rngs)
        self.queries_keys_values = nnx.Linear(width, 3 * width, kernel_init=inner, rngs=rngs)
        self.mixed = nnx.Linear(width, width, kernel_init=last, rngs=rngs)
        self.dense = nnx.Sequential(
            nnx.LayerNorm(width, epsilon=1e-5, rngs=rngs),
            nnx.Linear(width, 4 * width, kernel_init=inner, rngs=rngs),
            nnx.gelu,
            nnx.Linear(4 * width, width, kernel_init=last, rngs=rngs),
        )

    def __call__(self, x: jax.Array) -> jax.Array:
        """Map (batch, context, width) to the same shape."""
        split = self.queries_keys_values(self.before_attention(x)).reshape(*x.shape[:2], 3, self.heads, -1)
        queries, keys, values = jnp.moveaxis(split, 2, 0)
        attended = jax.nn.dot_product_attention(queries, keys, values, is_causal=True)
        x = x + self.mixed(attended.reshape(x.shape))
        return jnp.asarray(x + self.dense(x))
