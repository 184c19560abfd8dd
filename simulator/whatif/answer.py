"""The answer to a what-if: a table, sentences, a picture and a page."""

from __future__ import annotations

import html
import os
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from stalegrad.simulator.whatif.training import Histories

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True, eq=False)
class WhatIf:
    """The effect of other synchronies on a job.

    Attributes:
        name: name of the log.
        table: one row per synchrony: ``throughput`` (used gradients per second), ``speedup`` over sync with its
            95 % interval ``low``, ``high``, ``time_per_update`` (s), ``idle`` and ``wasted`` (shares of the
            workers' time), ``staleness`` (mean over used gradients, in updates), ``staleness_p99``, ``exact``
            (whether the throughput is computed from all steps, not simulated), and with a problem the mean over
            seeds of the last ``test_error`` (or ``test_loss``, ``train_loss``).
        workers: one row per worker: ``mean`` (s), ``slowdown`` (S_w: S if all but this worker took the mean time
            of each step) and ``slow`` (whether it is persistently slow).
        slowdown: S: time of the synchronous job over that of the ideal job, in which all workers take the mean
            time of each step.
        words: sentences on the meaning and the certainty of the numbers.
        histories: with a problem, one history per seed by label, all of the same wallclock.
    """

    name: str
    table: pd.DataFrame
    workers: pd.DataFrame
    slowdown: float
    words: tuple[str, ...]
    histories: Histories = field(default_factory=dict)

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the speed-up over sync against the mean staleness.

        Returns:
            The matplotlib Axes; a notebook shows them at the end of a cell.
        """
        from stalegrad.analysis import plot_what_if

        return plot_what_if(self.table, ax=ax)

    def report(self) -> Any:
        """Return the answer as one HTML document; a notebook shows it, and ``.save(path)`` writes it."""
        from stalegrad.analysis.reports.what_if import what_if_report

        return what_if_report(self)

    def save(self, directory: str | os.PathLike[str]) -> Path:
        """Write ``what-if.html``, ``what-if.png``, ``what-if.csv`` and ``workers.csv`` to a new directory.

        The directory is written completely or not at all.

        Raises:
            FileExistsError: if the directory exists and is not empty.
        """
        directory = Path(directory)
        if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
            raise FileExistsError(f"{directory} exists and is not empty: choose another place")
        directory.parent.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(prefix=f".{directory.name}-", dir=directory.parent))
        try:
            self.table.to_csv(fresh / "what-if.csv")
            self.workers.to_csv(fresh / "workers.csv")
            figure: Any = self.plot().figure
            figure.savefig(fresh / "what-if.png", dpi=160, bbox_inches="tight", metadata={"Software": None})
            self.report().save(fresh / "what-if.html")
            fresh.chmod(0o755)
            fresh.replace(directory)
        except BaseException:
            shutil.rmtree(fresh, ignore_errors=True)
            raise
        return directory

    def __repr__(self) -> str:
        shown = self.table.drop(columns="exact").to_string(float_format="{:.4g}".format)
        return "\n".join([shown, *self.words])

    def _repr_html_(self) -> str:
        table = self.table.drop(columns="exact").to_html(float_format="{:.4g}".format, border=0)
        return f"<b>What if: {html.escape(self.name)}</b>{table}" + "".join(
            f"<p>{html.escape(words)}</p>" for words in self.words
        )
