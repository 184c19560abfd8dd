"""Styles of methods: the same in every picture, distinct in grey and for every colour vision."""

import itertools

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, strategies as st

from stalegrad.analysis import (
    plot_curves,
    plot_difference,
    plot_pareto,
    plot_staleness,
    plot_staleness_time,
)
from stalegrad.analysis.plots.style import COLORS, METHODS, STYLES, Style, method_of, styles
from stalegrad.policies import methods
from stalegrad.simulator.timing.trace import Trace

DEMO = ["sync", "k-sync", "async", "k-async", "k-batch-async"]
LABELS = st.sampled_from(
    [*METHODS, "k-async k=2", "k-async (k = 4)", "k-async, method.k=16", "sync #2", "before", "k = 2", "other"]
)

VISION = {  # Machado, Oliveira, Fernandes 2009, severity 1, on linear RGB, row by row
    "normal": [1, 0, 0, 0, 1, 0, 0, 0, 1],
    "protanopia": [0.152286, 1.052583, -0.204868, 0.114503, 0.786281, 0.099216, -0.003882, -0.048116, 1.051998],
    "deuteranopia": [0.367322, 0.860646, -0.227968, 0.280085, 0.672501, 0.047413, -0.01182, 0.04294, 0.968881],
    "tritanopia": [1.255528, -0.076749, -0.178779, -0.078411, 0.930809, 0.147602, 0.004733, 0.691367, 0.3039],
}
XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.072175], [0.0193339, 0.119192, 0.9503041]]
)


def linear(color: str) -> np.ndarray:
    value = np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def lab(rgb: np.ndarray) -> np.ndarray:
    """Return CIELAB coordinates (D65) of linear RGB."""
    f = XYZ @ rgb / XYZ.sum(axis=1)
    f = np.where(f > (6 / 29) ** 3, np.cbrt(f), f / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def shape(look: Style) -> tuple[object, ...]:
    return look[1:]


# The table


def test_every_method_of_the_package_has_a_style_of_its_own() -> None:
    built_in = [name for name, info in methods.REGISTRY.items() if info.built_in]
    assert sorted(METHODS) == sorted(built_in)
    assert len(set(styles(METHODS).values())) == len(METHODS)
    assert len(set(STYLES)) == len(STYLES)


def test_styles_of_the_demo_stay_what_they_are() -> None:
    assert [(look.color, look.marker) for look in styles(DEMO).values()] == list(
        zip(COLORS[:5], ["o", "s", "^", "D", "v"], strict=True)
    )


def test_the_first_eight_methods_differ_in_grey() -> None:
    assert len({shape(look) for look in styles(METHODS[:8]).values()}) == 8


@pytest.mark.parametrize("vision", VISION)
def test_colours_differ_for_every_colour_vision(vision: str) -> None:
    seen = [lab(np.clip(np.reshape(VISION[vision], (3, 3)) @ linear(color), 0, 1)) for color in COLORS]
    assert min(np.linalg.norm(a - b) for a, b in itertools.combinations(seen, 2)) >= 20


@pytest.mark.parametrize("color", COLORS)
def test_colours_can_be_read_on_white(color: str) -> None:
    assert 1.05 / (XYZ[1] @ linear(color) + 0.05) >= 3


# Which label has which style


@given(st.lists(LABELS, unique=True), st.randoms(use_true_random=False))
def test_a_method_has_its_style_in_every_picture_and_order(labels: list[str], random: object) -> None:
    found = styles(labels)
    assert list(found) == labels
    assert len(set(found.values())) == len(labels)
    for label in set(labels) & set(METHODS):
        assert found[label] == styles([label])[label]
    random.shuffle(labels)  # type: ignore[attr-defined]
    again = styles(labels)
    assert {k: v for k, v in again.items() if method_of(k)} == {k: v for k, v in found.items() if method_of(k)}


@pytest.mark.parametrize(
    ("label", "method"),
    [
        ("k-async", "k-async"),
        ("k-async k=4", "k-async"),
        ("k-async (k = 4)", "k-async"),
        ("k-async, method.k=2", "k-async"),
        ("K-async: mine", "k-async"),
        ("sync #2", "sync"),
        ("k = 2", None),
        ("asynchronous", None),
        ("async-ish", None),
        ("", None),
        ("$\\sync", None),
        (4, None),
    ],
)
def test_labels_name_their_method_first(label: object, method: str | None) -> None:
    assert method_of(label) == method


def test_variants_keep_the_colour_of_their_method_and_differ_in_grey() -> None:
    labels = ["k-async", "sync", *(f"k-async k={k}" for k in (2, 4, 8, 16, 32))]
    found = styles(labels)
    variants = [look for label, look in found.items() if label != "sync"]
    assert {look.color for look in variants} == {styles(["k-async"])["k-async"].color}
    assert len({shape(look) for look in variants}) == len(variants)


def test_the_first_variant_stands_for_its_method_where_that_is_not_drawn() -> None:
    own = styles(["k-async"])["k-async"]
    found = styles(["k-async k=16", "k-async k=2"])
    assert found["k-async k=2"] == own != found["k-async k=16"]


def test_other_labels_take_free_styles_in_order_of_appearance() -> None:
    assert list(styles(["a", "b", "c"]).values()) == list(STYLES[:3])
    found = styles(["a", "sync", "b"])
    assert found["sync"] == STYLES[0]
    assert [found["a"], found["b"]] == [STYLES[1], STYLES[2]]


def test_hundreds_of_labels_have_a_style_each() -> None:
    assert len(set(styles(map(str, range(384))).values())) == 384
    assert len(set(styles(f"sync {i}" for i in range(64)).values())) == 64
    assert len(styles(map(str, range(600)))) == 600


# In pictures


def test_every_picture_takes_the_style_from_the_table(trace: Trace) -> None:
    frame = pd.DataFrame({"wallclock": [0.0, 1.0], "test_error": [0.9, 0.2], "train_loss": [2.0, 1.0]})
    look = styles(["async"])["async"]
    table = pd.DataFrame({"wallclock": [1.0], "test_error": [0.1]}, index=["async"])
    for others in ([], ["a", "b"], ["sync", "k-async"]):
        names = [*others, "async", "k-sync"]
        lines = [
            plot_curves({name: [frame] for name in names}).lines[len(others)],
            plot_difference({name: [frame] for name in names}, "k-sync").lines[1 + len(others)],
            plot_staleness_time(dict.fromkeys(names, trace)).lines[len(others)],
            plot_pareto(table).lines[1],
        ]
        for line in lines:
            assert (line.get_color(), line.get_marker()) == (look.color, look.marker)
        patches = plot_staleness(dict.fromkeys(names, trace)).patches
        assert patches[2 * len(others) + 1].get_edgecolor()[:3] == pytest.approx(
            [int(look.color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        )


def test_curves_take_other_styles_where_they_are_given() -> None:
    frame = pd.DataFrame({"wallclock": [0.0, 1.0], "test_error": [0.9, 0.2]})
    (line,) = plot_curves({"before": [frame]}, styles={"before": STYLES[5]}).lines
    assert (line.get_color(), line.get_marker()) == (STYLES[5].color, STYLES[5].marker)
