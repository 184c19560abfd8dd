"""Values of specs: what is taken for a number, and how a wrong one is shown."""

from typing import Literal

import numpy as np
import pandas as pd
import pytest

from stalegrad._core.specs import NonNegativeInt, PositiveFloat, PositiveInt, builtin, shown, validate


@pytest.mark.parametrize("value", [2, np.int8(2), np.uint64(2), np.array(2), pd.Series([2]).iloc[0]])
def test_whole_numbers_of_every_kind_are_whole_numbers(value):
    found = validate("n", PositiveInt, value)
    assert (found, type(found)) == (2, int)


@pytest.mark.parametrize("value", [0.5, np.float32(0.5), np.float16(0.5), np.array(0.5), pd.Series([0.5]).iloc[0]])
def test_numbers_of_every_kind_are_numbers(value):
    found = validate("x", PositiveFloat, value)
    assert (found, type(found)) == (0.5, float)


@pytest.mark.parametrize("kind", [PositiveFloat, PositiveInt, NonNegativeInt])
@pytest.mark.parametrize("value", [True, "3", b"3", None, [3], -1, float("nan"), float("inf"), {"a": 3}])
def test_what_only_looks_like_a_number_is_refused_with_its_place_and_value(kind, value):
    with pytest.raises(ValueError, match=r"^n of it = ") as refusal:
        validate("n of it", kind, value)
    assert repr(value) in str(refusal.value)
    assert "is not allowed: " in str(refusal.value)


def test_a_choice_of_types_is_told_without_the_names_of_validators():
    kind = PositiveInt | Literal["sqrt"] | tuple[PositiveInt, ...]
    with pytest.raises(ValueError, match="k = 0 is not allowed: ") as refusal:
        validate("k", kind, 0)
    assert "greater than or equal to 1; Input should be 'sqrt'" in str(refusal.value)
    assert "function" not in str(refusal.value)
    with pytest.raises(ValueError, match="1: Input should be greater than or equal to 1"):
        validate("k", kind, (1, 0))


def test_columns_and_arrays_are_lists_and_other_things_stay_as_they_are():
    assert builtin(pd.Series([1, 2])) == builtin(np.array([1, 2])) == builtin(pd.Index([1, 2])) == [1, 2]
    thing = object()
    assert builtin(thing) is thing
    assert builtin("text") == "text"


def test_an_error_shows_any_value_in_one_short_line():
    class Broken:
        def __repr__(self):
            raise RuntimeError

    for value in (np.eye(40), "x" * 10**6, "a\nb", 10**6000, Broken(), pd.DataFrame({"a": range(99)})):
        assert "\n" not in shown(value)
        assert len(shown(value)) <= 200
    with pytest.raises(ValueError, match="x = ") as refusal:
        validate("x", PositiveFloat, np.eye(40))
    assert "\n" not in str(refusal.value)
