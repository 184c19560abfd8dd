"""The metric that APPFL's trainer computes after each training; APPFL requires a separate file."""

import numpy as np


def accuracy(labels: np.ndarray, logits: np.ndarray) -> float:
    return float((logits.argmax(axis=1) == labels).mean())
