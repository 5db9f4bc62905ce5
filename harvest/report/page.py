"""The whole page: the verdict first, then all instruments at a glance, then each of them."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from importlib.resources import files
from typing import TYPE_CHECKING

import numpy as np

from harvest import __version__
from harvest.pipeline.verify.findings import UNEXPLAINED
from harvest.report import calendar, charts
from harvest.report.axis import fitted
from harvest.report.buckets import DAY_NS, Buckets
from harvest.report.calendar import CLASSES, Days
from harvest.report.histogram import BINS, label
from harvest.report.instrument import Instrument, section, total_breaks
from harvest.report.lanes import ALL_REASONS, lane, reason_label
from harvest.report.markup import Html, element, joined
from harvest.report.tables import table
from harvest.report.texts import count, counted, duration, percent, short, size, time

if TYPE_CHECKING:
    from harvest.pipeline.verify import Report
    from harvest.report.axis import TimeAxis
    from harvest.report.reading import Reading

#: Nothing that the page does not hold itself may be loaded, whatever a symbol is called.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
#: Sections that are open from the beginning.
OPEN_INSTRUMENTS = 4
#: Gaps that are listed one by one in the whole page, and in each section at least.
MAX_GAPS, LEAST_GAPS = 2_000, 10
#: Buckets of a chart, with few instruments and with many.
FINE, COARSE, MANY = 360, 120, 40
#: Findings and warnings that are shown.
_MAX_FINDINGS = 200
_MARKS = {0: ("ok", "✓", "Complete"), 1: ("gaps", "!", "Gaps, all explained"), 3: ("bad", "✕", "Not proven")}


def render(reading: Reading, *, title: str) -> str:
    """Write the page. The same data gives the same page."""
    report = reading.report
    instruments = _instruments(reading)
    is_many = len(instruments) > MANY
    axis = fitted(reading.measures, max_buckets=COARSE if is_many else FINE)
    strips = sum(1 + len(one.series) for one in instruments)
    days = calendar.spanned((day for one in instruments for day in one.days), strips=strips)
    max_gaps = max(LEAST_GAPS, MAX_GAPS // max(len(instruments), 1))
    is_open = len(instruments) <= OPEN_INSTRUMENTS
    sections = [
        section(one, axis, days, is_open=is_open, is_brief=is_many, max_gaps=max_gaps) for one in instruments
    ]
    main = element(
        "main",
        _verdict(report),
        _figures(report, instruments, axis),
        _findings(report, reading),
        _glance(instruments, axis),
        _calendar(instruments, days),
        _totals(report, instruments, axis),
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
        element("style", Html(_resource("page.css"))),
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


def _verdict(report: Report) -> Html:
    name, mark, heading = _MARKS[report.exit_code]
    _, _, said = report.judgement.partition(": ")
    text = element("div", element("h2", heading), element("p", f"{said[0].upper()}{said[1:]}."))
    return element(
        "section", element("span", mark, class_="mark", aria_hidden="true"), text, class_=f"verdict {name}"
    )


def _figures(report: Report, instruments: list[Instrument], axis: TimeAxis | None) -> Html:
    breaks = sum(sum(one.measures.break_counts.values()) for one in instruments)
    bounds = [b.bounds_ns for one in instruments for b in one.measures.buckets if b.bounds_ns is not None]
    lasted = duration(max(high for _, high in bounds) - min(low for low, _ in bounds)) if bounds else "–"
    over_rest = sum(one.measures.trade_sources["rest"] for one in instruments)
    known = [
        one.coverage_s
        for one in report.series
        if one.coverage_s is not None and one.kind in ("prices", "depth")
    ]
    shown = (
        ("instruments", count(len(instruments))),
        ("from first to last row", lasted),
        ("time covered, least", percent(min(known, default=None))),
        ("gaps", count(len(report.missing))),
        ("breaks and reconnects", count(breaks)),
        ("rows", count(report.rows)),
        ("trades closed over REST", count(over_rest)),
        ("files", count(sum(one.files for one in report.series))),
        ("size", size(sum(one.bytes for one in report.series))),
    )
    return element(
        "dl",
        *(element("div", element("dt", name), element("dd", value)) for name, value in shown),
        class_="figures",
    )


def _findings(report: Report, reading: Reading) -> Html | None:
    damage = [
        f"{one.what}: {one.path or ' '.join(filter(None, (one.venue, one.symbol, one.kind)))}: {one.detail}"
        for one in report.damage
    ]
    unread = sum(one.unread for one in reading.measures)
    warnings = list(report.warnings)
    if unread:
        warnings.append(
            f"{counted(unread, 'file')} could not be read to the end: the charts lack what they hold"
        )
    parts = [
        element(
            "section", element("h2", f"{heading} ({count(len(lines))})"), _some(lines), class_=f"card {name}"
        )
        for heading, name, lines in (("Damage", "bad", damage), ("Warnings", "warn", warnings))
        if lines
    ]
    return joined(*parts) if parts else None


def _some(lines: list[str]) -> Html:
    items = [element("li", line) for line in lines[:_MAX_FINDINGS]]
    if len(lines) > _MAX_FINDINGS:
        items.append(
            element("li", f"… and {count(len(lines) - _MAX_FINDINGS)} more: harvest verify names them")
        )
    return element("ul", *items)


def _glance(instruments: list[Instrument], axis: TimeAxis | None) -> Html:
    rows = []
    for one in instruments:
        measures, prices, depth = one.measures, one.of_kind("prices"), one.of_kind("depth")
        lanes: Html | None = None
        if axis is not None:
            lanes = element(
                "div",
                lane(axis, measures.trades.bounds_ns, one.intervals("prices"), f"{measures.symbol} trades"),
                lane(axis, measures.diffs.bounds_ns, one.intervals("depth"), f"{measures.symbol} depth"),
                class_="pair",
            )
        late = None if prices is None else prices.latency
        cells = (
            joined(element("a", measures.symbol, href=f"#{one.anchor}"), element("small", measures.venue)),
            lanes,
            percent(None if prices is None else prices.coverage_s),
            percent(None if depth is None else depth.coverage_s),
            count(len(one.missing)),
            _rate(measures.trades),
            _rate(measures.diffs),
            "–" if late is None else f"{short(late.p50_ms)} / {short(late.p99_ms)}",
        )
        tds = [element("td", cell) for cell in cells]
        rows.append(element("tr", *tds, data_name=one.name.lower(), data_gaps=len(one.missing)))
    times = None if axis is None else charts.time_labels(axis.ticks())
    heads = (
        "instrument",
        times,
        "trades covered",
        "depth covered",
        "gaps",
        "trades/s",
        "diffs/s",
        "p50 / p99, ms",
    )
    line = element("tr", *(element("th", head) for head in heads))
    shown = element("table", element("thead", line), element("tbody", *rows), class_="glance")
    there = {gap.why for one in instruments for _, gap in one.missing}
    there |= {reason for one in instruments for _, reason in one.measures.break_counts}
    # Its reasons that do not occur would only be noise.
    keys = [
        reason_label(reason)
        for reason in (*ALL_REASONS, *sorted(there - set(ALL_REASONS)))
        if reason in there
    ]
    legend = element(
        "p",
        element("span", element("i", class_="key covered"), "recorded", class_="reason"),
        *keys,
        class_="keys",
    )
    note = element(
        "p",
        "Upper lane: trades. Lower lane: depth. Colours say why something is missing; times are UTC.",
        class_="note",
    )
    none = element("p", "No instrument matches the filter.", id="none", class_="none", hidden=True)
    heading = element("h2", "At a glance", id="glance")
    return element(
        "section",
        heading,
        legend,
        element("div", shown, none, class_="scroll", tabindex=0),
        note,
        class_="card",
    )


def _rate(buckets: Buckets) -> str:
    if buckets.bounds_ns is None or buckets.bounds_ns[0] == buckets.bounds_ns[1]:
        return "–"
    seconds = (buckets.bounds_ns[1] - buckets.bounds_ns[0]) / 1e9
    return short(int(buckets.counts.sum()) / seconds)


def _calendar(instruments: list[Instrument], days: Days | None) -> Html | None:
    if days is None:
        return None
    rows = [element("div", element("span"), calendar.labels(days), class_="strips wide")]
    for one in instruments:
        strip = calendar.strip(days, one.days, one.measures.symbol)
        name = element("a", one.measures.symbol, href=f"#{one.anchor}", class_="name")
        rows.append(
            element(
                "div",
                name,
                strip,
                class_="strips wide",
                data_name=one.name.lower(),
                data_gaps=len(one.missing),
            )
        )
    keys = [
        element("span", element("i", class_=f"key {name}"), text, class_="reason")
        for _, text, name in CLASSES
    ]
    cells = "day" if days.step == 1 else f"{days.step} days"
    first, last = (
        time(day * DAY_NS, exact=False)[:10] for day in (days.first, days.first + days.count * days.step - 1)
    )
    note = element(
        "p",
        f"{first} to {last}. One cell is one {cells}, and shows the least covered kind: the lesser of ids and time.",
        class_="note",
    )
    heading = element("h2", "Coverage by day", id="calendar")
    return element("section", heading, element("p", *keys, class_="keys"), *rows, note, class_="card")


def _totals(report: Report, instruments: list[Instrument], axis: TimeAxis | None) -> Html:
    by_kind: dict[str, list[int]] = {}
    for series in report.series:
        held = by_kind.setdefault(series.kind, [0, 0, 0])
        for place, number in enumerate((series.rows, series.files, series.bytes)):
            held[place] += number
    rows = [(kind, count(held[0]), count(held[1]), size(held[2])) for kind, held in by_kind.items()]
    why = Counter((series.kind, gap.why) for series, gap in report.missing)
    ordered = sorted(why.items(), key=lambda item: (item[0][1] != UNEXPLAINED, item[0]))
    gaps = [(kind, reason_label(reason), count(number)) for (kind, reason), number in ordered]
    tables = (
        element(
            "section", element("h4", "Rows"), table(("kind", "rows", "files", "size"), rows, text_columns=1)
        ),
        element(
            "section",
            element("h4", "Gaps by reason"),
            table(("kind", "reason", "gaps"), gaps, text_columns=2)
            if gaps
            else element("p", "Nothing is missing.", class_="none"),
        ),
        element("section", element("h4", "Breaks and reconnects"), total_breaks(instruments)),
    )
    drawn = None
    if axis is not None:
        drawn = element("div", *_total_charts(instruments, axis), class_="charts")
    heading = element("h2", "Totals", id="totals")
    return element("section", heading, drawn, element("div", *tables, class_="charts"), class_="card")


def _total_charts(instruments: list[Instrument], axis: TimeAxis) -> tuple[Html, ...]:
    trades, diffs = Buckets(1), Buckets(1)
    latencies = np.zeros(BINS, np.int64), np.zeros(BINS, np.int64)
    for total in (trades, diffs):
        total.widen(axis.width_ns)
    for one in instruments:
        trades.take(one.measures.trades)
        diffs.take(one.measures.diffs)
        latencies[0][:] += one.measures.trade_latencies
        latencies[1][:] += one.measures.diff_latencies
    return (
        charts.over_time(
            "Trades, all instruments",
            "messages a second",
            axis,
            [charts.Line("trades", "a", axis.rates(trades))],
        ),
        charts.over_time(
            "Diffs, all instruments",
            "messages a second",
            axis,
            [charts.Line("diffs", "b", axis.rates(diffs))],
        ),
        charts.latencies(
            "Latency, event to receipt", (("trades", "a", latencies[0]), ("diffs", "b", latencies[1]))
        ),
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
    return element("script", Html(f"const AXES = {json.dumps(axes)};\n{_resource('page.js')}"))


def _resource(name: str) -> str:
    return files("harvest.report").joinpath(name).read_text(encoding="utf-8")
