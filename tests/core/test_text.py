"""Names of others in pictures: drawn as they are, by every function that draws a name."""

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib.cbook import is_math_text
from matplotlib.text import Text

from stalegrad._core.text import LONGEST, plain, visible
from stalegrad.analysis import plot_curves, plot_difference, plot_pareto, plot_staleness, plot_staleness_time
from stalegrad.policies.synchrony import Async
from stalegrad.simulator import Cluster, simulate

COLUMNS = ["wallclock", "train_loss", "test_error"]
HISTORY = pd.DataFrame([[0.0, 3.0, 0.9], [1.0, 2.0, 0.5], [2.0, 1.0, 0.3]], columns=COLUMNS)
TRACE = simulate(Cluster(3), Async(), updates=9)
NAMES = {
    r"$\q$": r"$\q$",
    r"\$\q$": r"\$\q$",
    "$a$ and $b$": "$a$ and $b$",
    "$": "$",
    "two\nlines\tand tabs": "two lines and tabs",
    "\u202eevil\u202c": "\ufffdevil\ufffd",
    "bell\x07": "bell\ufffd",
    "half \ud83d": "half \ufffd",
    "<b>bold</b>": "<b>bold</b>",
    "Grünwald (k = 2)": "Grünwald (k = 2)",
}


def drawn(name: str) -> str:
    """Return what matplotlib draws for a name."""
    assert not is_math_text(plain(name))
    return Text(text=plain(name))._preprocess_math(plain(name))[0]


@pytest.mark.parametrize(("name", "shown"), NAMES.items())
def test_names_are_drawn_as_they_are(name: str, shown: str) -> None:
    assert drawn(name) == shown
    assert visible(name) == shown


def test_long_names_are_cut() -> None:
    assert drawn("x" * 1_000_000) == "x" * (LONGEST - 1) + "…"
    assert drawn("x" * LONGEST) == "x" * LONGEST


DRAWINGS = {
    "curves": lambda name: plot_curves({name: [HISTORY], "b": [HISTORY]}),
    "a column": lambda name: plot_curves({"b": [HISTORY.assign(**{name: 1.0})]}, y=name),
    "difference": lambda name: plot_difference({name: [HISTORY, HISTORY], "b": [HISTORY, HISTORY]}, "b"),
    "baseline": lambda name: plot_difference({name: [HISTORY, HISTORY], "b": [HISTORY, HISTORY]}, name),
    "staleness": lambda name: plot_staleness({name: TRACE, "b": TRACE}),
    "staleness over time": lambda name: plot_staleness_time({name: TRACE, "b": TRACE}),
    "frontier": lambda name: plot_pareto(HISTORY.set_index(pd.Index([name, "b", name])), *COLUMNS[::2]),
}


@pytest.mark.parametrize("draw", DRAWINGS.values(), ids=DRAWINGS)
@pytest.mark.parametrize("name", [r"$\q$", "\u202eevil\n$x"])
def test_pictures_with_names_of_any_kind_can_be_drawn(draw, name: str) -> None:
    ax = draw(name)
    ax.figure.canvas.draw()
    texts = [text.get_text() for text in ax.figure.findobj(Text)]
    assert any(plain(name) in text for text in texts)
    assert not any(is_math_text(text) for text in texts if "mathdefault" not in text)


def test_a_legend_of_the_users_own_shows_the_names(tmp_path) -> None:
    ax = plot_curves({r"$\q$": [HISTORY]})
    ax.legend()
    ax.figure.savefig(tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 1000


@pytest.mark.parametrize("values", [[2.0, 1e200, 1e308], [2.0, 1e308, np.inf], [1e308, 1e308, np.nan], [2.0] * 3])
@pytest.mark.parametrize("log", [True, False])
def test_histories_that_explode_can_be_drawn(values: list[float], log: bool) -> None:
    wild = HISTORY.assign(test_error=values, train_loss=values)
    for other in (HISTORY, wild):
        ax = plot_curves({"a": [wild, wild], "b": [other, HISTORY]}, log=log)
        ax.figure.canvas.draw()
        assert mpl.rcParams["figure.figsize"][0] == pytest.approx(ax.figure.get_figwidth())


@pytest.mark.parametrize("log", [True, False])
def test_a_history_of_one_row_can_be_drawn(log: bool) -> None:
    ax = plot_curves({"a": [HISTORY[:1]], "b": [HISTORY[:1], HISTORY]}, log=log)
    ax.figure.canvas.draw()
    plot_difference({"a": [HISTORY[:1]], "b": [HISTORY[:1]]}, "a").figure.canvas.draw()
