"""Tree distance of a trace: the distance between the points where gradients are computed and applied."""

from __future__ import annotations

import numpy as np

from stalegrad._core.protocols import TraceLike


def tree_distance(trace: TraceLike) -> int:
    """Return R, the tree distance: the maximum over used gradients of

        (number of the gradient) - (number of gradients applied before its read version).

    Used mini-batch gradients are numbered 0, 1, ... in the order in which they are applied: by gradient id, and
    those of one message in the order in which its worker computed them. R is 0 for sequential SGD, n - 1 for sync,
    k - 1 for k-batch-sync (Rennala), at most the threshold minus 1 for Ringmaster, and the largest staleness for
    async.

    :func:`~stalegrad.analysis.birch_parameters` returns the step and the number of gradients for R.

    Args:
        trace: a simulated or measured trace. R is that of the observed time; a longer run may have a larger R.

    Raises:
        ValueError: if no gradient was used, or the trace fails ``verify``.

    References:
        Tyurin, Sivtsov, Birch SGD: A Tree Graph Framework for Local and Asynchronous SGD Methods, ICLR 2026,
        https://arxiv.org/abs/2505.09218.

    Example:
        >>> from stalegrad.analysis import tree_distance
        >>> from stalegrad.policies import Async, KBatchSync
        >>> from stalegrad.simulator import Cluster, simulate
        >>> cluster = Cluster(compute=[1.0, 1.5, 4.0])
        >>> tree_distance(simulate(cluster, KBatchSync(k=5), updates=100))
        4
        >>> trace = simulate(cluster, Async(), updates=100)
        >>> tree_distance(trace), int(trace.staleness.max())
        (7, 7)
    """
    rows = trace.verify().used
    if not len(rows):
        raise ValueError("the trace holds no used gradient: the tree distance is a maximum over them")
    steps = trace.column("steps")[rows]
    applied = np.concatenate([[0], np.cumsum(np.bincount(trace.column("update")[rows], steps))]).astype(np.int64)
    last = np.cumsum(steps) - 1  # the last gradient of each message: earlier ones are nearer to the read version
    return int(np.max(last - applied[trace.column("read_version")[rows]]))
