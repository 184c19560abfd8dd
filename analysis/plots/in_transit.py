"""Plot of the number of messages in transit to the server, over time."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes

from stalegrad._core.protocols import TraceLike
from stalegrad.analysis.plots.axes import axis_label, new_axes, note
from stalegrad.analysis.plots.style import GREY, USED


def plot_in_transit(trace: TraceLike, ax: Axes | None = None) -> Axes:
    """Draw the number of messages in transit to the server: finished, but not yet received.

    These are the messages that share the server's incoming bandwidth, those that travel (latency), and those that
    wait for their link or are held back by their worker. The dashed line is the mean over time, which by Little's
    law is the rate of messages times their mean time in transit. A number that stays near the number of workers
    shows that the network, and not computing, limits the throughput.

    Args:
        trace: the run.
        ax: axes to draw in; by default those of a new figure, which a notebook shows as ``ax.figure``.

    Returns:
        The axes.

    Raises:
        ValueError: if the trace fails ``verify()``.

    Example:
        >>> import stalegrad as sg
        >>> from stalegrad.analysis import plot_in_transit
        >>> cluster = sg.Cluster(8, compute=1.0, network={"message_bytes": 100e6, "ingress": 1e9})
        >>> ax = plot_in_transit(sg.simulate(cluster, sg.Async(), updates=100))
        >>> ax.get_ylabel()
        'messages in transit'
    """
    trace.verify()
    finish, receive, fate = (trace.column(name) for name in ("finish_time", "receive_time", "fate"))
    sent = (finish < trace.end) & (~np.isnan(receive) | (fate == "pending"))
    begin, end = finish[sent], np.fmin(np.where(np.isnan(receive), trace.end, receive)[sent], trace.end)
    times = np.unique(np.concatenate([[0.0, trace.end], begin, end]))
    begun, over = (np.searchsorted(np.sort(moments), times[:-1], side="right") for moments in (begin, end))
    ax = new_axes(ax, aspect=0.45)
    count = begun - over
    ax.stairs(count, times, color=USED, linewidth=1.0)
    if (end > begin).any():
        mean = float(count @ np.diff(times)) / trace.end
        ax.axhline(mean, color=GREY, linestyle="--", linewidth=1.0)
        ax.annotate(
            f"mean {mean:.3g}", (1.0, mean), xycoords=("axes fraction", "data"), xytext=(4, 0),
            textcoords="offset points", va="center", fontsize="small", color=GREY, annotation_clip=False,
        )  # fmt: skip
    else:
        note(ax, "messages take no time")
    ax.set_xlim(0.0, trace.end or 1.0)
    ax.set_ylim(0.0, 1.05 * max(1, int(count.max(initial=0))))
    ax.set_xlabel(axis_label("wallclock"))
    ax.set_ylabel("messages in transit")
    return ax
