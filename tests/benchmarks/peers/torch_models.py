"""The networks in PyTorch, with the same widths as in stalegrad, for the contestants that use PyTorch."""

import torch
from torch import nn


def network(model: str) -> nn.Module:
    """Return a network from flat inputs to logits."""
    if model == "softmax":
        return nn.Linear(60, 10)
    if model == "mlp":
        return nn.Sequential(nn.Linear(784, 64), nn.ReLU(), nn.Linear(64, 10))
    return nn.Sequential(
        nn.Unflatten(1, (1, 28, 28)),
        nn.Conv2d(1, 4, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(4, 8, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(200, 128),
        nn.ReLU(),
        nn.Linear(128, 10),
    )


@torch.no_grad()
def mean_loss(model: nn.Module, inputs: torch.Tensor, labels: torch.Tensor) -> float:
    """Return the mean cross-entropy of all rows, in nats."""
    return float(nn.functional.cross_entropy(model(inputs), labels))
