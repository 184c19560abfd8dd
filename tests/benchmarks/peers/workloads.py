"""The workloads and their data, the same for every contestant; needs only NumPy and the standard library."""

import gzip
from pathlib import Path
from typing import NamedTuple

import numpy as np

IMAGES = Path(__file__).resolve().parents[3] / "models" / "data" / "fashion-mnist-small"
CLASSES = 10


class Workload(NamedTuple):
    """A workload of asynchronous SGD: every worker computes gradients all the time; delays are exponential."""

    title: str
    model: str
    learning_rate: float
    batch_size: int = 32


WORKLOADS = {
    "w1": Workload("W1: softmax regression 60x10, 10,000 synthetic rows", "softmax", 0.01),
    "mlp": Workload("MLP 784-64-10, Fashion-MNIST (10,000 images)", "mlp", 0.005),
    "cnn": Workload("small CNN (27,354 parameters), Fashion-MNIST (10,000 images)", "cnn", 0.001),
}


def data(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Return inputs, float32 (10000, features), and labels, int64 (10000,)."""
    if name == "w1":
        rng = np.random.default_rng(0)
        rows = rng.normal(size=(10_000, 60)).astype(np.float32)
        scores = rows @ rng.normal(size=(60, CLASSES)) + rng.gumbel(size=(10_000, CLASSES))
        return rows, scores.argmax(axis=1)
    images = np.frombuffer(gzip.decompress((IMAGES / "train-images-idx3-ubyte.gz").read_bytes()), np.uint8)
    labels = np.frombuffer(gzip.decompress((IMAGES / "train-labels-idx1-ubyte.gz").read_bytes()), np.uint8)
    pixels = images[16:].reshape(-1, 784).astype(np.float32) / 255
    return (pixels - pixels.mean()) / pixels.std(), labels[8:].astype(np.int64)
