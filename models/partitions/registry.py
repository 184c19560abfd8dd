"""The registry of partitions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from stalegrad._core.registry import Registry
from stalegrad._core.specs import shown

if TYPE_CHECKING:
    from stalegrad.models.partitions.base import Partition

PARTITIONS: Registry[type[Partition]] = Registry(
    "partition",
    {
        "shuffled": "stalegrad.models.partitions.shuffled:Shuffled",
        "dirichlet": "stalegrad.models.partitions.skewed:Dirichlet",
        "classes-per-worker": "stalegrad.models.partitions.skewed:ClassesPerWorker",
        "assigned": "stalegrad.models.partitions.assigned:Assigned",
    },
    key="partition",
    aliases={"iid": "shuffled"},
)
"""The partitions by name; ``PARTITIONS.register`` adds your own."""


def as_partition(value: object) -> Partition:
    """Return a partition unchanged, or the partition of a table as in TOML.

    Raises:
        ValueError: for any other value; the error names it.
    """
    from stalegrad.models.partitions.base import Partition

    if isinstance(value, Partition):
        return value
    if isinstance(value, Mapping):
        found: Partition = PARTITIONS.from_table(value)
        return found
    raise ValueError(f"partition = {shown(value)} is not allowed: give e.g. Dirichlet(alpha=0.1)")
