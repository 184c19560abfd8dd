"""Networks: flax nnx layers inside, plain pytrees of parameters outside.

A further network is one function, entered in ``NETWORKS`` by its decorator; a further file is imported here.
"""

from stalegrad.models.networks.convolutional import cnn_mindthestep, lenet_adasync, lenet_mindthestep
from stalegrad.models.networks.dense import mlp, softmax_regression
from stalegrad.models.networks.network import KINDS, NETWORKS, Network
from stalegrad.models.networks.residual import resnet20, resnet32, resnet44, resnet50, resnet56, wrn_16_4
from stalegrad.models.networks.transformer import transformer

__all__ = [
    "KINDS",
    "NETWORKS",
    "Network",
    "cnn_mindthestep",
    "lenet_adasync",
    "lenet_mindthestep",
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
