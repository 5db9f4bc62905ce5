"""The whole page: the verdict first, then all instruments at a glance, then each of them."""

from __future__ import annotations

import json
from collections import defaultdict
from importlib.resources import files
from typing import TYPE_CHECKING

from harvest import __version__
from harvest.report import calendar, overview
from harvest.report.axis import fitted
from harvest.report.histogram import BINS, label
from harvest.report.instrument import Instrument, section
from harvest.report.markup import Html, element, joined
from harvest.report.texts import time
from harvest.report.totals import totals

if TYPE_CHECKING:
    from harvest.report.axis import TimeAxis
    from harvest.report.calendar import Days
    from harvest.report.reading import Reading

#: Nothing that the page does not hold itself may be loaded, whatever a symbol is called.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
#: Sections that are open from the beginning.
OPEN_INSTRUMENTS = 4
#: Gaps that are listed one by one in the whole page, and in each section at least.
MAX_GAPS, LEAST_GAPS = 2_000, 10
#: Buckets of a chart, with few instruments and with many.
FINE, COARSE, MANY = 360, 120, 40


def render(reading: Reading, *, title: str) -> str:
    """Write the page. The same data gives the same page."""
    report = reading.report
    instruments = _instruments(reading)
    is_many = len(instruments) > MANY
    axis = fitted(reading.measures, max_buckets=COARSE if is_many else FINE)
    strips = sum(1 + len(one.series) for one in instruments)
    days = calendar.spanned(
        (day for one in instruments for day in one.days), instruments=len(instruments), strips=strips
    )
    max_gaps = max(LEAST_GAPS, MAX_GAPS // max(len(instruments), 1))
    is_open = len(instruments) <= OPEN_INSTRUMENTS
    sections = [
        section(one, axis, days, is_open=is_open, is_brief=is_many, max_gaps=max_gaps) for one in instruments
    ]
    main = element(
        "main",
        overview.verdict(report),
        overview.figures(report, instruments, axis),
        overview.findings(report, reading),
        overview.glance(instruments, axis),
        overview.day_by_day(instruments, days),
        totals(report, instruments, axis),
        element("h2", "Instruments", id="instruments"),
        *sections,
    )
    body = element(
        "body",
        _header(title, axis),
        main,
        _footer(),
        element("div", id="tip", role="status"),
        _script(axis, days),
    )
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("title", f"{title}: what was recorded"),
        element("style", Html(resource("page.css"))),
    )
    return f"<!doctype html>\n{element('html', head, body, lang='en')}\n"


def _instruments(reading: Reading) -> list[Instrument]:
    series = defaultdict(list)
    for one in reading.report.series:
        series[one.venue, one.symbol].append(one)
    return [
        Instrument(number, measures, series[measures.venue, measures.symbol])
        for number, measures in enumerate(reading.measures)
    ]


def _header(title: str, axis: TimeAxis | None) -> Html:
    span = (
        None
        if axis is None
        else f"{time(axis.start_ns, exact=False)} to {time(axis.end_ns, exact=False)} UTC"
    )
    links = (
        ("#glance", "At a glance"),
        ("#calendar", "Calendar"),
        ("#totals", "Totals"),
        ("#instruments", "Instruments"),
    )
    tools = element(
        "div",
        element(
            "input",
            type="search",
            id="filter",
            placeholder="Filter instruments",
            aria_label="Filter instruments",
        ),
        element("label", element("input", type="checkbox", id="gaps"), "with gaps only"),
        element("button", "Dark", id="theme", type="button"),
        class_="tools",
        hidden=True,
    )
    nav = element("nav", *(element("a", text, href=target) for target, text in links), tools)
    return joined(
        element(
            "header",
            element("p", "harvest", class_="brand"),
            element("h1", title),
            element("p", span, class_="span"),
        ),
        nav,
    )


def _footer() -> Html:
    return element(
        "footer",
        element(
            "p",
            "Rates, latencies and the book are those of rows that came over the stream, by the time of receipt. "
            "Latency is receipt less event time, and holds the difference of the two clocks: where it is negative, a clock is wrong. "
            "A band goes from the least to the greatest value; single extremes may exceed the chart.",
        ),
        element("p", f"Made by harvest {__version__}."),
    )


def _script(axis: TimeAxis | None, days: Days | None) -> Html:
    axes: dict[str, object] = {"latency": [label(place) for place in range(BINS)]}
    if axis is not None:
        axes["time"] = {"from": axis.start_ns // 10**6, "step": axis.width_ns // 10**6, "count": axis.count}
    if days is not None:
        axes["days"] = {"from": days.first * 86_400_000, "step": days.step * 86_400_000}
    return element("script", Html(f"const AXES = {json.dumps(axes)};\n{resource('page.js')}"))


def resource(name: str) -> str:
    """Return the text of a file that lies beside this one."""
    return files("harvest.report").joinpath(name).read_text(encoding="utf-8")
