"""Tree distance: known methods, traces made by hand, and a tree that is built node by node."""

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from stalegrad.analysis import tree_distance
from stalegrad.policies.synchrony import (
    SSP,
    Async,
    BackupWorkers,
    BoundedStaleness,
    KAsync,
    KBatchAsync,
    KBatchSync,
    KSync,
    Ringmaster,
    Sequential,
    Sync,
)
from stalegrad.simulator import Cluster, Exponential, simulate

EIGHT = Cluster(8, Exponential())


class Node:
    """A point of the computation tree; its parent is one gradient away."""

    def __init__(self, parent=None):
        self.parent = parent

    def ancestors(self):
        """This node, its parent, and so on to the root."""
        node, line = self, []
        while node is not None:
            line.append(node)
            node = node.parent
        return line


def edges_to_the_common_ancestor(one, other):
    """The larger number of edges from either to the closest node that is an ancestor of both."""
    line, kin = one.ancestors(), other.ancestors()
    common = next(node for node in line if node in kin)
    return max(line.index(common), kin.index(common))


def distance_in_the_tree(trace):
    """Build the main branch gradient by gradient, and the branches of local steps, and measure every distance."""
    head = Node()
    versions, largest = [head], 0
    used = trace.messages[trace.messages["update"] >= 0]
    ordered = used.reset_index().sort_values(["update", "receive_time", "worker", "index"])
    for update in range(len(trace.updates)):
        for row in ordered[ordered["update"] == update].itertuples():
            point = versions[row.read_version]
            for _ in range(row.steps):
                largest = max(largest, edges_to_the_common_ancestor(head, point))
                head, point = Node(head), Node(point)
        versions.append(head)
    return largest


@st.composite
def traces(draw):
    workers = draw(st.integers(1, 5))
    compute = draw(st.lists(st.sampled_from([0.5, 1.0, 2.5, Exponential()]), min_size=workers, max_size=workers))
    steps = draw(st.integers(1, 3))
    k = draw(st.integers(1, workers))
    kinds = [Async, Sync, lambda **h: KAsync(k, **h), lambda **h: KSync(k, **h), lambda **h: SSP(k, **h)]
    kinds += [lambda **h: KBatchAsync(2 * k, **h), lambda **h: KBatchSync(2 * k, **h)]
    kinds += [lambda **h: Ringmaster(k, **h), lambda **h: Ringmaster(k, stops=True, **h)]
    kinds += [lambda **h: BoundedStaleness(k, **h), lambda **h: BackupWorkers(workers - k, **h)]
    synchrony = draw(st.sampled_from(kinds))(local_steps=steps)
    cluster = Cluster(compute=compute, uplink=draw(st.sampled_from([0.0, 0.25])))
    return simulate(cluster, synchrony, updates=draw(st.integers(1, 8)), seed=draw(st.integers(0, 99)))


@settings(max_examples=80, deadline=None)
@given(traces())
def test_it_is_the_distance_in_the_tree_built_node_by_node(trace):
    assert tree_distance(trace) == distance_in_the_tree(trace)


@pytest.mark.parametrize(
    ("synchrony", "distance"),
    [
        (Sequential(), 0),
        (Sync(), 7),
        (KSync(3), 2),
        (KBatchSync(1), 0),
        (KBatchSync(20), 19),
        (KBatchSync(20, cancel=False), 19),
        (BackupWorkers(2), 5),
        (Ringmaster(1), 0),
        (Ringmaster(5), 4),
        (Ringmaster(5, stops=True), 4),
        (Sync(local_steps=4), 8 * 4 - 1),
        (Sequential(local_steps=4), 3),
    ],
    ids=repr,
)
def test_known_methods(synchrony, distance):
    assert tree_distance(simulate(EIGHT, synchrony, updates=300)) == distance


def test_async_has_its_largest_staleness():
    trace = simulate(EIGHT, Async(), updates=500)
    assert tree_distance(trace) == trace.staleness.max() > 8
    assert tree_distance(simulate(Cluster(8, 1.0), Async(), updates=500)) == 7


def test_traces_made_by_hand(trace, fresh):
    assert tree_distance(trace) == 3  # the fourth gradient, computed at version 0
    assert tree_distance(fresh) == 1


def test_it_lies_between_the_staleness_in_gradients_with_and_without_the_update_itself():
    trace = simulate(EIGHT, KBatchAsync(4), updates=300)
    assert 4 * trace.staleness.max() <= tree_distance(trace) <= 4 * trace.staleness.max() + 3
    assert np.all(trace.updates.gradients == 4)


def test_a_trace_without_gradients_is_refused(empty):
    with pytest.raises(ValueError, match="holds no used gradient"):
        tree_distance(empty)
