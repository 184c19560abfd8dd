"""Clusters, laws and synchronies as plain tables (of a TOML or JSON file), and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from stalegrad._core.specs import from_table, unknown_name
from stalegrad.policies.synchrony import SYNCHRONIES, Synchrony
from stalegrad.simulator.timing.cluster import Cluster
from stalegrad.simulator.timing.delays import Delay, delay_table


def cluster_table(cluster: Cluster) -> dict[str, Any]:
    """Return a cluster as the table that :func:`read_cluster` reads back; defaults are left out.

    Raises:
        ValueError: if one of its laws only exists in this process.
    """
    return {k: _plain(v) for k, v in changed_fields(cluster).items()}


def read_cluster(table: Mapping[str, Any]) -> Cluster:
    """Return the cluster that a table describes.

    Raises:
        ValueError: for an unknown key or a wrong value, naming it.
    """
    check_keys("cluster", table, [field.name for field in fields(Cluster)])
    return Cluster(**table)


def synchrony_table(synchrony: Synchrony) -> dict[str, Any]:
    """Return a synchrony as the table that :func:`read_synchrony` reads back."""
    return {"name": synchrony.name, **changed_fields(synchrony)}


def read_synchrony(table: Mapping[str, Any]) -> Synchrony:
    """Return the synchrony that a table describes.

    Raises:
        ValueError: for an unknown name or key or a wrong value, naming it.
    """
    synchrony: Synchrony = from_table("synchrony", table, SYNCHRONIES, "name")
    return synchrony


def check_keys(where: str, table: Mapping[str, Any], allowed: list[str]) -> None:
    """Raise ValueError for a key that ``where`` does not have, with a suggestion."""
    for key in table:
        if key not in allowed:
            raise ValueError(unknown_name(f"key of {where}:", key, allowed))


def changed_fields(value: Any) -> dict[str, Any]:
    """Return the fields of a spec that differ from their defaults."""
    return {f.name: v for f in fields(value) if f.init and (v := getattr(value, f.name)) != f.default}


def _plain(value: Any) -> Any:
    if isinstance(value, Delay):
        return delay_table(value)
    return [_plain(v) for v in value] if isinstance(value, tuple) else value
