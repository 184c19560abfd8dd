"""Parts of a self-contained HTML page: text, tables, pictures, and a style for screen and print."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Callable, Mapping
from html import escape as escaped
from typing import TYPE_CHECKING, Any, cast

import pandas as pd
from matplotlib.axes import Axes

from stalegrad._core.text import visible

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DASH = "\N{EN DASH}"

STYLE = """
:root { color-scheme: light; }
body { font: 17px/1.5 Charter, "Bitstream Charter", Georgia, "Times New Roman", serif; color: #1a1a1a;
  background: #fff; max-width: 46rem; margin: 3rem auto; padding: 0 1.2rem; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 .3rem; font-weight: 600; }
h2 { font-size: 1.2rem; margin: 2.4rem 0 .6rem; font-weight: 600; break-after: avoid; }
h3 { font-size: 1rem; margin: 1.4rem 0 .3rem; break-after: avoid; overflow-wrap: anywhere; }
p { margin: .5rem 0; hyphens: auto; }
.under { color: #555; margin-top: 0; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .82rem; line-height: 1.35; margin: .8rem 0;
  font-variant-numeric: lining-nums tabular-nums; border: solid #1a1a1a; border-width: 1.5px 0;
  break-inside: avoid; }
th, td { padding: .22rem .7rem .22rem 0; text-align: right; vertical-align: baseline; font-weight: 400; }
th:first-child { text-align: left; }
tbody th:first-child { overflow-wrap: anywhere; }
th:last-child, td:last-child { padding-right: 0; }
thead th { border-bottom: .75px solid #1a1a1a; color: #333; font-style: italic; vertical-align: bottom; }
figure { margin: 1.4rem 0; break-inside: avoid; }
figure img { display: block; width: 100%; height: auto; }
figcaption { font-size: .85rem; color: #444; margin-top: .4rem; }
pre { font: .76rem/1.45 ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace; background: #f6f6f4;
  border-left: 2px solid #bbb; padding: .7rem .9rem; white-space: pre-wrap; overflow-wrap: anywhere;
  break-inside: avoid; }
@page { margin: 18mm; }
@media print { body { font-size: 10.5pt; margin: 0; max-width: none; padding: 0; } pre { background: none; } }
"""


def escape(text: str) -> str:
    """Return text escaped for HTML, with invisible characters replaced."""
    return escaped(visible(text))


def page(title: str, body: str) -> str:
    """Return a complete document; its content policy forbids browsers to load other files and to run scripts."""
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; '
        "style-src 'unsafe-inline'\">\n"
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n{body}</body>\n</html>\n"
    )


def heading(text: str, level: int = 2) -> str:
    """Return a heading."""
    return f"<h{level}>{escape(text)}</h{level}>\n"


def paragraph(text: str, kind: str = "") -> str:
    """Return a paragraph, with ``kind`` as its CSS class if given."""
    return f'<p class="{kind}">{escape(text)}</p>\n' if kind else f"<p>{escape(text)}</p>\n"


def listing(text: str) -> str:
    """Return preformatted text."""
    return f"<pre>{escaped(text.encode(errors='replace').decode())}</pre>\n"


def picture(ax: Axes, caption: str) -> str:
    """Return the figure of an Axes, embedded as PNG, with a caption."""
    buffer = io.BytesIO()
    cast("Figure", ax.figure).savefig(
        buffer, format="png", dpi=190, bbox_inches="tight", metadata={"Software": None}
    )
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    text = escape(caption)
    return (
        f'<figure>\n<img alt="{text}" src="data:image/png;base64,{data}">\n'
        f"<figcaption>{text}</figcaption>\n</figure>\n"
    )


def table(frame: pd.DataFrame, columns: Mapping[str, tuple[str, Callable[[Any], str]]]) -> str:
    """Return the index and some columns of a table, each with a name and a format."""
    head = "".join(f"<th>{escape(name)}</th>" for name, _ in columns.values())
    rows = []
    for index, row in zip(frame.index, frame.to_dict("records"), strict=True):
        cells = "".join(f"<td>{escape(write(row[column]))}</td>" for column, (_, write) in columns.items())
        rows.append(f"<tr><th>{escape(str(index))}</th>{cells}</tr>\n")
    first = escape(str(frame.index.name or ""))
    return (
        f'<div class="wide"><table>\n<thead><tr><th>{first}</th>{head}</tr></thead>\n'
        f"<tbody>\n{''.join(rows)}</tbody>\n</table></div>\n"
    )


def number(value: float) -> str:
    """Return a number with four digits, a whole number in full, and a dash for NaN."""
    if math.isnan(value):
        return DASH
    if math.isinf(value):
        text = "\N{INFINITY}" if value > 0 else "-\N{INFINITY}"
    else:
        text = f"{value:,.0f}" if value == round(value) else f"{value:.4g}"
    return text.replace("-", "\N{MINUS SIGN}")


def hundredths(value: float) -> str:
    """Return a number with two decimals, so that the numbers of a column are aligned."""
    return f"{value:,.2f}" if math.isfinite(value) else number(value)


def percent(value: float) -> str:
    """Return a share as a percentage, and a dash for NaN."""
    return DASH if math.isnan(value) else f"{value:.1%}"
