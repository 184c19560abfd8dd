"""Pictures of curves, against numbers worked out by hand."""

import math

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes

from stalegrad.analysis import mean_curves, plot_curves, to_target

NAN = math.nan


def history(x: list[float], y: list[float], loss: list[float] | None = None) -> pd.DataFrame:
    return pd.DataFrame({"wallclock": x, "test_error": y, "train_loss": loss or y})


TWO = [history([0, 2, 4], [1.0, 0.5, 0.25]), history([0, 2, 4], [0.8, 0.3, 0.05])]
LOST = history([0, 2], [0.8, 0.7], [1.0, NAN])


def band_edges(ax: Axes, index: int = 0) -> dict[float, tuple[float, float]]:
    """Return lowest and highest ordinate of a band at each abscissa."""
    vertices = np.concatenate([path.vertices for path in ax.collections[index].get_paths()])
    return {
        x: (vertices[vertices[:, 0] == x, 1].min(), vertices[vertices[:, 0] == x, 1].max()) for x in vertices[:, 0]
    }


def test_line_is_the_mean_over_seeds() -> None:
    ax = plot_curves({"sync": TWO})
    (line,) = ax.lines
    np.testing.assert_allclose(line.get_xydata(), [[0, 0.9], [2, 0.4], [4, 0.15]])


def test_mean_curves_are_the_lines_of_the_plot_as_a_table() -> None:
    histories = {"sync": TWO, "async": [TWO[0], LOST]}
    table = mean_curves(histories)
    lines = [line for line in plot_curves(histories).lines if line.get_marker() != "x"]
    for label, line in zip(histories, lines, strict=True):
        np.testing.assert_array_equal(table.loc[label].to_numpy(), line.get_xydata())


def test_band_is_the_range_over_seeds() -> None:
    edges = band_edges(plot_curves({"sync": TWO}))
    assert edges == {0: (0.8, 1.0), 2: (0.3, 0.5), 4: (0.05, 0.25)}


def test_band_is_one_sample_standard_deviation() -> None:
    edges = band_edges(plot_curves({"sync": TWO}, band="std"))
    for x, mean in ((0, 0.9), (2, 0.4), (4, 0.15)):
        sd = math.sqrt(0.1**2 + 0.1**2)
        assert edges[x] == pytest.approx((mean - sd, mean + sd))


def test_no_band_around_one_seed_or_on_demand() -> None:
    assert not plot_curves({"sync": TWO[:1]}).collections
    assert not plot_curves({"sync": TWO}, band=None).collections


def test_caption_says_what_line_and_band_are() -> None:
    assert plot_curves({"a": TWO}).get_title(loc="right") == "mean and range of 2 seeds"
    assert plot_curves({"a": TWO}, band="std").get_title(loc="right") == "mean and sd of 2 seeds"
    assert plot_curves({"a": TWO, "b": TWO[:1]}, band=None).get_title(loc="right") == "mean of 1 to 2 seeds"
    assert plot_curves({"a": TWO[:1]}).get_title(loc="right") == "one seed"


def test_curve_ends_with_a_cross_where_the_first_seed_diverges() -> None:
    ax = plot_curves({"async": [TWO[0], LOST]})
    line, cross = ax.lines
    np.testing.assert_allclose(line.get_xydata(), [[0, 0.9], [2, 0.6]])
    assert cross.get_marker() == "x"
    np.testing.assert_allclose(cross.get_xydata(), [[2, 0.6]])
    assert [text.get_text() for text in ax.texts] == ["async (1 of 2 diverged)"]


def test_a_shorter_budget_is_not_called_divergence() -> None:
    ax = plot_curves({"async": [TWO[0], TWO[1].iloc[:2]]})
    assert len(ax.lines) == 1
    assert ax.lines[0].get_xdata()[-1] == 2
    assert [text.get_text() for text in ax.texts] == ["async"]


def test_values_that_are_not_finite_are_not_drawn() -> None:
    ax = plot_curves({"a": [history([0, 2, 4], [1, 2, math.inf])]}, y="train_loss")
    assert ax.lines[0].get_xdata().tolist() == [0, 2]


def test_axes_say_what_and_in_which_unit() -> None:
    ax = plot_curves({"sync": TWO}, log=True)
    assert ax.get_xlabel() == "wallclock (simulated s)"
    assert ax.get_ylabel() == "test error (fraction)"
    assert ax.get_yscale() == "log"
    own = [frame.assign(sharpness=frame["test_error"]) for frame in TWO]
    assert plot_curves({"sync": own}, y="sharpness").get_ylabel() == "sharpness"


def test_methods_differ_in_more_than_colour() -> None:
    lines = plot_curves({str(i): TWO for i in range(8)}).lines
    assert (
        len({(line.get_linestyle(), line.get_marker(), line.get_markerfacecolor() == "white") for line in lines})
        == 8
    )


def test_log_ticks_are_plain_numbers() -> None:
    ax = plot_curves({"sync": TWO}, log=True)
    assert ax.yaxis.get_major_formatter()(0.2, 0) == "0.2"
    ax.figure.draw_without_rendering()
    wide = plot_curves({"sync": [history([0, 1], [1e3, 1e-3])]}, log=True)
    wide.figure.draw_without_rendering()
    assert "0.001" in [label.get_text() for label in wide.get_yticklabels()]


@pytest.mark.parametrize(
    ("histories", "match"),
    [
        ({}, "histories is an empty mapping: give at least one label"),
        (TWO, "histories is list: give at least one label"),
        ({"sync": TWO[0]}, "histories of 'sync' is a DataFrame: give a list of DataFrames, one per seed"),
        ({"sync": []}, "histories of 'sync' is empty"),
        ({"sync": [3]}, "history 0 of 'sync' is a int"),
        ({"sync": [TWO[0][["wallclock"]]]}, "history 0 of 'sync' has no column 'test_error': it has wallclock"),
        ({"sync": [TWO[0].iloc[:0]]}, "history 0 of 'sync' has no rows"),
        ({"sync": [TWO[0].iloc[::-1]]}, "'wallclock' of history 0 of 'sync' must be finite and must not decrease"),
        (
            {"sync": [TWO[0].assign(test_error=NAN)]},
            "'test_error' holds no finite value in any history: choose one of wallclock, train_loss",
        ),
    ],
)  # fmt: skip
def test_bad_histories_are_named(histories: object, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        plot_curves(histories)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=match):
        to_target(histories, 0.3)  # type: ignore[arg-type]


def test_an_unknown_band_is_named() -> None:
    with pytest.raises(ValueError, match="band is 'sem': allowed are 'minmax', 'std' and None"):
        plot_curves({"a": TWO}, band="sem")  # type: ignore[arg-type]
