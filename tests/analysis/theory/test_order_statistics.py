"""Expected order statistics: closed forms, quadrature, and independent ways to them."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from scipy import stats

from stalegrad.analysis.theory.order_statistics import closed_form, order_statistic
from stalegrad.simulator.timing.delays import (
    Deterministic,
    Empirical,
    Erlang,
    Exponential,
    Function,
    Gamma,
    LogNormal,
    Pareto,
    ShiftedExponential,
    Uniform,
    Weibull,
    as_delay,
)

P = 8
# E[X_{K:8}], K = 1..8, worked out by hand from the papers' formulas.
PUBLISHED = {
    Exponential(1.0): [0.125, 0.267857142857, 0.434523809524, 0.634523809524, 0.884523809524, 1.217857142857,
                       1.717857142857, 2.717857142857],
    ShiftedExponential(1.0, 1.0): [1.125, 1.267857142857, 1.434523809524, 1.634523809524, 1.884523809524,
                                   2.217857142857, 2.717857142857, 3.717857142857],
    Pareto(2.0, 1.0): [1.066666666667, 1.148717948718, 1.253146853147, 1.392385392385, 1.591297591298,
                       1.909557109557, 2.546076146076, 5.092152292152],
}  # fmt: skip


@pytest.mark.parametrize("delay", PUBLISHED, ids=repr)
def test_closed_forms_give_the_published_numbers(delay):
    assert [closed_form(delay, k, P) for k in range(1, P + 1)] == pytest.approx(PUBLISHED[delay], rel=1e-11)


@settings(max_examples=12, deadline=None)
@given(
    delay=st.sampled_from(
        [Exponential(3.0), ShiftedExponential(0.1, 7.0), Pareto(1.3, 2.0), Uniform(1.0, 1.5), Deterministic(2.0)]
    ),
    workers=st.integers(1, 300),
    data=st.data(),
)
def test_quadrature_gives_the_closed_forms(delay, workers, data):
    k = data.draw(st.integers(1, workers))
    assert order_statistic([delay] * workers, k) == pytest.approx(closed_form(delay, k, workers), rel=1e-8)


@pytest.mark.parametrize("delay", [Gamma(2.0, 3.0), Erlang(4, 1.0), LogNormal(1.0, 1.0)], ids=repr)
def test_order_statistics_sum_to_p_times_the_mean(delay):
    total = sum(order_statistic([delay] * 4, k) for k in range(1, 5))
    assert total == pytest.approx(4 * delay.expectation(), rel=1e-8)


def test_the_fastest_of_weibull_times_is_weibull():
    delay = Weibull(0.7, 1.0)
    assert order_statistic([delay] * 9, 1) == pytest.approx(delay.expectation() * 9 ** (-1 / 0.7), rel=1e-8)


def test_scipy_delays_are_integrated_too():
    delay = as_delay(stats.beta(2.0, 5.0))
    draws = stats.beta(2.0, 5.0).rvs((100_000, 4), random_state=1)
    third = np.sort(draws, axis=1)[:, 2]
    assert order_statistic([delay] * 4, 3) == pytest.approx(third.mean(), abs=4.5 * third.std() / 100_000**0.5)


def test_measured_times_are_enumerated():
    delay = Empirical((1.0, 2.0, 2.0, 7.0))
    second = [sorted(draw)[1] for draw in itertools.product(delay.samples, repeat=3)]
    assert order_statistic([delay] * 3, 2) == pytest.approx(np.mean(second), rel=1e-12)


def test_slowest_of_unlike_exponential_workers_by_inclusion_and_exclusion():
    scales = (0.3, 1.0, 2.5, 2.5, 9.0)
    subsets = [s for size in range(1, 6) for s in itertools.combinations(scales, size)]
    exact = sum((-1) ** (len(s) + 1) / sum(1 / scale for scale in s) for s in subsets)
    delays = [Exponential(scale) for scale in scales]
    assert order_statistic(delays, 5) == pytest.approx(exact, rel=1e-8)
    assert order_statistic(delays, 1) == pytest.approx(1 / sum(1 / scale for scale in scales), rel=1e-8)


def test_order_statistics_of_unlike_workers_sum_to_the_sum_of_means():
    delays = [Pareto(3.0, 1.0), Deterministic(1.2), Erlang(4, 6.0)]
    total = sum(order_statistic(delays, k) for k in range(1, 4))
    assert total == pytest.approx(sum(delay.expectation() for delay in delays), rel=1e-8)


@pytest.mark.parametrize(
    ("delay", "words"),
    [
        (Function(lambda rng, size: np.ones(size)), "no survival function"),
        (as_delay(stats.poisson(3)), "whole numbers"),
    ],
    ids=["function", "poisson"],
)
def test_delays_without_a_survival_function_are_refused(delay, words):
    with pytest.raises(ValueError, match=words):
        order_statistic([delay] * 2, 1)
