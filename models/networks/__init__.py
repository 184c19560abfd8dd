"""Networks: built from flax nnx layers, used as functions of plain pytrees of parameters.

A further network is one function in its own file and one line in ``NETWORKS``.
"""

import inspect

from stalegrad._core.registry import Registry
from stalegrad.models.networks.dense import mlp, softmax_regression
from stalegrad.models.networks.network import Architecture, Network
from stalegrad.models.networks.residual import resnet20, resnet32, resnet44, resnet50, resnet56, wrn_16_4
from stalegrad.models.networks.small_cnns import cnn_mindthestep, lenet_adasync, lenet_mindthestep
from stalegrad.models.networks.transformer import transformer

NETWORKS = Registry[Architecture](
    "model",
    {
        "cnn-mindthestep": Architecture(cnn_mindthestep),
        "lenet-mindthestep": Architecture(lenet_mindthestep),
        "lenet-adasync": Architecture(lenet_adasync),
        "softmax-regression": Architecture(softmax_regression),
        "mlp": Architecture(mlp),
        "resnet-20": Architecture(resnet20),
        "resnet-32": Architecture(resnet32),
        "resnet-44": Architecture(resnet44),
        "resnet-56": Architecture(resnet56),
        "wrn-16-4": Architecture(wrn_16_4),
        "resnet-50": Architecture(resnet50),
        "transformer": Architecture(transformer, takes="text"),
    },
)
"""The networks by name; ``NETWORKS.register`` adds your own."""


def list_models() -> dict[str, str]:
    """Return every network's name and the first line of its description.

    Example:
        >>> from stalegrad.models import list_models
        >>> {"mlp", "resnet-20", "transformer"} <= set(list_models())
        True
    """
    return {name: (inspect.getdoc(found.make) or "").splitlines()[0] for name, found in NETWORKS.items()}


__all__ = [
    "NETWORKS",
    "Architecture",
    "Network",
    "cnn_mindthestep",
    "lenet_adasync",
    "lenet_mindthestep",
    "list_models",
    "mlp",
    "resnet20",
    "resnet32",
    "resnet44",
    "resnet50",
    "resnet56",
    "softmax_regression",
    "transformer",
    "wrn_16_4",
]
