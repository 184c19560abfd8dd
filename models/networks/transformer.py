"""A language model: a transformer that predicts each token from those before it."""

from __future__ import annotations

from math import sqrt
from typing import Annotated

import jax
import jax.numpy as jnp
from flax import nnx
from pydantic import Field

from stalegrad.models.networks.network import Network, from_module, network

Count = Annotated[int, Field(ge=1)]


@network("transformer", kind="text")
def transformer(
    input_shape: tuple[int, ...],
    classes: int,
    *,
    layers: Count = 4,
    width: Count = 128,
    heads: Count = 4,
) -> Network:
    """Decoder-only transformer with norms before attention and before the dense layers, as in GPT-2.

    With L layers of width d it has ``L * (12 d^2 + 13 d) + 2 d + (vocabulary + context) * d`` parameters: 0.82 M
    by default on ``shakespeare``. Weights are N(0, 0.02^2), those that end a residual branch smaller by
    ``sqrt(2 L)``; positions are learnt; the output shares its weights with the embedding. There is no dropout.

    Args:
        input_shape: (context,).
        classes: size of the vocabulary.
        layers: attention and dense layers, one pair each.
        width: of every token's vector; a multiple of ``heads``.
        heads: of attention.

    Reference: Radford, Wu, Child, Luan, Amodei, Sutskever 2019, "Language models are unsupervised multitask
    learners"; Vaswani et al. 2017, "Attention is all you need".
    """
    if width % heads:
        raise ValueError(f"width = {width} is not allowed: a multiple of heads = {heads}")
    return from_module(lambda rngs: Decoder(classes, input_shape[0], layers, width, heads, rngs))


class Decoder(nnx.Module):
    """From tokens to logits."""

    def __init__(self, vocabulary: int, context: int, layers: int, width: int, heads: int, rngs: nnx.Rngs) -> None:
        normal = nnx.initializers.normal(0.02)
        self.tokens = nnx.Embed(vocabulary, width, embedding_init=normal, rngs=rngs)
        self.positions = nnx.Embed(context, width, embedding_init=normal, rngs=rngs)
        self.blocks = nnx.Sequential(*(Block(width, heads, 0.02 / sqrt(2 * layers), rngs) for _ in range(layers)))
        self.norm = nnx.LayerNorm(width, epsilon=1e-5, rngs=rngs)

    def __call__(self, tokens: jax.Array) -> jax.Array:
        """Map (batch, context) to (batch, context, vocabulary); row t depends on tokens 0, ..., t only."""
        x = self.tokens(tokens) + self.positions(jnp.arange(tokens.shape[1]))
        return jnp.asarray(self.tokens.attend(self.norm(self.blocks(x))))


class Block(nnx.Module):
    """``x + attention(norm(x))``, then ``x + dense(norm(x))`` with four times the width inside."""

    def __init__(self, width: int, heads: int, last_scale: float, rngs: nnx.Rngs) -> None:
        normal, last = nnx.initializers.normal(0.02), nnx.initializers.normal(last_scale)
        self.heads = heads
        self.before_attention = nnx.LayerNorm(width, epsilon=1e-5, rngs=rngs)
        self.queries_keys_values = nnx.Linear(width, 3 * width, kernel_init=normal, rngs=rngs)
        self.mixed = nnx.Linear(width, width, kernel_init=last, rngs=rngs)
        self.dense = nnx.Sequential(
            nnx.LayerNorm(width, epsilon=1e-5, rngs=rngs),
            nnx.Linear(width, 4 * width, kernel_init=normal, rngs=rngs),
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
