"""The choice of the execution of a replay, from backend and problem, and its start."""

from __future__ import annotations

import functools

import jax

from stalegrad._core.specs import unknown_name
from stalegrad._core.types import Params
from stalegrad.models import Objective
from stalegrad.models.objective import Loss
from stalegrad.models.streams import Stream, first_examples
from stalegrad.policies import Rule
from stalegrad.simulator.replays.executor import Executor
from stalegrad.simulator.replays.loop import Loop
from stalegrad.simulator.replays.lowering import LoweredTrace, windows
from stalegrad.simulator.replays.plan import Plan
from stalegrad.simulator.replays.scan import Scan
from stalegrad.simulator.replays.step import Layout
from stalegrad.simulator.replays.training import Signature, Training

EXECUTIONS: dict[str, type[Executor]] = {"scan": Scan, "windows": Scan, "loop": Loop}

WINDOW = 4
"""Largest number of messages in a window."""

EXAMPLES, NUMBERS, FULL = 32, 1 << 16, 3.5
"""Limits for windows on CPU, from docs/benchmarks.md: largest number of examples in a message, largest number of
numbers in its mini-batch and in the parameters, smallest mean number of messages in a window."""


@functools.lru_cache(maxsize=64)
def _has_convolution(loss: Loss, signature: Signature) -> bool:
    return "conv_general_dilated" in str(jax.make_jaxpr(loss)(*signature.tree, jax.random.key(0)))


def choose_execution(
    objective: Objective, params: Params, batch_size: int, rule: Rule, layout: Layout, lowered: LoweredTrace
) -> str:
    """Return the name of the fastest execution: ``scan``, except in two cases on CPU.

    These are ``loop`` for native convolutions, whose backward pass is slow inside a compiled loop, and ``windows``
    for gradients so small that starting operations takes most of their time.
    """
    if jax.default_backend() != "cpu":
        return "scan"
    batch = first_examples(objective.train, batch_size)
    if _has_convolution(objective.loss, Signature((params, objective.stats, batch))):
        return "loop"
    largest = max(sum(leaf.size for leaf in jax.tree.leaves(tree)) for tree in (params, batch))
    small = batch_size * layout.steps <= EXAMPLES and largest <= NUMBERS
    if not small or not has_windows(objective, rule, layout):
        return "scan"
    reads = lowered.read_version[:NUMBERS]
    return "windows" if len(reads) >= FULL * (len(windows(reads, WINDOW)) - 1) > 0 else "scan"


def begin(training: Training, layout: Layout, plan: Plan, execution: str | None) -> Executor:
    """Begin to execute a plan.

    Args:
        training: training to execute.
        layout: facts for which the code is specialised.
        plan: plan of the trace, or of its first part.
        execution: ``scan``, ``windows`` or ``loop``; None: chosen from backend and problem.

    Raises:
        ValueError: if ``windows`` is not possible for this training.
    """
    objective, rule = training.objective, training.rule
    if execution is None:
        execution = choose_execution(
            objective, training.initial.params, training.problem.batch_size, rule, layout, plan.lowered
        )
    if execution == "windows":
        if not has_windows(objective, rule, layout):
            raise ValueError(
                f'execution = "windows" is not allowed for {training.method.name}: it needs stale updates of '
                "one message each, workers without state between messages, and no batch norm"
            )
        layout = layout._replace(window=WINDOW)
    return EXECUTIONS[execution](training, layout, plan, execution)


def check_execution(execution: str | None) -> None:
    """Raise ValueError for an unknown execution."""
    if execution is not None and execution not in EXECUTIONS:
        raise ValueError(unknown_name("execution", execution, EXECUTIONS))


def has_windows(objective: Objective, rule: Rule, layout: Layout) -> bool:
    """Return whether windows are possible.

    Gradients must depend only on the version read, and every update must have one message, which may be stale.
    """
    kept = rule.work is not None or bool(jax.tree.leaves(objective.stats))
    return layout.messages == 1 and not (
        layout.fresh or layout.varied or kept or isinstance(objective.train, Stream)
    )
