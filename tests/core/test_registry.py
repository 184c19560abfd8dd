"""The registry: one mechanism for everything that has a name."""

import doctest
import re

import pytest

import stalegrad
from stalegrad._core import registry
from stalegrad._core.registry import Registry
from stalegrad._core.specs import spec
from stalegrad.analysis.fits.staleness_models import MODELS
from stalegrad.models.datasets import SOURCES
from stalegrad.models.networks import NETWORKS
from stalegrad.policies.methods import REGISTRY
from stalegrad.policies.schedules import SCHEDULES
from stalegrad.policies.synchrony import SYNCHRONIES
from stalegrad.simulator.timing.delays import DELAYS


@spec
class Square:
    side: float = 1.0
    corners: tuple[int, ...] = (4,)


@spec
class Circle:
    radius: float


def shapes(**aliases):
    return Registry("shape", [Square, Circle], key="shape", aliases=aliases)


@pytest.mark.parametrize(
    "table", [{"shape": "circle", "radius": 2.0}, {"shape": "square"}, {"shape": "square", "corners": [1, 2]}]
)
def test_tables_are_read_and_written_back(table):
    assert shapes().to_table(shapes().from_table(table)) == table


@pytest.mark.parametrize(
    ("table", "said"),
    [
        (
            {"shape": "circel", "radius": 1},
            "unknown shape 'circel'. Did you mean 'circle'? Allowed: circle, square.",
        ),
        ({"radius": 1}, "a shape needs shape = NAME, but the table has radius: allowed are circle, square"),
        ({"shape": ["circle"]}, "unknown shape"),
        ({"shape": "circle", "radios": 1}, "unknown key of shape 'circle': 'radios'. Did you mean 'radius'?"),
        ({"shape": "circle"}, "shape 'circle' needs radius"),
        ({"shape": "circle", "radius": "x"}, "radius of circle = 'x' is not allowed"),
    ],
)
def test_a_wrong_table_is_refused_with_what_is_allowed(table, said):
    with pytest.raises(ValueError, match=re.escape(said)):
        shapes().from_table(table)


def test_what_is_registered_is_found_written_and_told_from_the_package_s_own():
    @spec
    class Mine:
        size: int = 1

    known = shapes()
    with pytest.raises(ValueError, match="exists in this process only and cannot be written to a spec"):
        known.to_table(Mine(2))
    assert known.register("mine", Mine) is Mine
    assert known.from_table(known.to_table(Mine(2))) == Mine(2)
    assert known.name_of(Mine) == "mine"
    assert (known.has(Mine), known.built_in(Mine), known.built_in(Square)) == (True, False, True)
    assert [*known] == ["square", "circle", "mine"]


def test_a_name_of_the_package_cannot_be_taken_and_another_is_replaced():
    known = shapes(round="circle")
    for name in ("circle", "round", "", 3):
        with pytest.raises(ValueError, match=r"name of the shape = .* is not allowed"):
            known.register(name, Circle)
    known.register("mine", Circle)
    known.register("mine", Square)
    assert known["mine"] is Square


def test_an_alias_means_the_same_and_is_not_listed():
    known = shapes(round="circle")
    assert known.find("round") is Circle
    assert "round" not in known


def test_a_text_stands_for_what_is_imported_when_it_is_asked_for():
    known = Registry("thing", {"text": "stalegrad._core.text:visible", "absent": "no.such.module:thing"})
    assert "absent" in known
    from stalegrad._core.text import visible

    assert known.has(visible)
    assert known.built_in(visible)
    assert known["text"] is visible
    with pytest.raises(ModuleNotFoundError):
        known["absent"]


@pytest.mark.parametrize(
    "known", [DELAYS, SYNCHRONIES, SCHEDULES, REGISTRY, NETWORKS, SOURCES, MODELS], ids=lambda k: k.kind
)
def test_every_name_of_the_package_leads_to_something_that_is_its_own(known):
    assert isinstance(known, Registry)
    assert len(known) > 3
    assert all(known.built_in(known.find(name)) and known.name_of(known[name]) == name for name in known)


@pytest.mark.parametrize("module", [registry, stalegrad], ids=lambda m: m.__name__)
def test_the_examples_run(module):
    assert doctest.testmod(module).attempted > 0
    assert doctest.testmod(module).failed == 0
