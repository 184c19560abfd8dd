"""Checks of the arguments of theory, with errors that name the argument, its value and what is allowed."""

from __future__ import annotations

import math
from numbers import Real
from typing import TypeAlias

import numpy as np

from stalegrad.analysis.theory.constants import Constants

ConstantsLike: TypeAlias = Constants | tuple[float, float]
"""Measured constants, or the pair (L, sigma^2)."""


def check_number(
    name: str, value: object, low: float = 0.0, high: float = math.inf, *, above: bool = False
) -> None:
    """Raise ValueError unless ``value`` is a finite number from ``low`` (excluded if ``above``) to ``high``."""
    number = isinstance(value, Real | np.number) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or not low <= value <= high or (above and value == low):  # type: ignore[arg-type,operator]
        least = f"above {low:g}" if above else f"of at least {low:g}"
        most = f" and at most {high:g}" if math.isfinite(high) else ""
        raise ValueError(f"{name} = {value!r} is not allowed: a finite number {least}{most}")


def check_constants(constants: Constants, *, convex: bool = False) -> None:
    """Raise ValueError unless the constants of a problem are in range."""
    check_number("smoothness", constants.smoothness, above=True)
    check_number("convexity", constants.convexity, high=constants.smoothness, above=convex)
    check_number("noise", constants.noise)
    check_number("growth", constants.growth)


def check_whole(name: str, value: object, low: int = 1) -> None:
    """Raise ValueError unless ``value`` is a whole number of at least ``low``."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < low:
        raise ValueError(f"{name} = {value!r} is not allowed: a whole number of at least {low}")


def smoothness_and_noise(constants: ConstantsLike, batch_size: int) -> tuple[float, float]:
    """Return L, and sigma^2 of the mean gradient of a mini-batch.

    Raises:
        ValueError: if a constant or the batch size is out of range, or the noise grows with the gradient.
    """
    if not isinstance(constants, tuple) or len(constants) != (4 if isinstance(constants, Constants) else 2):
        raise ValueError(f"constants = {constants!r:.200} is not allowed: Constants, or the pair (L, sigma^2)")
    known = constants if isinstance(constants, Constants) else Constants(constants[0], 0.0, constants[1])
    check_constants(known)
    check_whole("batch_size", batch_size)
    if known.growth:
        raise ValueError(
            f"growth = {known.growth!r} is not allowed: theory here needs one sigma^2 for all parameters; "
            "measured_noise measures it along a run"
        )
    return float(known.smoothness), float(known.noise) / batch_size
