"""The network: sizes of messages, and bandwidths of the links and the server."""

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
"""A size that stands for the bytes of the model's parameters, until the problem is known."""

SIZES = ("message_bytes", "model_bytes")
LINKS = ("upload", "download")
SERVER = ("ingress", "egress")

Rate: TypeAlias = Any
"""Bytes per second: a number, a tuple of one per worker, or None for no limit."""


@spec
class Network:
    """Sizes of messages and bandwidths: a transfer takes bytes / rate seconds, before the latency of the link.

    A link transfers one message at a time in each direction, first in, first out. The server's capacity is divided
    among all transfers in progress in that direction; the rates change whenever a transfer starts or ends. A
    transfer that has started is never cancelled.

    Args:
        message_bytes: size of a message to the server: bytes, a delay whose values are bytes
            (``Exponential(1e6)``), or ``"model"``: the bytes of the model's parameters, as soon as the problem is
            known. Several messages that are sent as one upload have this size together.
        model_bytes: size of a model sent to a worker, in the same forms. Default: ``message_bytes``.
        upload: bandwidth of a worker's link to the server in bytes per second, for all workers or a list of one
            per worker. Default, or ``inf``: no limit.
        download: bandwidth of the link from the server, in the same forms.
        ingress: bytes per second that the server can receive from all workers together. Default: no limit.
        egress: bytes per second that the server can send to all workers together. Default: no limit.
        sharing: how the server's capacity is divided. ``fair``: all transfers at once at max-min fair rates: a
            transfer whose own link is slower than an equal share has the rate of its link, and the others divide
            the rest equally (processor sharing if no link is slower). ``fifo``: one transfer at a time, in the
            order of requests.

    Raises:
        ValueError: for a value that is not allowed; it names the field, the worker and the value.

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
        """Check every field and normalise it, so that equal networks have equal fields."""
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
        """The lengths of the fields with one entry per worker, by ``FIELD of network``."""
        values = {name: getattr(self, name) for name in LINKS}
        return {f"{name} of network": len(value) for name, value in values.items() if isinstance(value, tuple)}

    def limits(self, name: str) -> bool:
        """Return whether transfers of one direction, ``uplink`` or ``downlink``, take time."""
        limit, capacity = (self.upload, self.ingress) if name == "uplink" else (self.download, self.egress)
        return limit is not None or capacity is not None

    @property
    def unresolved(self) -> bool:
        """Whether a size is that of a model that is not yet known."""
        return MODEL in (self.message_bytes, self.model_bytes)

    def check(self, workers: int) -> None:
        """Raise ValueError if a size has values for fewer workers than the cluster has."""
        for name in SIZES:
            check_workers(f"{name} of network", getattr(self, name), workers)

    def check_sizes(self) -> None:
        """Raise ValueError if a size is that of a model that is not yet known."""
        for name in SIZES:
            if getattr(self, name) == MODEL:
                raise ValueError(
                    f'{name} of network = "model" is not allowed without a problem, which determines the bytes of '
                    "the parameters: give a number, or an Experiment"
                )

    def resolved(self, model_bytes: int) -> Self:
        """Return the network with the bytes of a model in place of ``"model"``."""
        sizes: Table = {name: float(model_bytes) for name in SIZES if getattr(self, name) == MODEL}
        return replace(self, **sizes)  # type: ignore[type-var]

    def of_part(self, workers: int, share: float) -> Self:
        """Return the network of the first ``workers`` workers, with a share of the server's capacity."""
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
    """Return the network that a value stands for: a network, or a table as in TOML.

    Raises:
        ValueError: for any other value; it names the value.
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
