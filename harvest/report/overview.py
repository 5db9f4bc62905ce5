"""The upper part of a page: the verdict, the figures, the findings, and all instruments at a glance and day by day."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harvest.report import calendar, charts
from harvest.report.buckets import DAY_NS
from harvest.report.calendar import CLASSES
from harvest.report.lanes import ALL_REASONS, lane, reason_label
from harvest.report.markup import Html, element, joined
from harvest.report.texts import count, counted, duration, percent, short, size, time

if TYPE_CHECKING:
    from harvest.pipeline.verify import Report
    from harvest.report.axis import TimeAxis
    from harvest.report.buckets import Buckets
    from harvest.report.calendar import Days
    from harvest.report.instrument import Instrument
    from harvest.report.reading import Reading

#: Findings and warnings that are shown.
_MAX_FINDINGS = 200
_MARKS = {0: ("ok", "✓", "Complete"), 1: ("gaps", "!", "Gaps, all explained"), 3: ("bad", "✕", "Not proven")}


def verdict(report: Report) -> Html:
    """Say whether the recording is complete."""
    name, mark, heading = _MARKS[report.exit_code]
    _, _, said = report.judgement.partition(": ")
    text = element("div", element("h2", heading), element("p", f"{said[0].upper()}{said[1:]}."))
    return element(
        "section", element("span", mark, class_="mark", aria_hidden="true"), text, class_=f"verdict {name}"
    )


def figures(report: Report, instruments: list[Instrument], axis: TimeAxis | None) -> Html:
    """Write the figures below the verdict."""
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
        ("rows", count(report.rows) if report.rows < 10**10 else short(report.rows)),
        ("trades closed over REST", count(over_rest)),
        ("files", count(sum(one.files for one in report.series))),
        ("size", size(sum(one.bytes for one in report.series))),
    )
    return element(
        "dl",
        *(element("div", element("dt", name), element("dd", value)) for name, value in shown),
        class_="figures",
    )


def findings(report: Report, reading: Reading) -> Html | None:
    """Write what is damaged, and what is worth a warning; nothing where there is neither."""
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


def glance(instruments: list[Instrument], axis: TimeAxis | None) -> Html:
    """Write one line an instrument."""
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


def day_by_day(instruments: list[Instrument], days: Days | None) -> Html | None:
    """Draw one strip an instrument."""
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
