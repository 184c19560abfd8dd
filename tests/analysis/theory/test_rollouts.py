"""The closed form of asynchronous RL: published numbers, limits, and what is refused."""

import math

import pytest

from stalegrad.analysis import expected_rollout_staleness
from stalegrad.policies.synchrony import Async, Rollouts
from stalegrad.simulator.timing.delays import Deterministic, Exponential, LogNormal, Pareto

SIGMA = math.sqrt(math.log(1 + 0.5**2))
LENGTHS = LogNormal(30 * math.exp(-(SIGMA**2) / 2), SIGMA)
"""Of mean 30 s and coefficient of variation 0.5."""


@pytest.mark.parametrize(
    ("slots", "batch", "group", "queue", "load", "published"),
    [
        (120, 240, 1, 2, 0.63, 1.13),
        (240, 120, 1, 2, 0.92, 2.92),
        (128, 128, 1, 2, 1.3, 2.42),
        (128, 128, 8, 2, 1.3, 3.06),
        (256, 128, 8, 4, 2.0, 4.08),
    ],
)
def test_published_settings(slots, batch, group, queue, load, published):
    rules = Rollouts(batch, load * batch * 30 / slots, group=group, queue=queue)
    found = expected_rollout_staleness(rules, LENGTHS, slots)
    assert found.mean == pytest.approx(published, abs=0.006)
    assert found.load == pytest.approx(load)


def test_the_longest_of_a_group_of_exponential_lengths_is_a_harmonic_number():
    found = expected_rollout_staleness(Rollouts(8, 1.0, group=4), Exponential(2.0), 16)
    assert found.group_factor == pytest.approx(1 + 1 / 2 + 1 / 3 + 1 / 4)
    assert found.in_flight == pytest.approx(2 * found.group_factor)
    assert found.in_queue == pytest.approx(1.0)


def test_equal_lengths_wait_for_nobody():
    assert expected_rollout_staleness(Rollouts(8, 1.0, group=4), Deterministic(2.0), 8).group_factor == 1


@pytest.mark.parametrize(
    ("rules", "lengths", "slots", "said"),
    [
        (Rollouts(4, 1.0, admission=0), 1.0, 2, "there is no closed form for admission = 0: simulate"),
        (Rollouts(4, 1.0, pacing=0.5), 1.0, 2, "there is no closed form for pacing = 0.5"),
        (Rollouts(4, 1.0, max_staleness=2), 1.0, 2, "there is no closed form for max_staleness = 2"),
        (Rollouts(4, 8.0), 1.0, 2, "the load is 4 and the queue has no limit"),
        (Rollouts(4, 1.0), Pareto(1.0, 1.0), 2, "has mean inf"),
        (Rollouts(4, 1.0), 1.0, 0, "slots = 0 is not allowed"),
        (Async(), 1.0, 2, "synchrony async has no rollouts"),
    ],
)
def test_what_has_no_closed_form_is_refused(rules, lengths, slots, said):
    with pytest.raises(ValueError, match=said):
        expected_rollout_staleness(rules, lengths, slots)
