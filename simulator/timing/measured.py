"""Measured times in text files: the user's own, and slow-down factors that come with the package."""

from __future__ import annotations

import functools
import importlib.resources

import numpy as np
import numpy.typing as npt

from stalegrad.policies.specs import unknown_name


@functools.lru_cache(maxsize=64)
def load_times(file: str, sha256: str | None) -> npt.NDArray[np.float64]:
    """Return the times of a file, one a line; read once per checksum."""
    return np.loadtxt(file, ndmin=1)


def load_factors(name: str) -> tuple[list[float], list[float]]:
    """Return slow-down factors (time / median) and how many measurements each of them stands for.

    Args:
        name: ``nn-training-times``.

    Raises:
        ValueError: for an unknown name, with a suggestion.
    """
    folder = importlib.resources.files(__package__) / "data"
    files = {file.name.removesuffix(".txt"): file for file in folder.iterdir()}
    if name not in files:
        raise ValueError(unknown_name("measured law", name, files))
    factors, weights = np.loadtxt(files[name].read_text(encoding="utf-8").splitlines(), unpack=True)
    return factors.tolist(), weights.tolist()
