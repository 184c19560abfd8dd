"""Renewal counts: the rounds of K-batch-sync and the freshness of K-batch-async."""

import itertools

import numpy as np
import pytest
from scipy import integrate, special

from stalegrad.analysis.theory.order_statistics import order_statistic
from stalegrad.analysis.theory.renewal import batch_order_statistic, fresh_share
from stalegrad.simulator.timing.delays import (
    Erlang,
    Exponential,
    Gamma,
    HyperExponential,
    LogNormal,
    Pareto,
    ShiftedExponential,
    Uniform,
)

P = 8
HYPER = HyperExponential((0.9, 0.1), (0.5, 5.5))
# Independent simulations of 40,000 updates, K = 1..8.
SIMULATED = {
    ShiftedExponential(1.0, 1.0): [1.1250, 1.2687, 1.4345, 1.6310, 1.8606, 2.1278, 2.4072, 2.6733],
    Pareto(2.0, 1.0): [1.0670, 1.1487, 1.2536, 1.3915, 1.5755, 1.8159, 2.0972, 2.3640],
    Erlang(4, 1.0): [0.4202, 0.5871, 0.7184, 0.8407, 0.9607, 1.0811, 1.2049, 1.3280],
    HYPER: [0.0698, 0.1396, 0.2124, 0.2838, 0.3569, 0.4307, 0.5074, 0.5854],
}


@pytest.mark.parametrize("delay", SIMULATED, ids=repr)
def test_rounds_of_k_batch_sync_take_what_independent_simulations_took(delay):
    for k in (2, 5, 8):
        assert batch_order_statistic([delay] * P, k) == pytest.approx(SIMULATED[delay][k - 1], rel=0.01)


@pytest.mark.parametrize(("workers", "k"), [(1, 3), (4, 1), (8, 8), (8, 21), (32, 20)])
def test_memoryless_rounds_take_k_over_p(workers, k):
    assert batch_order_statistic([Exponential(2.0)] * workers, k) == pytest.approx(2 * k / workers, rel=1e-4)


@pytest.mark.parametrize("delay", [LogNormal(1.0, 1.0), Uniform(0.2, 1.7)], ids=repr)
def test_a_round_of_one_is_the_fastest_of_all_and_one_worker_adds_up(delay):
    assert batch_order_statistic([delay] * 5, 1) == pytest.approx(order_statistic([delay] * 5, 1), rel=1e-4)
    assert batch_order_statistic([delay], 4) == pytest.approx(4 * delay.expectation(), rel=5e-4)


def test_two_workers_with_gamma_times_by_their_convolutions():
    # N(t) >= n if the sum of n jobs, which is gamma of n times the shape, is over by t.
    shape, k = 2.5, 3
    delay = Gamma(shape, shape**-0.5)

    def few(t):
        share = -np.diff([1.0, *(special.gammainc(n * shape, t) for n in range(1, k + 1))])
        return sum(share[a] * share[b] for a, b in itertools.product(range(k), repeat=2) if a + b < k)

    exact = integrate.quad(few, 0, 60, limit=200)[0]
    assert batch_order_statistic([delay] * 2, k) == pytest.approx(exact, rel=1e-4)


def test_unlike_workers_each_count_for_themselves():
    fast, slow = Exponential(0.5), Exponential(3.0)
    delays = [fast, slow, fast]
    assert batch_order_statistic(delays, 4) == pytest.approx(4 / (2 / 0.5 + 1 / 3.0), rel=1e-4)


@pytest.mark.parametrize("k", range(1, P + 1))
def test_memoryless_gradients_are_fresh_as_the_geometric_delay_says(k):
    exact = 1 - (P - 1) / k * (1 - (1 - 1 / P) ** k)
    assert fresh_share(Exponential(3.0), k, P) == pytest.approx(exact, rel=1e-4)


def test_asynchronous_gradients_are_fresh_if_no_other_worker_was_about_to_finish():
    def remaining(t):
        return 0.45 * np.exp(-2 * t) + 0.55 * np.exp(-t / 5.5)

    def density(t):
        return 1.8 * np.exp(-2 * t) + 0.1 / 5.5 * np.exp(-t / 5.5)

    exact = integrate.quad(lambda t: density(t) * remaining(t) ** (P - 1), 0, 200, points=[1.0, 5.0])[0]
    assert fresh_share(HYPER, 1, P) == pytest.approx(exact, rel=1e-4)


def test_a_lone_worker_is_always_fresh():
    assert fresh_share(Uniform(0.5, 1.5), 3, 1) == pytest.approx(1.0, rel=1e-6)
