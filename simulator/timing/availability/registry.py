"""The registry of kinds of availability."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stalegrad._core.registry import Registry
from stalegrad.simulator.timing.availability.base import Availability

AVAILABILITIES: Registry[type[Availability]] = Registry(
    "availability",
    {
        "renewal": "stalegrad.simulator.timing.availability.renewal:Renewal",
        "events": "stalegrad.simulator.timing.availability.events:Events",
        "counts": "stalegrad.simulator.timing.availability.counts:Counts",
    },
    key="availability",
)
"""The kinds of availability by name; ``AVAILABILITIES.register`` adds your own."""


def as_availability(value: Any) -> Availability:
    """Return the availability that a value stands for: an availability, or a table as in TOML.

    Raises:
        ValueError: for any other value; it names the value.
    """
    if isinstance(value, Availability):
        return value
    if isinstance(value, Mapping):
        found: Availability = AVAILABILITIES.from_table(value)
        return found
    raise ValueError(
        f"availability of cluster = {value!r:.200} is not allowed: give e.g. Renewal(up=..., down=...)"
    )
