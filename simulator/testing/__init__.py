"""The pytest plugin: the fixture ``convergence``. Every pytest imports it, so no heavy module is imported here."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from stalegrad.simulator.experiments.experiment import Experiment
    from stalegrad.simulator.regression import Check, Recording
    from stalegrad.simulator.sweeps.axes import SweepSpec

PROPERTY = "stalegrad_convergence"
"""Name of the property by which a test sends lines to the terminal's summary, also from a pytest-xdist worker."""

OPTIONS = ("tolerance", "alpha", "metrics", "strict")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the command line options."""
    group = parser.getgroup("stalegrad", "convergence checks (stalegrad)")
    group.addoption(
        "--convergence-record", action="store_true", help="record baselines instead of checking against them"
    )
    group.addoption(
        "--convergence-strict", action="store_true", help="fail if convergence is different, not only worse"
    )


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker."""
    config.addinivalue_line(
        "markers",
        f"convergence({', '.join(f'{o}=...' for o in OPTIONS)}): settings of this test's convergence checks",
    )


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the baselines that were recorded, and the checks that are different but not worse."""
    reports = [r for kind in terminalreporter.stats.values() for r in kind if getattr(r, "when", None) == "call"]
    said = [value for r in reports for name, value in r.user_properties if name == PROPERTY]
    if said:
        terminalreporter.section("convergence")
        for line in said:
            terminalreporter.write_line(line)


class Convergence:
    """The fixture that compares the convergence of experiments with a baseline beside the test.

    The baseline of test ``test_it`` in ``test_file.py`` is ``convergence/test_file/test_it.json``;
    ``pytest --convergence-record`` writes it.
    """

    def __init__(self, request: pytest.FixtureRequest) -> None:
        self._request = request
        self._used: set[Path] = set()
        marker = request.node.get_closest_marker("convergence")
        self._settings = dict(marker.kwargs) if marker else {}
        if unknown := set(self._settings) - set(OPTIONS):
            raise ValueError(f"marker convergence knows {', '.join(OPTIONS)}, not {', '.join(sorted(unknown))}")

    def file(self, name: str | None = None) -> Path:
        """Return the file of a baseline."""
        path = Path(self._request.node.path)
        test = self._request.node.nodeid.partition("::")[2].replace("::", ".").replace("[", "-").rstrip("]")
        said = test if name is None else f"{test}-{name}"
        stem = re.sub(r"[^A-Za-z0-9_.=-]", "-", said)
        if stem != said:  # so that no other test can have the same name
            stem = f"{stem}-{hashlib.sha256(said.encode()).hexdigest()[:6]}"
        return path.parent / "convergence" / path.stem / f"{stem}.json"

    def check(
        self,
        experiment: Experiment | SweepSpec | str | Path,
        *,
        name: str | None = None,
        tolerance: float | None = None,
        alpha: float | None = None,
        metrics: Iterable[str] | None = None,
        strict: bool | None = None,
        mode: str = "grid",
        **axes: Iterable[object],
    ) -> Check | Recording:
        """Run an experiment over its seeds and fail the test if it converges worse than its baseline.

        Args:
            experiment: an Experiment, a sweep from ``load_sweep``, or the path of a TOML file of either.
            name: name of the baseline, required if a test makes several checks.
            tolerance: largest worsening that is ignored, relative to the baseline's mean; 0.02 by default.
            alpha: probability that a check reports worse by chance; 0.01 by default.
            metrics: metrics that are compared.
            strict: whether to fail also if convergence is different but not worse.
            mode: mode of the axes, see ``sweep``.
            **axes: axes of an Experiment, see ``sweep``; without ``seed``, five seeds from the experiment's on.

        Returns:
            The Check, or with ``--convergence-record`` the Recording.
        """
        __tracebackhide__ = True
        from stalegrad.simulator.regression import Plan, Recording, compare, record
        from stalegrad.simulator.regression.outputs import sentence, text
        from stalegrad.simulator.regression.verdict import check_plan
        from stalegrad.simulator.sweeps.axes import Sampling, SweepSpec, load_sweep, plan as planned

        if isinstance(experiment, str | Path):
            experiment = load_sweep(experiment)
        if isinstance(experiment, SweepSpec):
            if axes:
                pytest.fail(f"axes {', '.join(axes)} are given beside a sweep that has its own", pytrace=False)
            plan = Plan.of_sweep(experiment)
        else:
            plan = Plan.of(experiment, planned(experiment, axes, Sampling(mode)))  # type: ignore[arg-type]
        file = self.file(name)
        if file in self._used:
            pytest.fail(f"two checks of one test have the baseline {file.name}: give each a name=", pytrace=False)
        self._used.add(file)
        option = self._request.config.getoption
        if option("--convergence-record"):
            recording = record(plan, progress=False)
            recording.save(file, force=True)
            self._tell(f"recorded {file}")
            for words in recording.lost():
                self._tell(f"warning: {file.name}: {words}")
            return recording
        if not file.exists():
            pytest.fail(f"no baseline {file}: record it with pytest --convergence-record", pytrace=False)
        given = {"tolerance": tolerance, "alpha": alpha, "metrics": metrics, "strict": strict}
        settings = self._settings | {k: v for k, v in given.items() if v is not None}
        strict = bool(settings.pop("strict", False) or option("--convergence-strict"))
        refused = ""
        try:
            before = Recording.load(file)
            check_plan(before, plan, str(file))
        except ValueError as error:
            refused = f"{error} (pytest --convergence-record)"
        if refused:  # outside, so that pytest does not print the error twice
            pytest.fail(refused, pytrace=False)
        check = compare(before, record(plan, progress=False), **settings)
        if not check.passed(strict):
            pytest.fail(f"{self._request.node.nodeid}\n{text(check)}", pytrace=False)
        if check.outcome != "same":
            for method, outcome in check.methods.items():
                if outcome != "same":
                    said = "; ".join([sentence(check, method), *check.changes(method)])
                    self._tell(f"{self._request.node.nodeid}: {said}")
        return check

    def _tell(self, line: str) -> None:
        self._request.node.user_properties.append((PROPERTY, line))


@pytest.fixture
def convergence(request: pytest.FixtureRequest) -> Convergence:
    """``convergence.check(experiment, tolerance=...)`` fails the test if convergence has become worse."""
    return Convergence(request)
