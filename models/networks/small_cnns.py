"""The small convolutional networks of the papers."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from stalegrad.models.networks.network import Layer, Network, from_module

if TYPE_CHECKING:
    from flax import nnx

InitScale = Annotated[float, Field(ge=0, allow_inf_nan=False)] | None


def cnn_mindthestep(input_shape: tuple[int, ...], classes: int, *, init_scale: InitScale = None) -> Network:
    """Convolutions 4 @ 3 x 3 and 8 @ 3 x 3, each with ReLU and max-pooling, then 128 units.

    27,354 parameters for 28 x 28 x 1 images in 10 classes.

    Args:
        input_shape: (height, width, channels), at least 10 x 10 pixels.
        classes: number of classes.
        init_scale: weights and biases start as N(0, init_scale^2), 0.01 in the paper; by default weights are
            He-normal (the last layer's LeCun-normal) and biases 0.

    Reference: Bäckström, Papatriantafilou, Tsigas 2021, "Consistent lock-free parallel stochastic gradient
    descent for fast and stable convergence" (IPDPS), whose settings are also used for MindTheStep.
    """
    return _network("cnn-mindthestep", input_shape, classes, (4, 8), 3, (128,), init_scale)


def lenet_mindthestep(input_shape: tuple[int, ...], classes: int, *, init_scale: InitScale = None) -> Network:
    """Convolutions 6 @ 5 x 5 and 16 @ 5 x 5, each with ReLU and max-pooling, then 120 units.

    52,202 parameters for 32 x 32 x 3 images in 10 classes.

    Args:
        input_shape: (height, width, channels), at least 16 x 16 pixels.
        classes: number of classes.
        init_scale: weights and biases start as N(0, init_scale^2), 0.01 in the paper; by default weights are
            He-normal (the last layer's LeCun-normal) and biases 0.

    Reference: as ``cnn-mindthestep``.
    """
    return _network("lenet-mindthestep", input_shape, classes, (6, 16), 5, (120,), init_scale)


def lenet_adasync(input_shape: tuple[int, ...], classes: int, *, init_scale: InitScale = None) -> Network:
    """Convolutions 6 @ 5 x 5 and 16 @ 5 x 5, each with ReLU and max-pooling, then 120 and 84 units.

    62,006 parameters for 32 x 32 x 3 images in 10 classes.

    Args:
        input_shape: (height, width, channels), at least 16 x 16 pixels.
        classes: number of classes.
        init_scale: weights and biases start as N(0, init_scale^2); by default weights are He-normal
            (the last layer's LeCun-normal) and biases 0.

    Reference: LeCun et al. 1998, Proceedings of the IEEE 86(11), fig. 2; used on CIFAR-10 with AdaSync.
    """
    return _network("lenet-adasync", input_shape, classes, (6, 16), 5, (120, 84), init_scale)


def _network(
    name: str,
    input_shape: tuple[int, ...],
    classes: int,
    channels: tuple[int, ...],
    kernel: int,
    hidden: tuple[int, ...],
    init_scale: float | None,
) -> Network:
    """Return convolution, ReLU and 2 x 2 max-pooling for each entry of ``channels``, then dense layers."""
    from flax import nnx

    from stalegrad.models.networks.layers import SmallConv, flatten, max_pool
    from stalegrad.models.networks.starts import he_normal, lecun_normal, normal

    height, width, colours = input_shape
    for _ in channels:
        height, width = (height - kernel + 1) // 2, (width - kernel + 1) // 2
    if min(height, width) < 1:
        raise ValueError(
            f"model {name!r} cannot take images of {input_shape[0]} x {input_shape[1]} pixels: "
            f"{len(channels)} convolutions of {kernel} x {kernel} with pooling leave nothing"
        )
    widths = (height * width * channels[-1], *hidden)

    def make(rngs: nnx.Rngs) -> nnx.Sequential:
        start = None if init_scale is None else normal(init_scale)
        options: dict[str, Any] = {
            "kernel_init": start or he_normal,
            "bias_init": start or nnx.initializers.zeros_init(),
            "rngs": rngs,
        }
        layers: list[Layer] = []
        for before, after in pairwise((colours, *channels)):
            layers += [SmallConv(before, after, kernel, **options), nnx.relu, max_pool]
        layers.append(flatten)
        for before, after in pairwise(widths):
            layers += [nnx.Linear(before, after, **options), nnx.relu]
        last = options if start else {"rngs": rngs, "kernel_init": lecun_normal}
        return nnx.Sequential(*layers, nnx.Linear(widths[-1], classes, **last))

    return from_module(make)
