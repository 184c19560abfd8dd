"""Pictures of differences from a baseline."""

import numpy as np
import pandas as pd

from stalegrad.analysis import paired_difference, plot_difference


def history(x: list[float], y: list[float], loss: list[float] | None = None) -> pd.DataFrame:
    return pd.DataFrame({"wallclock": x, "test_error": y, "train_loss": loss or y})


SYNC = [history([0, 2, 4], [1.0, 0.6, 0.4]), history([0, 2, 4], [0.9, 0.8, 0.5])]
ASYNC = [history([0, 1, 2, 4], [1.0, 0.7, 0.5, 0.45]), history([0, 3, 4], [0.9, 0.5, 0.25])]


def test_the_picture_shows_the_table() -> None:
    histories = {"sync": SYNC, "async": ASYNC}
    ax, table = plot_difference(histories, "sync"), paired_difference(histories, "sync")
    zero, line = ax.lines
    assert list(zero.get_ydata()) == [0, 0]
    np.testing.assert_array_equal(line.get_xydata(), table[["wallclock", "difference"]])
    assert ax.get_ylabel() == "test error (fraction),\nminus that of sync"
    assert ax.get_title(loc="right") == "mean and 95% interval of 2 paired seeds"
    ax.figure.draw_without_rendering()
