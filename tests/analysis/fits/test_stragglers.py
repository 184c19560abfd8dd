"""Stragglers of a synchronous job: S and S_w, by hand and in limits."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, strategies as st
from hypothesis.extra import numpy as hnp

from stalegrad.analysis import stragglers

TIMES = hnp.arrays(float, st.tuples(st.integers(5, 12), st.integers(2, 6)), elements=st.floats(0.1, 10.0))


def test_by_hand():
    times = pd.DataFrame([[1.0, 2.0, 6.0], [3.0, 3.0, 3.0], [4.0, 1.0, 1.0], [2.0, 2.0, 2.0]], columns=list("abc"))
    found = stragglers(times)
    assert found.slowdown == (6 + 3 + 4 + 2) / (3 + 3 + 2 + 2)
    assert found.workers["slowdown"].tolist() == [(3 + 3 + 4 + 2) / 10, 1.0, (6 + 3 + 2 + 2) / 10]
    assert found.workers["mean"].tolist() == [2.5, 2.0, 3.0]
    assert found.workers.index.tolist() == ["a", "b", "c"]


@given(TIMES)
def test_no_worker_alone_slows_the_job_more_than_all_together(times):
    found = stragglers(pd.DataFrame(times))
    alone = found.workers["slowdown"]
    assert (alone >= 1 - 1e-12).all()
    assert alone.max() <= found.slowdown * (1 + 1e-12)
    assert found.slowdown - 1 <= (alone - 1).sum() + 1e-9


@given(TIMES, st.floats(0.1, 10.0))
def test_a_step_that_is_longer_for_everybody_makes_no_straggler(times, factor):
    alike = np.repeat(times[:, :1], times.shape[1], axis=1)
    assert stragglers(pd.DataFrame(alike)).slowdown == pytest.approx(1.0)
    assert stragglers(pd.DataFrame(factor * times)).slowdown == pytest.approx(
        stragglers(pd.DataFrame(times)).slowdown
    )


@pytest.mark.parametrize("bad", [-1.0, np.nan, np.inf])
def test_times_that_are_none_are_refused(bad):
    with pytest.raises(ValueError, match="finite seconds"):
        stragglers(pd.DataFrame([[1.0, bad], [1.0, 1.0]]))
