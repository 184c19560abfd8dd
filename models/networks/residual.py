"""Residual networks: ResNets for CIFAR, a wide ResNet, and ResNet-50."""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING

from stalegrad.models.networks.network import Layer, Network, Norm, from_module

if TYPE_CHECKING:
    from flax import nnx


def resnet20(input_shape: tuple[int, ...], classes: int, *, norm: Norm = "group") -> Network:
    """ResNet-20 for CIFAR: 3 x 3 basic blocks with 16, 32, 64 channels.

    0.27 M parameters (272,474 for 32 x 32 x 3 images in 10 classes).

    Args:
        input_shape: (height, width, channels).
        classes: number of classes.
        norm: ``group`` or ``batch``, see ``Norm``.

    Shortcuts that widen use a 1 x 1 convolution and a norm (option B of He et al., who leave the choice open).

    Reference: He, Zhang, Ren, Sun 2016, "Deep residual learning for image recognition" (CVPR), section 4.2.
    """
    return _cifar_resnet(3, input_shape, classes, norm)


def resnet32(input_shape: tuple[int, ...], classes: int, *, norm: Norm = "group") -> Network:
    """ResNet-32 for CIFAR: as ``resnet-20``, with 3 x 5 basic blocks.

    0.47 M parameters (466,906 for 32 x 32 x 3 images in 10 classes).

    Args:
        input_shape: (height, width, channels).
        classes: number of classes.
        norm: ``group`` or ``batch``, see ``Norm``.
    """
    return _cifar_resnet(5, input_shape, classes, norm)


def resnet44(input_shape: tuple[int, ...], classes: int, *, norm: Norm = "group") -> Network:
    """ResNet-44 for CIFAR: as ``resnet-20``, with 3 x 7 basic blocks.

    0.66 M parameters (661,338 for 32 x 32 x 3 images in 10 classes).

    Args:
        input_shape: (height, width, channels).
        classes: number of classes.
        norm: ``group`` or ``batch``, see ``Norm``.
    """
    return _cifar_resnet(7, input_shape, classes, norm)


def resnet56(input_shape: tuple[int, ...], classes: int, *, norm: Norm = "group") -> Network:
    """ResNet-56 for CIFAR: as ``resnet-20``, with 3 x 9 basic blocks.

    0.86 M parameters (855,770 for 32 x 32 x 3 images in 10 classes).

    Args:
        input_shape: (height, width, channels).
        classes: number of classes.
        norm: ``group`` or ``batch``, see ``Norm``.
    """
    return _cifar_resnet(9, input_shape, classes, norm)


def wrn_16_4(input_shape: tuple[int, ...], classes: int, *, norm: Norm = "group") -> Network:
    """Wide ResNet of depth 16 and width 4: 3 x 2 pre-activation blocks with 64, 128, 256 channels.

    2.75 M parameters (2,748,890 for 32 x 32 x 3 images in 10 classes).

    Args:
        input_shape: (height, width, channels).
        classes: number of classes.
        norm: ``group`` or ``batch``, see ``Norm``.

    Reference: Zagoruyko, Komodakis 2016, "Wide residual networks" (BMVC).
    """
    from flax import nnx

    from stalegrad.models.networks import blocks
    from stalegrad.models.networks.layers import mean_pool
    from stalegrad.models.networks.starts import lecun_normal

    channels = (16, 64, 128, 256)

    def make(rngs: nnx.Rngs) -> nnx.Sequential:
        norm_of = partial(blocks.norm_layer, norm, rngs)
        layers: list[Layer] = [blocks.conv(input_shape[-1], channels[0], 3, 1, rngs)]
        for before, after in pairwise(channels):
            layers.append(blocks.WideBlock(before, after, 1 if before == channels[0] else 2, norm_of, rngs))
            layers.append(blocks.WideBlock(after, after, 1, norm_of, rngs))
        layers += [norm_of(channels[-1]), nnx.relu, mean_pool]
        return nnx.Sequential(*layers, nnx.Linear(channels[-1], classes, kernel_init=lecun_normal, rngs=rngs))

    return from_module(make)


def resnet50(input_shape: tuple[int, ...], classes: int, *, norm: Norm = "group") -> Network:
    """ResNet-50 for ImageNet: 3, 4, 6, 3 bottleneck blocks with 256 to 2048 channels.

    25.6 M parameters (25,557,032 for colour images of any size in 1,000 classes). The stride of a block is in its
    3 x 3 convolution, as is usual today; in the paper it is in the first 1 x 1 convolution.

    Args:
        input_shape: (height, width, channels).
        classes: number of classes.
        norm: ``group`` or ``batch``, see ``Norm``.

    Reference: He, Zhang, Ren, Sun 2016, "Deep residual learning for image recognition" (CVPR), table 1.
    """
    from flax import nnx

    from stalegrad.models.networks import blocks
    from stalegrad.models.networks.layers import mean_pool
    from stalegrad.models.networks.starts import lecun_normal

    def make(rngs: nnx.Rngs) -> nnx.Sequential:
        norm_of = partial(blocks.norm_layer, norm, rngs)
        layers: list[Layer] = [
            blocks.conv(input_shape[-1], 64, 7, 2, rngs),
            norm_of(64),
            nnx.relu,
            blocks.overlapping_pool,
        ]
        width = 64
        for stage, n in enumerate((3, 4, 6, 3)):
            inner = 64 * 2**stage
            for block in range(n):
                stride = 2 if stage and not block else 1
                layers.append(blocks.Bottleneck(width, inner, stride, norm_of, rngs))
                width = 4 * inner
        return nnx.Sequential(*layers, mean_pool, nnx.Linear(width, classes, kernel_init=lecun_normal, rngs=rngs))

    return from_module(make)


def _cifar_resnet(n: int, input_shape: tuple[int, ...], classes: int, norm: Norm) -> Network:
    """Return a ResNet of three stages with ``n`` basic blocks each."""
    from flax import nnx

    from stalegrad.models.networks import blocks
    from stalegrad.models.networks.layers import mean_pool
    from stalegrad.models.networks.starts import lecun_normal

    def make(rngs: nnx.Rngs) -> nnx.Sequential:
        norm_of = partial(blocks.norm_layer, norm, rngs)
        layers: list[Layer] = [blocks.conv(input_shape[-1], 16, 3, 1, rngs), norm_of(16), nnx.relu]
        for before, after in ((16, 16), (16, 32), (32, 64)):
            layers.append(blocks.BasicBlock(before, after, after // before, norm_of, rngs))
            layers += [blocks.BasicBlock(after, after, 1, norm_of, rngs) for _ in range(n - 1)]
        return nnx.Sequential(*layers, mean_pool, nnx.Linear(64, classes, kernel_init=lecun_normal, rngs=rngs))

    return from_module(make)
