"""Section of a report on the anatomy of staleness."""

from __future__ import annotations

from stalegrad._core.protocols import TraceLike
from stalegrad.analysis.plots.anatomy import plot_anatomy
from stalegrad.analysis.reports.page import hundredths, number, paragraph, percent, picture, table


def anatomy_section(trace: TraceLike) -> list[str]:
    """Return the section on the parts of staleness and the used work of each worker."""
    anatomy = trace.anatomy()
    rows = anatomy.table()
    parts = ("staleness", "before_reading", "computing", "travelling", "waiting")
    fates = [fate for fate in anatomy.fates if fate == "used" or rows[fate].any()]
    columns = {name: (name.replace("_", " "), hundredths) for name in parts}
    columns |= {"effective": ("gradients used", number)}
    columns |= {fate: (fate, percent) for fate in fates}
    columns |= {"work_used": ("computing used", percent), "speed": ("speed (1/s)", hundredths)}
    return [
        picture(
            plot_anatomy(trace),
            "Parts of staleness: updates made before a model was read, while its gradient was computed, while the "
            "gradient travelled, and while it waited at the server.",
        ),
        paragraph(
            "Staleness and its parts are means over used messages, in updates. The part waiting is also called "
            "in-queue, and the sum of the others pre-queue. The further columns are gradients by fate, the share "
            "of computing time that was spent on used messages, and the speed in gradients per second of "
            "computing. If slow workers have low shares, their gradients are dropped, and examples that only they "
            "hold count less."
        ),
        table(rows, columns),
    ]
