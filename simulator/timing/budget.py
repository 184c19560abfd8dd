"""The budget of a run: when it ends."""

from __future__ import annotations

from stalegrad._core.specs import PositiveFloat, PositiveInt, spec


@spec
class Budget:
    """The budget of a run: exactly one of ``updates``, ``wallclock`` (seconds) and ``gradients``.

    A wallclock of w keeps the updates at times up to w (1 + 1e-12), so that three jobs of 0.1 s, which end at
    0.30000000000000004 s, fit into 0.3 s. Rows of a history follow the same rule
    (:data:`~stalegrad.simulator.timing.clock.TOLERANCE`).

    Example:
        >>> import stalegrad as sg
        >>> budget = sg.Budget(wallclock=0.3)
        >>> len(sg.simulate(sg.Cluster(1, compute=0.1), sg.Async(), wallclock=budget.wallclock).updates)
        3
    """

    updates: PositiveInt | None = None
    wallclock: PositiveFloat | None = None
    gradients: PositiveInt | None = None

    def check_fields(self) -> None:
        """Raise ValueError unless exactly one is given."""
        given = {k: v for k, v in vars(self).items() if v is not None}
        if len(given) != 1:
            raise ValueError(
                f"a run needs exactly one budget of updates, wallclock and gradients; got {given or 'none'}"
            )
