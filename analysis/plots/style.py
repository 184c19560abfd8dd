"""Styles of methods: one table with the colour, line and marker of each method in every picture."""

from __future__ import annotations

import re
from collections.abc import Collection, Hashable, Iterable
from typing import Any, NamedTuple, TypeAlias, TypeVar

Label = TypeVar("Label", bound=Hashable)

LineStyle: TypeAlias = str | tuple[float, tuple[float, ...]]
"""Line style of matplotlib: a name, or an offset and the lengths of dashes and gaps."""

GREY = "0.35"
"""Colour of notes and leaders."""

USED, WASTED = "#3d5a80", "#c08a6c"
"""Colours of computing that was used, and of computing that was cancelled or discarded."""

COLORS = ("#000000", "#ac0000", "#1f3cb1", "#5b9362", "#a459a9", "#c28a26", "#009cee", "#84123d")
"""Colours with pairwise CIELAB distances of 20 or more, also under protanopia, deuteranopia and tritanopia, and
with contrasts of 3 or more to white."""

LINES: tuple[LineStyle, ...] = (
    "-", (0, (5, 1.5)), "-", (0, (4, 1.2, 1, 1.2)), (0, (1.2, 1)), "-", (0, (8, 2)), (0, (3, 1, 1, 1, 1, 1)),
)  # fmt: skip
"""Line styles; solid lines are distinguished by their markers."""

MARKERS = (
    ("o", True),
    ("s", False),
    ("^", False),
    ("D", True),
    ("v", False),
    ("P", True),
    ("X", True),
    ("p", True),
)
"""Markers, and whether they are filled."""

METHODS = (
    "sync", "k-sync", "async", "k-async", "k-batch-async", "k-batch-sync", "mindthestep", "dana-zero",
    "sgd", "ssgd", "nag-asgd", "dc-asgd", "multi-asgd", "lwp", "dana-slim", "dana-dc",
    "inverse", "staleness-aware", "smega2", "gap-aware", "dana-sa", "dana-ga", "delay-adaptive", "fleet",
    "downpour", "easgd", "spectrain", "tail", "delayed-averaging", "adasync", "ssp", "delayed-averaging-general",
    "fasgd", "gap-limited", "clipped-async", "bounded-staleness", "backup-workers", "fadas", "ringmaster-lmo",
    "async-muon", "dude", "ringmaster", "ca2fl", "ringleader", "malenia", "fedasync", "ia2sgd", "fedbuff",
    "mindflayer", "dropcompute", "adacomm", "diloco", "async-local-sgd", "dylu", "constant-delay", "pipeline",
)  # fmt: skip
"""The methods of the package. The place of a name determines its style: append new names, and never move one. A
row of eight contains every colour, line and marker once, so that its methods differ in grey, too. Methods in the
same column share a colour; they are rarely compared."""


class Style(NamedTuple):
    """The look of one method.

    Attributes:
        color: colour, in a format of matplotlib.
        linestyle: line style, in a format of matplotlib.
        marker: letter of the marker in matplotlib.
        filled: whether the marker is filled.
    """

    color: str
    linestyle: LineStyle
    marker: str
    filled: bool


def _style(color: int, line: int, marker: int) -> Style:
    return Style(COLORS[color % 8], LINES[line % 8], *MARKERS[marker % 8])


STYLES = tuple(_style(place, place + place // 8, place + 2 * (place // 8)) for place in range(64))
"""Distinct styles; the first ones belong to :data:`METHODS`, place by place."""

FURTHER = tuple(_style(c, line, marker) for marker in range(8) for line in range(8) for c in range(8))
"""Every combination, for pictures that need a colour more than eight times."""


def method_of(label: object) -> str | None:
    """Return the method that a label begins with, or None if there is none.

    Labels of variants are recognised, too: ``k-async k=4``, ``k-async (k = 4)``, ``k-async, method.k=2``.
    """
    found = re.match(r"[a-z0-9]+(-[a-z0-9]+)*(?![\w-])", str(label).strip().lower().replace("_", "-"))
    return found[0] if found and found[0] in METHODS else None


def styles(labels: Iterable[Label]) -> dict[Label, Style]:
    """Return the style of every label of a picture; up to 384 labels have different styles.

    A label that is the name of a method has the method's style, in every picture and in any order. Variants of a
    method have its colour. If the method itself is not drawn, the first variant, in natural order of the labels,
    has the method's style; the other variants differ by line and marker. Every other label, in order of
    appearance, gets the first free style of the colour that is used least so far.

    Args:
        labels: all labels of the picture.
    """
    names = list(dict.fromkeys(labels))
    found: dict[Label, Style] = {name: STYLES[METHODS.index(name)] for name in names if name in METHODS}
    methods = {name: method for name in names if name not in found and (method := method_of(name)) is not None}
    for name in sorted(methods, key=_natural):
        found[name] = _free_variant(METHODS.index(methods[name]), found.values())
    for name in names:
        if name not in found:
            found[name] = _least_used(found.values())
    return {name: found[name] for name in names}


def _free_variant(place: int, used: Collection[Style]) -> Style:
    """Return a free style with the colour of a method: its own, then those of no method, then any other."""
    own = STYLES[place]
    alike = [index for index in range(place % 8, len(STYLES), 8) if index != place]
    alike.sort(key=lambda index: (index < len(METHODS), STYLES[index].marker == own.marker))
    further = sorted(FURTHER, key=lambda style: style.color != own.color)
    candidates = (own, *(STYLES[index] for index in alike), *further)
    return next((style for style in candidates if style not in used), own)


def _least_used(used: Collection[Style]) -> Style:
    """Return the first free style of the colour that is used least."""
    free = [style for style in (*STYLES, *FURTHER) if style not in used] or list(STYLES)
    colors = [style.color for style in used]
    return min(free, key=lambda style: colors.count(style.color))


def _natural(label: object) -> list[tuple[float, str]]:
    """Return a key that sorts ``k=2`` before ``k=16``."""
    parts = re.split(r"(\d+(?:\.\d+)?(?:e-?\d+)?)", str(label))
    return [(float(part), "") if place % 2 else (-1.0, part) for place, part in enumerate(parts)]


def marker_style(look: Style) -> dict[str, Any]:
    """Return the marker of a style as keywords of ``Line2D``."""
    size, edge = (5.0, 0.5) if look.marker in "PX" else (3.8, 0.9)  # a small cross looks like a diamond
    return {
        "color": look.color, "marker": look.marker, "markersize": size, "markeredgewidth": edge,
        "markerfacecolor": look.color if look.filled else "white",
    }  # fmt: skip


def curve_style(look: Style, points: int, markers: int = 7, shift: int = 0) -> dict[str, Any]:
    """Return the line and the markers of a style as keywords of ``Line2D``.

    Args:
        look: the style.
        points: number of points of the line.
        markers: approximate number of markers along the line.
        shift: index of the curve in its picture; it shifts the markers, so that those of close curves do not
            overlap.
    """
    every = max(1, points // markers)
    return {
        "linestyle": look.linestyle, "linewidth": 1.2, "markevery": (shift * every // 5 % every, every),
        **marker_style(look),
    }  # fmt: skip
