"""Learning-rate schedules against values computed by hand."""

import math

import numpy as np
import optax
import pytest
from hypothesis import given, strategies as st

from stalegrad.policies import Constant, Cosine, InverseSqrt, StepDecay
from stalegrad.policies.schedules import PRESETS, SCHEDULES, FromFunction, as_schedule

UPDATES = np.arange(9.0)
EPOCHS = UPDATES / 4


def rates(schedule):
    return schedule.values(UPDATES, EPOCHS)


def positive(high):
    return st.floats(1e-6, high)


COMMON = {
    "unit": st.sampled_from(["updates", "epochs"]),
    "warmup": positive(9),
    "warmup_from": st.just("1/workers") | st.floats(0, 1),
}
ANY = st.one_of(
    st.builds(Constant, positive(9), **COMMON),
    st.builds(StepDecay, positive(9), st.lists(positive(9)), positive(1), **COMMON),
    st.builds(Cosine, positive(9), positive(9), st.floats(0, 1), **COMMON),
    st.builds(InverseSqrt, positive(9), **COMMON),
)


def test_a_constant_is_its_peak_everywhere():
    np.testing.assert_array_equal(rates(Constant(0.3)), [0.3] * 9)


def test_warm_up_is_a_straight_line_from_warmup_from_to_the_peak():
    warm = rates(Constant(2.0, unit="updates", warmup=4, warmup_from=0.25))
    np.testing.assert_allclose(warm, [0.5, 0.875, 1.25, 1.625, 2.0, 2.0, 2.0, 2.0, 2.0], rtol=1e-15)
    np.testing.assert_allclose(warm[:5], 2.0 * np.linspace(0.25, 1.0, 5), rtol=1e-15)


def test_warm_up_without_a_start_begins_at_zero():
    np.testing.assert_allclose(rates(Constant(1.0, unit="updates", warmup=2))[:4], [0, 0.5, 1, 1])


def test_warm_up_can_start_at_the_peak_divided_by_the_workers():
    schedule = Constant(2.0, unit="updates", warmup=4, warmup_from="1/workers")
    np.testing.assert_allclose(schedule.values(UPDATES, EPOCHS, 8)[:5], np.linspace(0.25, 2.0, 5), rtol=1e-15)
    np.testing.assert_array_equal(schedule.values(UPDATES, EPOCHS, 1), [2.0] * 9)


def test_presets_are_the_schedules_of_the_papers():
    epochs = np.array([0.0, 2.5, 5.0, 79.0, 80.0, 120.0, 159.0])
    values = as_schedule("resnet20-cifar10").values(epochs * 391, epochs, 16)
    start = 0.1 / 16
    np.testing.assert_allclose(values, [start, (start + 0.1) / 2, 0.1, 0.1, 0.01, 0.001, 0.001], rtol=1e-12)
    decays = as_schedule("wrn16x4-cifar10").values(epochs * 391, epochs, 1)
    np.testing.assert_allclose(decays, [0.1, 0.1, 0.1, 0.02, 0.02, 0.004, 0.004], rtol=1e-12)
    for schedule in (make() for make in PRESETS.values()):
        assert as_schedule(SCHEDULES.to_table(schedule)) == schedule


def test_a_misspelt_preset_is_corrected():
    with pytest.raises(ValueError, match=r"learning_rate.*resnet20-cifar1'?.*resnet20-cifar10"):
        as_schedule("resnet20-cifar1")


def test_milestones_count_from_the_update_that_reaches_them_on():
    decayed = rates(StepDecay(1.0, (2.0, 5.0), 0.5, unit="updates"))
    np.testing.assert_array_equal(decayed, [1, 1, 0.5, 0.5, 0.5, 0.25, 0.25, 0.25, 0.25])


def test_milestones_may_come_in_any_order():
    np.testing.assert_array_equal(
        rates(StepDecay(1.0, (5, 2), unit="updates")), rates(StepDecay(1.0, (2, 5), unit="updates"))
    )


def test_epochs_are_the_unit_unless_updates_are_asked_for():
    np.testing.assert_array_equal(rates(StepDecay(1.0, (1.0,))), [1] * 4 + [0.1] * 5)
    np.testing.assert_array_equal(rates(StepDecay(1.0, (1.0,), unit="updates")), [1] + [0.1] * 8)


def test_cosine_falls_by_half_a_period_to_its_floor_and_stays_there():
    expected = [0.1 + 0.9 * (1 + math.cos(math.pi * min(j / 4, 1))) / 2 for j in range(9)]
    np.testing.assert_allclose(rates(Cosine(2.0, 4.0, 0.1, unit="updates")), 2 * np.array(expected), rtol=1e-15)
    assert rates(Cosine(1.0, 4.0, unit="updates"))[[0, 2, 4, 8]] == pytest.approx([1, 0.5, 0, 0])


def test_inverse_sqrt_is_the_peak_over_sqrt_of_one_plus_position():
    np.testing.assert_allclose(
        rates(InverseSqrt(2.0, unit="updates"))[[0, 3, 8]], [2.0, 1.0, 2.0 / 3.0], rtol=1e-15
    )


def test_warm_up_and_decay_multiply():
    both = rates(InverseSqrt(2.0, unit="updates", warmup=8, warmup_from=0.5))
    assert both[3] == pytest.approx(1.0 * (0.5 + 0.5 * 3 / 8))


def test_a_function_is_called_with_every_update_index():
    np.testing.assert_array_equal(
        rates(as_schedule(lambda update: 0.1 * (update + 1))), [0.1 * (j + 1) for j in range(9)]
    )


def test_a_function_of_the_update_is_warmed_up():
    warm = FromFunction(lambda update: 2.0 - 0.1 * update, warmup=4, warmup_from=0.5)
    expected = [(2.0 - 0.1 * j) * min(0.5 + 0.125 * j, 1.0) for j in range(9)]
    np.testing.assert_allclose(rates(warm), expected, rtol=1e-15)
    by_workers = FromFunction(lambda update: 2.0, warmup=4, warmup_from="1/workers").values(UPDATES, EPOCHS, 8)
    np.testing.assert_allclose(by_workers[:5], np.linspace(0.25, 2.0, 5), rtol=1e-15)


def test_a_function_may_be_of_the_epoch():
    seen = []

    def halved_every_epoch(epoch):
        seen.append(epoch)
        return 0.5 ** int(epoch)

    schedule = FromFunction(halved_every_epoch, unit="epochs", warmup=0.5)
    assert schedule.needs_epochs
    assert not FromFunction(halved_every_epoch).needs_epochs
    expected = [0.5 ** (j // 4) * min(j / 2, 1.0) for j in range(9)]
    np.testing.assert_allclose(rates(schedule), expected, rtol=1e-15)
    assert seen == EPOCHS.tolist()


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (lambda j: 10**400, "learning_rate of update 0 = 1000.* is not allowed: a finite number"),
        (lambda j: math.nan if j == 3 else 0.1, "learning_rate of update 3 = nan is not allowed: a finite number"),
        (lambda j: 0.1 - 0.05 * j, r"learning_rate of update 3 = -0.05\d* is not allowed"),
        (lambda j: 1.0 / max(j - 2, 0) if j != 2 else math.inf, "learning_rate of update 0: .*ZeroDivisionError"),
        (lambda j: math.inf if j == 5 else 0.1, "learning_rate of update 5 = inf is not allowed"),
        (lambda j: None, "learning_rate of update 0 = None is not allowed"),
        (lambda j: np.ones(2), "learning_rate of update 0 = array"),
        (lambda: 0.1, "learning_rate of update 0: the function raised TypeError"),
    ],
)  # fmt: skip
def test_a_function_that_gives_no_learning_rate_is_refused_with_the_update(function, said):
    with pytest.raises(ValueError, match=said):
        rates(as_schedule(function))


def test_a_function_of_the_epoch_is_refused_with_the_epoch():
    with pytest.raises(ValueError, match=r"learning_rate of epoch 0.25 = -1.0 is not allowed"):
        rates(FromFunction(lambda epoch: -1.0 if epoch else 0.1, unit="epochs"))


def test_any_optax_schedule_will_do():
    ours = rates(as_schedule(optax.linear_schedule(1.0, 0.0, 4)))
    np.testing.assert_allclose(ours, [1, 0.75, 0.5, 0.25, 0, 0, 0, 0, 0])


def test_a_number_means_a_constant():
    assert as_schedule(0.1) == Constant(0.1)
    assert as_schedule(1) == Constant(1.0)


@given(ANY)
def test_every_schedule_comes_back_from_its_table(schedule):
    again = as_schedule(SCHEDULES.to_table(schedule))
    assert again == schedule
    assert hash(again) == hash(schedule)
    assert type(again) is type(schedule)


def test_all_schedules_are_covered_by_the_round_trip():
    assert list(SCHEDULES) == ["constant", "step-decay", "cosine", "inverse-sqrt"]


@given(ANY)
def test_rates_never_exceed_the_peak_and_are_never_negative(schedule):
    assert (rates(schedule) >= 0).all()
    assert (rates(schedule) <= schedule.peak * (1 + 1e-12)).all()


def test_a_function_cannot_be_written_to_a_table():
    with pytest.raises(ValueError, match="this process only and cannot be written"):
        SCHEDULES.to_table(FromFunction(float))


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (0, "learning_rate = 0 is not allowed: it must be finite and above 0"),
        (-0.1, r"learning_rate = -0.1 is not allowed"),
        (math.inf, "learning_rate = inf is not allowed"),
        (math.nan, "learning_rate = nan is not allowed"),
        (True, "learning_rate = True is not allowed: give a number, a schedule, its name or a function"),
        ("0.1", "unknown learning_rate '0.1'"),
        (None, "learning_rate = None is not allowed"),
        ({"schedule": "cosin"}, "unknown schedule 'cosin'. Did you mean 'cosine'?"),
        ({"schedule": ["cosine"]}, r"unknown schedule \['cosine'\]"),
        ({"peak": 0.1}, "a schedule needs schedule = NAME, but the table has peak"),
        ({"schedule": "cosine", "peak": 0.1}, "schedule 'cosine' needs horizon"),
        ({"schedule": "cosine", "peak": 0.1, "horizn": 3}, "key of schedule 'cosine': 'horizn'. .*'horizon'"),
        ({"schedule": "constant", "peak": 1, "warmup": -1}, "warmup of constant = -1 is not allowed"),
        ({"schedule": "constant", "peak": 1, "warmup_from": 2}, "warmup_from of constant = 2 is not allowed"),
        ({"schedule": "constant", "peak": 1, "unit": "seconds"}, "unit of constant = 'seconds' is not allowed"),
        ({"schedule": "step-decay", "peak": 1, "milestones": 3}, "milestones of step-decay = 3 is not allowed"),
    ],
)  # fmt: skip
def test_a_wrong_schedule_is_one_sentence_that_says_what_is_wrong(value, said):
    with pytest.raises(ValueError, match=said):
        as_schedule(value)
