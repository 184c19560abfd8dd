"""Digests, which are equal for runs that are equal bit for bit, and the facts on which bits may depend."""

from __future__ import annotations

import hashlib
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import numpy.typing as npt

from stalegrad._core.trees import flat
from stalegrad.simulator.experiments.result import Result
from stalegrad.simulator.timing.columns import MESSAGE_COLUMNS

WHOLE = ("worker", "read_version", "update", "steps", "fate")
"""Columns of a trace that describe events; the others are times."""


class Digests(NamedTuple):
    """Hashes of a run.

    Attributes:
        events: hash of the events in its trace, without times.
        times: hash of their times.
        params: hash of the parameters at the end.
    """

    events: str
    times: str
    params: str

    @classmethod
    def of(cls, result: Result) -> Digests:
        """Return the digests of a run."""
        trace = result.trace
        when = [name for name in MESSAGE_COLUMNS if name not in (*WHOLE, "staleness")]
        return cls(
            digest({name: trace.column(name) for name in WHOLE}),
            digest({name: trace.column(name) for name in when} | {"updates": trace.update_times}),
            digest(flat(result.params)),
        )


def digest(arrays: Mapping[str, npt.ArrayLike]) -> str:
    """Return a hash of named arrays: names, types, shapes and bytes (little-endian)."""
    found = hashlib.sha256()
    for name, value in sorted(arrays.items()):
        array = np.ascontiguousarray(value)
        array = array.astype(array.dtype.newbyteorder("<"))
        found.update(f"{name}|{array.dtype.str}|{array.shape}|".encode() + array.tobytes())
    return found.hexdigest()[:16]


def machine() -> dict[str, str]:
    """Return the facts of the machine on which bits may depend: processor, cores, system, backend."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    device = jax.devices()[0]
    return {
        "processor": names[0] if names else platform.processor() or platform.machine(),
        "cores": str(os.cpu_count()),
        "system": platform.system(),
        "backend": device.platform if device.platform == "cpu" else str(device.device_kind),
    }
