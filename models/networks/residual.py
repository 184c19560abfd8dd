"""Residual networks: those for CIFAR, the wide one, and ResNet-50."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx

from stalegrad.models.networks.layers import SameConv, mean_pool
from stalegrad.models.networks.network import Network, from_module, network

Norm = Literal["batch", "group"]
"""``batch``: batch norm (Ioffe and Szegedy 2015), which keeps running statistics; ``group``: group norm (Wu and
He 2018), which keeps none: 32 groups, fewer where that would leave less than two channels in each."""

MakeNorm = Callable[[int], Any]


@network("resnet-20")
def resnet20(input_shape: tuple[int, ...], classes: int, *, norm: Norm = "group") -> Network:
    """ResNet-20 for CIFAR: 3 x 3 basic blocks with 16, 32, 64 channels.

    0.27 M parameters (272,474 for 32 x 32 x 3 images in 10 classes).

    Args:
        input_shape: (height, width, channels).
        classes: number of classes.
        norm: ``group`` or ``batch``, see ``Norm``.

    He et al. leave open how a shortcut widens; here by a 1 x 1 convolution and a norm (their option B).

    Reference: He, Zhang, Ren, Sun 2016, "Deep residual learning for image recognition" (CVPR), section 4.2.
    """
    return _cifar_resnet(3, input_shape, classes, norm)


@network("resnet-32")
def resnet32(input_shape: tuple[int, ...], classes: int, *, norm: Norm = "group") -> Network:
    """ResNet-32 for CIFAR: as ``resnet-20``, with 3 x 5 basic blocks.

    0.47 M parameters (466,906 for 32 x 32 x 3 images in 10 classes). Arguments as of ``resnet-20``.
    """
    return _cifar_resnet(5, input_shape, classes, norm)


@network("resnet-44")
def resnet44(input_shape: tuple[int, ...], classes: int, *, norm: Norm = "group") -> Network:
    """ResNet-44 for CIFAR: as ``resnet-20``, with 3 x 7 basic blocks.

    0.66 M parameters (661,338 for 32 x 32 x 3 images in 10 classes). Arguments as of ``resnet-20``.
    """
    return _cifar_resnet(7, input_shape, classes, norm)


@network("resnet-56")
def resnet56(input_shape: tuple[int, ...], classes: int, *, norm: Norm = "group") -> Network:
    """ResNet-56 for CIFAR: as ``resnet-20``, with 3 x 9 basic blocks.

    0.86 M parameters (855,770 for 32 x 32 x 3 images in 10 classes). Arguments as of ``resnet-20``.
    """
    return _cifar_resnet(9, input_shape, classes, norm)


@network("wrn-16-4")
def wrn_16_4(input_shape: tuple[int, ...], classes: int, *, norm: Norm = "group") -> Network:
    """Wide ResNet of depth 16 and width 4: 3 x 2 pre-activation blocks with 64, 128, 256 channels.

    2.75 M parameters (2,748,890 for 32 x 32 x 3 images in 10 classes).

    Args:
        input_shape: (height, width, channels).
        classes: number of classes.
        norm: ``group`` or ``batch``, see ``Norm``.

    Reference: Zagoruyko, Komodakis 2016, "Wide residual networks" (BMVC).
    """
    channels = (16, 64, 128, 256)

    def make(rngs: nnx.Rngs) -> nnx.Sequential:
        norm_of = partial(_norm, norm, rngs)
        layers: list[Any] = [_conv(input_shape[-1], channels[0], 3, 1, rngs)]
        for before, after in pairwise(channels):
            layers.append(WideBlock(before, after, 1 if before == channels[0] else 2, norm_of, rngs))
            layers.append(WideBlock(after, after, 1, norm_of, rngs))
        layers += [norm_of(channels[-1]), nnx.relu, mean_pool]
        return nnx.Sequential(*layers, nnx.Linear(channels[-1], classes, rngs=rngs))

    return from_module(make)


@network("resnet-50")
def resnet50(input_shape: tuple[int, ...], classes: int, *, norm: Norm = "group") -> Network:
    """ResNet-50 for ImageNet: 3, 4, 6, 3 bottleneck blocks with 256 to 2048 channels.

    25.6 M parameters (25,557,032 for colour images of any size in 1,000 classes). The stride of a block sits in
    its 3 x 3 convolution, as has become usual; He et al. put it into the first 1 x 1.

    Args:
        input_shape: (height, width, channels).
        classes: number of classes.
        norm: ``group`` or ``batch``, see ``Norm``.

    Reference: He, Zhang, Ren, Sun 2016, "Deep residual learning for image recognition" (CVPR), table 1.
    """

    def make(rngs: nnx.Rngs) -> nnx.Sequential:
        norm_of = partial(_norm, norm, rngs)
        layers: list[Any] = [_conv(input_shape[-1], 64, 7, 2, rngs), norm_of(64), nnx.relu, _overlapping_pool]
        width = 64
        for stage, blocks in enumerate((3, 4, 6, 3)):
            inner = 64 * 2**stage
            for block in range(blocks):
                stride = 2 if stage and not block else 1
                layers.append(Bottleneck(width, inner, stride, norm_of, rngs))
                width = 4 * inner
        return nnx.Sequential(*layers, mean_pool, nnx.Linear(width, classes, rngs=rngs))

    return from_module(make)


def _cifar_resnet(blocks: int, input_shape: tuple[int, ...], classes: int, norm: Norm) -> Network:
    """Three stages of so many basic blocks."""

    def make(rngs: nnx.Rngs) -> nnx.Sequential:
        norm_of = partial(_norm, norm, rngs)
        layers: list[Any] = [_conv(input_shape[-1], 16, 3, 1, rngs), norm_of(16), nnx.relu]
        for before, after in ((16, 16), (16, 32), (32, 64)):
            layers.append(BasicBlock(before, after, after // before, norm_of, rngs))
            layers += [BasicBlock(after, after, 1, norm_of, rngs) for _ in range(blocks - 1)]
        return nnx.Sequential(*layers, mean_pool, nnx.Linear(64, classes, rngs=rngs))

    return from_module(make)


class BasicBlock(nnx.Module):
    """``relu(shortcut(x) + norm(conv(relu(norm(conv(x))))))`` with 3 x 3 convolutions."""

    def __init__(self, before: int, after: int, stride: int, norm_of: MakeNorm, rngs: nnx.Rngs) -> None:
        self.path = nnx.Sequential(
            _conv(before, after, 3, stride, rngs),
            norm_of(after),
            nnx.relu,
            _conv(after, after, 3, 1, rngs),
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
            _conv(before, inner, 1, 1, rngs),
            norm_of(inner),
            nnx.relu,
            _conv(inner, inner, 3, stride, rngs),
            norm_of(inner),
            nnx.relu,
            _conv(inner, 4 * inner, 1, 1, rngs),
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
            _conv(before, after, 3, stride, rngs), norm_of(after), nnx.relu, _conv(after, after, 3, 1, rngs)
        )
        self.widen = None if before == after else _conv(before, after, 1, stride, rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Map (batch, height, width, before) to (batch, height / stride, width / stride, after)."""
        active = self.activate(x)
        return jnp.asarray(self.path(active) + (x if self.widen is None else self.widen(active)))


def _unchanged(x: jax.Array) -> jax.Array:
    return x


def _shortcut(before: int, after: int, stride: int, norm_of: MakeNorm, rngs: nnx.Rngs) -> nnx.Sequential:
    if before == after:
        return nnx.Sequential(_unchanged)  # an empty one gives None before flax 0.11
    return nnx.Sequential(_conv(before, after, 1, stride, rngs), norm_of(after))


def _conv(before: int, after: int, size: int, stride: int, rngs: nnx.Rngs) -> SameConv:
    """A convolution that is He-normal by its outputs."""
    he = nnx.initializers.variance_scaling(2.0, "fan_out", "normal")
    return SameConv(before, after, size, stride, kernel_init=he, rngs=rngs)


def _norm(norm: Norm, rngs: nnx.Rngs, channels: int) -> nnx.BatchNorm | nnx.GroupNorm:
    if norm == "batch":
        return nnx.BatchNorm(channels, momentum=0.9, epsilon=1e-5, rngs=rngs)
    return nnx.GroupNorm(channels, num_groups=min(32, channels // 2), epsilon=1e-5, rngs=rngs)


def _overlapping_pool(images: jax.Array) -> jax.Array:
    window, stride, padding = (1, 3, 3, 1), (1, 2, 2, 1), ((0, 0), (1, 1), (1, 1), (0, 0))
    return jnp.asarray(jax.lax.reduce_window(images, -jnp.inf, jax.lax.max, window, stride, padding))
