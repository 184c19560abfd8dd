"""Look-aheads: the point that is sent to a worker, from the new parameters and the optimizer's state.

Each is a function ``(params, state, learning_rate, worker) -> params``.
"""

from __future__ import annotations

from collections.abc import Callable

from stalegrad._core.trees import at_worker, tree_map
from stalegrad._core.types import OptimizerState, Params, Scalar

LookAhead = Callable[[Params, OptimizerState, Scalar, Scalar], Params]
"""(parameters, optimizer state, learning rate, worker it is sent to) -> the point that is sent."""


def dana(momentum: Scalar) -> LookAhead:
    """theta - eta gamma sum_j v^j: where the server will be once every worker's momentum has acted."""

    def estimate(params: Params, state: OptimizerState, learning_rate: Scalar, worker: Scalar) -> Params:
        return tree_map(lambda p, s: p - learning_rate * momentum * s, params, state.total)

    return estimate


def own_momentum(momentum: Scalar) -> LookAhead:
    """theta - eta gamma v^i, v^i the momentum of the worker that it is sent to."""

    def own(params: Params, state: OptimizerState, learning_rate: Scalar, worker: Scalar) -> Params:
        velocity = at_worker(state.velocity, worker)
        return tree_map(lambda p, v: p - learning_rate * momentum * v, params, velocity)

    return own


def linear(steps: Scalar) -> LookAhead:
    """theta - T eta v: the weights predicted ``steps`` = T updates ahead."""

    def predict(params: Params, state: OptimizerState, learning_rate: Scalar, worker: Scalar) -> Params:
        return tree_map(lambda p, v: p - steps * learning_rate * v, params, state.velocity)

    return predict


def smoothed(steps: Scalar, momentum: Scalar) -> LookAhead:
    """theta - s eta v, with v smoothed by 1 - gamma (the first state of a chain holds v / (1 - gamma))."""

    def predict(params: Params, state: OptimizerState, learning_rate: Scalar, worker: Scalar) -> Params:
        scale = steps * (1 - momentum)
        return tree_map(lambda p, v: p - scale * learning_rate * v, params, state[0].velocity)

    return predict


def smega2(momentum: Scalar, workers: int, naive: bool) -> LookAhead:
    """theta - eta gamma (m (N + c (gamma - 1)) + a c / N), a the sum of c messages (``naive``: gamma N m)."""
    n = float(workers)

    def estimate(params: Params, state: OptimizerState, learning_rate: Scalar, worker: Scalar) -> Params:
        c = 0.0 if naive else state.phase
        return tree_map(
            lambda p, m, a: (p - learning_rate * momentum * (m * (n + c * (momentum - 1)) + a * c / n)).astype(
                p.dtype
            ),
            params,
            state.velocity,
            state.gathered,
        )

    return estimate
