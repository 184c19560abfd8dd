"""The network: how large messages are, and how many bytes a second the links and the server carry."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Any, Literal, Self, TypeAlias

from stalegrad._core.specs import PositiveFloat, builtin, changed_fields, check_keys, spec, validate
from stalegrad._core.types import Table
from stalegrad.simulator.timing.delays import as_table
from stalegrad.simulator.timing.streams import Amount, check_workers, number_or_delay

MODEL = "model"
"""Stands for the bytes of the model's parameters, until the problem is known."""

SIZES = ("message_bytes", "model_bytes")
LINKS = ("upload", "download")
SERVER = ("ingress", "egress")

Rate: TypeAlias = Any
"""Bytes per second: a number, a tuple of one per worker, or None."""


@spec
class Network:
    """Sizes of messages and bandwidths: a transfer takes bytes / rate seconds, before the latency of the link.

    A link carries one message at a time in each direction, first in, first out. The server's capacity is divided
    among all transfers in progress in that direction; the rates change whenever a transfer starts or ends. A
    transfer that has started is never cancelled.

    Args:
        message_bytes: size of a message to the server: bytes, a delay that is read in bytes
            (``Exponential(1e6)``), or ``"model"``: the bytes of the model's parameters, as soon as the problem is
            known. Several messages that are sent as one have this size together.
        model_bytes: the same of a model that a worker is sent. Default: as ``message_bytes``.
        upload: bandwidth of a worker's link to the server in bytes per second, for all workers or a list of one
            per worker. Default, or ``inf``: no limit.
        download: the same of the link from the server.
        ingress: bytes per second that the server can receive, from all workers together. Default: no limit.
        egress: bytes per second that it can send.
        sharing: how the server's capacity is divided. ``fair``: all transfers at once at max-min fair rates, that
            is, equal ones but for those whose own link is slower, which leave the rest to the others (processor
            sharing where no link is). ``fifo``: one transfer at a time, in the order in which they were requested.

    Raises:
        ValueError: naming the field, worker and value that is not allowed.

    Example:
        >>> from stalegrad.policies import Async
        >>> from stalegrad.simulator import Cluster, Network, simulate
        >>> network = Network(message_bytes=50e6, upload=100e6, ingress=125e6)
        >>> trace = simulate(Cluster(2, compute=1.0, network=network), Async(), updates=2)
        >>> trace.update_times.tolist()  # 50 MB each at 125 / 2 MB/s
        [1.8, 1.8]
    """

    message_bytes: Amount
    model_bytes: Amount = None
    upload: Rate = None
    download: Rate = None
    ingress: Rate = None
    egress: Rate = None
    sharing: Literal["fair", "fifo"] = "fair"

    def check_fields(self) -> None:
        """Check every field, and give equal networks equal fields."""
        if self.message_bytes is None:
            raise ValueError("message_bytes of network is missing: give a number of bytes, or 'model'")
        for name in SIZES:
            object.__setattr__(self, name, _size(f"{name} of network", getattr(self, name)))
        for name in LINKS:
            value = builtin(getattr(self, name))
            if isinstance(value, Sequence) and not isinstance(value, str):
                values = [_rate(f"{name} of network, worker {i}", each) for i, each in enumerate(value)]
                value = tuple(math.inf if each is None else each for each in values)
            else:
                value = _rate(f"{name} of network", value)
            object.__setattr__(self, name, value)
        for name in SERVER:
            object.__setattr__(self, name, _rate(f"{name} of network", getattr(self, name)))
        if self.model_bytes == self.message_bytes:
            object.__setattr__(self, "model_bytes", None)
        if self.sharing == "fifo" and self.ingress is None and self.egress is None:
            raise ValueError("sharing of network = 'fifo' needs a capacity that is shared: give ingress or egress")

    @property
    def lengths(self) -> dict[str, int]:
        """The lengths of the fields that have one entry per worker, by ``FIELD of network``."""
        values = {name: getattr(self, name) for name in LINKS}
        return {f"{name} of network": len(value) for name, value in values.items() if isinstance(value, tuple)}

    def limits(self, name: str) -> bool:
        """Return whether transfers of one direction, ``uplink`` or ``downlink``, take time."""
        limit, capacity = (self.upload, self.ingress) if name == "uplink" else (self.download, self.egress)
        return limit is not None or capacity is not None

    @property
    def unresolved(self) -> bool:
        """Whether sizes wait for a model."""
        return MODEL in (self.message_bytes, self.model_bytes)

    def check(self, workers: int) -> None:
        """Raise ValueError if a size is measured for fewer workers than there are."""
        for name in SIZES:
            check_workers(f"{name} of network", getattr(self, name), workers)

    def check_sizes(self) -> None:
        """Raise ValueError if a size waits for a model."""
        for name in SIZES:
            if getattr(self, name) == MODEL:
                raise ValueError(
                    f'{name} of network = "model" is not allowed without a problem, whose parameters have so many '
                    "bytes: give a number, or an Experiment"
                )

    def resolved(self, model_bytes: int) -> Self:
        """Return the network with the bytes of a model in place of ``"model"``."""
        sizes: Table = {name: float(model_bytes) for name in SIZES if getattr(self, name) == MODEL}
        return replace(self, **sizes)  # type: ignore[type-var]

    def of_part(self, workers: int, share: float) -> Self:
        """Return the network of the first so many workers, who have a share of what the server carries."""
        lists = {name: getattr(self, name)[:workers] for name in LINKS if isinstance(getattr(self, name), tuple)}
        server = {name: share * rate for name in SERVER if (rate := getattr(self, name)) is not None}
        return replace(self, **lists, **server)  # type: ignore[type-var]

    def table(self) -> Table:
        """Return the network as the table that :func:`as_network` reads; defaults are left out.

        Raises:
            ValueError: if a distribution of bytes exists in this process only.
        """
        return {name: as_table(value) for name, value in changed_fields(self).items()}


def as_network(value: object) -> Network:
    """Return the network that a value stands for: itself, or a table as in TOML.

    Raises:
        ValueError: for anything else, naming it.
    """
    if isinstance(value, Network):
        return value
    if not isinstance(value, Mapping):
        raise ValueError(
            f"network of cluster = {value!r:.200} is not allowed: give e.g. Network(message_bytes=..., upload=...)"
        )
    check_keys("network", value, [field.name for field in fields(Network)])  # type: ignore[arg-type]
    return Network(**{"message_bytes": None, **value})


def _size(where: str, value: object) -> Amount:
    if value is None or (isinstance(value, str) and value == MODEL):
        return value
    if isinstance(value, str):
        raise ValueError(f"{where} = {value!r:.60} is not allowed: give bytes, a delay in bytes, or {MODEL!r}")
    return number_or_delay(where, value)


def _rate(where: str, value: object) -> float | None:
    """Return bytes per second; None: no limit."""
    value = builtin(value)
    if value is None or (isinstance(value, float) and value == math.inf):
        return None
    rate: float = validate(where, PositiveFloat, value)
    return rate
