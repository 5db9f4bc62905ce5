"""Coverage as a calendar: one strip a series, one cell a day (or some days, where there are many)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import attrs
import numpy as np

from harvest.report.axis import Tick, TimeAxis
from harvest.report.buckets import DAY_NS
from harvest.report.charts import time_labels, values_text
from harvest.report.markup import Html, element
from harvest.report.texts import date_text, percent

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from harvest.pipeline.verify.coverage import DayCoverage

#: From which percentage on, what it is called in the legend, and the class that colours it; the first that fits.
CLASSES = (
    (100.0, "100 %", "c-all"),
    (99.9, "99.9 % or more", "c-high"),
    (99.0, "99 % or more", "c-some"),
    (90.0, "90 % or more", "c-low"),
    (0.0, "less", "c-least"),
)
#: Recorded, but there is nothing to count.
_UNCOUNTED = "c-none"
#: With so few cells they are wide enough to be written in. Pixels.
FEW, _WIDE, _NARROW = 10, 104, 22
#: Cells of a page, less what the charts of an instrument take instead, and the least; beyond, a cell is some days.
MAX_CELLS, INSTEAD, LEAST_CELLS = 400_000, 720, 40_000


@attrs.frozen
class Days:
    """The dates that a page spans: ``count`` cells of ``step`` days from day ``first`` on."""

    first: int
    step: int
    count: int


def spanned(days: Iterable[int], *, instruments: int, strips: int) -> Days | None:
    """Choose the cells for so many instruments and strips of them; None if there are no days."""
    every = set(days)
    if not every:
        return None
    first, span = min(every), max(every) - min(every) + 1
    cells = max(MAX_CELLS - INSTEAD * instruments, LEAST_CELLS)
    step = max(1, math.ceil(span * strips / cells))
    return Days(first, step, math.ceil(span / step))


def worst(one: DayCoverage) -> float | None:
    """Return the lesser of both percentages, as far as they are known."""
    return min((value for value in (one.coverage_ids, one.coverage_s) if value is not None), default=None)


def labels(days: Days) -> Html:
    """Write the dates over the strips."""
    if days.count <= FEW:
        texts = (date_text(days.first + place * days.step) for place in range(days.count))
        ticks = [Tick((place + 0.5) / days.count, text) for place, text in enumerate(texts)]
    else:
        ticks = TimeAxis(days.first * DAY_NS, days.step * DAY_NS, days.count).ticks()
    return element("div", time_labels(ticks), style=_width(days))


def _width(days: Days) -> str:
    return f"max-width:{days.count * (_WIDE if days.count <= FEW else _NARROW)}px"


def strip(days: Days, coverage: Mapping[int, float | None], label: str) -> Html:
    """Draw one strip; a cell shows the least that was covered on its days. Days without coverage stay empty."""
    values = np.full(days.count, np.nan)
    classes: dict[int, str] = {}
    for day, value in sorted(coverage.items()):
        place = (day - days.first) // days.step
        if value is None:
            classes.setdefault(place, _UNCOUNTED)
        elif not values[place] <= value:
            values[place] = value
            classes[place] = next(name for least, _, name in CLASSES if value >= least)
    drawn: dict[str, list[int]] = {}
    for place, name in sorted(classes.items()):
        drawn.setdefault(name, []).append(place)
    known = [value for value in coverage.values() if value is not None]
    said = (
        f"{label}: least {percent(min(known))} in {len(known)} days"
        if known
        else f"{label}: nothing to count"
    )
    paths = [element("path", class_=name, d=_cells(places)) for name, places in sorted(drawn.items())]
    written = values if days.count <= FEW else values[:0]
    texts = [
        element("b", percent(value) if np.isfinite(value) else None, class_=classes.get(place))
        for place, value in enumerate(written.tolist())
    ]
    drawing = element(
        "svg", *paths, viewBox=f"0 0 {days.count} 10", preserveAspectRatio="none", aria_hidden="true"
    )
    return element(
        "div",
        drawing,
        *texts,
        element("i", hidden=True, data_n=label, data_v=values_text(values, digits=6)),
        class_="plot strip",
        tabindex=0,
        role="img",
        aria_label=said,
        data_axis="days",
        data_u="%",
        style=_width(days),
    )


def _cells(places: list[int]) -> str:
    """Draw cells; those that follow each other at one stroke."""
    parts, begin = [], 0
    for number, place in enumerate(places):
        if number + 1 == len(places) or places[number + 1] != place + 1:
            length = number - begin + 1
            parts.append(f"M{places[begin]} 0h{length}v10h-{length}z")
            begin = number + 1
    return "".join(parts)
