"""The section of one instrument: its kinds, its calendar, its timeline, its charts, and each of its gaps."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

import attrs
import numpy as np

from harvest.pipeline.verify.findings import UNEXPLAINED
from harvest.report import calendar, charts
from harvest.report.lanes import Interval, lane, reason_label
from harvest.report.markup import Html, element, joined
from harvest.report.measures import ASK_DEPTH, BID_DEPTH, MID, SPREAD_BPS
from harvest.report.tables import table
from harvest.report.texts import count, counted, duration, percent, size, time

if TYPE_CHECKING:
    from harvest.pipeline.verify.findings import Missing
    from harvest.pipeline.verify.series import SeriesReport
    from harvest.report.axis import TimeAxis
    from harvest.report.calendar import Days
    from harvest.report.measures import Measures


@attrs.frozen
class Instrument:
    """All that a page says of one venue and symbol. ``number`` is its place in the page."""

    number: int
    measures: Measures
    series: list[SeriesReport]
    #: For each date what was covered of the kind that was covered least.
    days: dict[int, float | None] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        """Look for the least covered kind of each date."""
        object.__setattr__(self, "days", self._least_by_day())

    @property
    def name(self) -> str:
        """What it is called in the page."""
        return f"{self.measures.symbol} {self.measures.venue}"

    @property
    def anchor(self) -> str:
        """The id of its section."""
        return f"i{self.number}"

    @property
    def missing(self) -> list[tuple[str, Missing]]:
        """What is missing, with the kind that lacks it."""
        return [(series.kind, one) for series in self.series for one in series.missing]

    def of_kind(self, kind: str) -> SeriesReport | None:
        """Return one kind of it, None where there is no such."""
        return next((series for series in self.series if series.kind == kind), None)

    def _least_by_day(self) -> dict[int, float | None]:
        least: dict[int, float | None] = {}
        for series in self.series:
            for one in series.days:
                value, known = calendar.worst(one), least.get(one.day)
                if known is None or (value is not None and value < known):
                    least[one.day] = value
        return least

    def intervals(self, kind: str) -> list[Interval]:
        """Return what is missing of a kind, as the timeline takes it."""
        return [Interval(one.from_ns, one.to_ns, one.why) for of, one in self.missing if of == kind]


def section(
    one: Instrument, axis: TimeAxis | None, days: Days | None, *, is_open: bool, is_brief: bool, max_gaps: int
) -> Html:
    """Write the section; of more than ``max_gaps`` gaps the unexplained and the longest are listed.

    ``is_brief`` leaves out what takes most room for what it says: bands, and latency over time.
    """
    gaps = len(one.missing)
    worst = min((series.coverage_s for series in one.series if series.coverage_s is not None), default=None)
    summary = element(
        "summary",
        element("h3", one.measures.symbol),
        element("small", one.measures.venue),
        element("span", f"{percent(worst)} covered · {counted(gaps, 'gap')}", class_="right"),
    )
    parts: list[Html | None] = [_kinds(one)]
    if days is not None:
        parts.append(_calendar(one, days))
    if axis is not None:
        parts += [_timeline(one, axis), _charts(one, axis, is_brief=is_brief)]
    parts += [_gaps(one, max_gaps), _breaks(one)]
    return element(
        "details",
        summary,
        element("div", *parts, class_="body"),
        id=one.anchor,
        class_="card instrument",
        open=is_open,
        data_name=one.name.lower(),
        data_gaps=gaps,
    )


def _kinds(one: Instrument) -> Html:
    rows = []
    for series in one.series:
        latency = series.latency
        late: Html | str = "–"
        if latency is not None:
            skew = f"clock skew: {count(latency.skewed)} rows negative" if latency.skewed else None
            quantiles = f"{latency.p50_ms:,.1f} / {latency.p99_ms:,.1f} / {latency.max_ms:,.1f}"
            late = joined(quantiles, skew and element("small", skew, class_="skew"))
        ids = "–" if series.first_id is None else f"{series.first_id} to {series.last_id}"
        links = series.coverage_links
        rows.append(
            (
                series.kind,
                count(series.rows),
                count(series.files),
                size(series.bytes),
                ids,
                percent(series.coverage_ids) if links is None else f"{percent(links)} of links",
                percent(series.coverage_s),
                count(len(series.missing)),
                count(series.duplicates),
                count(series.suspect_rows),
                late,
            )
        )
    heads = (
        *("kind", "rows", "files", "size", "ids", "ids covered", "time covered"),
        *("gaps", "duplicates", "suspect rows", "latency p50 / p99 / max, ms"),
    )
    return table(heads, rows, text_columns=1)


def _calendar(one: Instrument, days: Days) -> Html:
    # cvd is covered as prices are: one strip for all that are alike.
    alike: dict[tuple[tuple[int, float | None], ...], list[str]] = defaultdict(list)
    for series in one.series:
        covered = tuple((day.day, calendar.worst(day)) for day in series.days)
        # Of breaks, and of what else is no stream, there is nothing to cover.
        if any(value is not None for _, value in covered):
            alike[covered].append(series.kind)
    rows = [element("span"), calendar.labels(days)]
    for coverage, kinds in alike.items():
        name = ", ".join(kinds)
        rows += [element("span", name, class_="name"), calendar.strip(days, dict(coverage), name)]
    return element("section", element("h4", "Coverage by day"), element("div", *rows, class_="strips"))


def _timeline(one: Instrument, axis: TimeAxis) -> Html:
    measures = one.measures
    breaks = [Interval(each.from_ns, each.to_ns, each.reason) for each in measures.breaks]
    rows = [
        element("span", "trades", class_="name"),
        lane(axis, measures.trades.bounds_ns, one.intervals("prices"), "trades"),
        element("span", "depth", class_="name"),
        lane(axis, measures.diffs.bounds_ns, one.intervals("depth"), "depth"),
    ]
    if breaks:
        rows.append(element("span", "breaks", class_="name"))
        rows.append(lane(axis, None, breaks, "breaks", what="breaks"))
    rows += [element("span"), charts.time_labels(axis.ticks())]
    return element(
        "section",
        element("h4", "Timeline"),
        element("div", *rows, class_="lanes"),
        None
        if not breaks
        else element(
            "p",
            "Breaks that are no gap above left nothing missing: REST or another connection filled them, or nothing came.",
            class_="note",
        ),
    )


def _charts(one: Instrument, axis: TimeAxis, *, is_brief: bool) -> Html:
    measures = one.measures
    book, means = measures.book, measures.book.means()

    def of_book(name: str, role: str, column: int, *, band: bool = False) -> charts.Line:
        is_banded = band and not is_brief
        low = axis.spread(book.keys, book.least[:, column]) if is_banded else None
        high = axis.spread(book.keys, book.greatest[:, column]) if is_banded else None
        digits = 7 if column == MID else 3
        return charts.Line(name, role, axis.spread(book.keys, means[:, column]), low, high, digits)

    def lateness(name: str, role: str) -> charts.Line:
        buckets = measures.trades if role == "a" else measures.diffs
        late = buckets.means()[:, 0] if len(buckets.keys) else np.empty(0)
        return charts.Line(name, role, axis.spread(buckets.keys, late))

    levels = f"quote currency, {measures.levels} levels"
    drawn = [
        charts.over_time(
            "Rate",
            "messages a second",
            axis,
            [
                charts.Line("trades", "a", axis.rates(measures.trades)),
                charts.Line("diffs", "b", axis.rates(measures.diffs)),
            ],
        ),
        charts.over_time(
            "Mid price", "quote currency", axis, [of_book("mid", "a", MID, band=True)], from_zero=False
        ),
        charts.over_time(
            "Spread", "basis points of mid", axis, [of_book("spread", "a", SPREAD_BPS, band=True)]
        ),
        charts.over_time(
            "Depth", levels, axis, [of_book("bids", "a", BID_DEPTH), of_book("asks", "b", ASK_DEPTH)]
        ),
        charts.latencies(
            "Latency, event to receipt",
            (("trades", "a", measures.trade_latencies), ("diffs", "b", measures.diff_latencies)),
        ),
    ]
    if not is_brief:
        lines = [lateness("trades", "a"), lateness("diffs", "b")]
        drawn.append(charts.over_time("Latency over time", "ms, mean", axis, lines, is_log=True))
    return element("div", *drawn, class_="charts")


def _gaps(one: Instrument, max_gaps: int) -> Html | None:
    missing = one.missing
    if not missing:
        return None

    def weight(entry: tuple[str, Missing]) -> tuple[bool, int]:
        gap = entry[1]
        return gap.why != UNEXPLAINED, -((gap.to_ns or 0) - (gap.from_ns or 0))

    kept = sorted(missing, key=weight)[:max_gaps]
    kept.sort(key=lambda entry: (entry[0] != "prices", entry[1].from_id))
    rows = [
        (
            kind,
            reason_label(gap.why),
            f"{gap.from_id} to {gap.to_id}",
            count(gap.to_id - gap.from_id + 1) if kind == "prices" else "–",
            time(gap.from_ns),
            time(gap.to_ns),
            "–" if gap.from_ns is None or gap.to_ns is None else duration(gap.to_ns - gap.from_ns),
        )
        for kind, gap in kept
    ]
    left = len(missing) - len(kept)
    note = None
    if left:
        note = element("p", f"… and {count(left)} more: harvest verify --json names them all.", class_="note")
    heads = ("kind", "reason", "missing ids", "trades", "from", "to", "duration")
    shown = table(heads, rows, text_columns=3)
    return element("section", element("h4", f"What is missing ({count(len(missing))})"), shown, note)


def _breaks(one: Instrument) -> Html | None:
    counts = one.measures.break_counts
    if not counts:
        return None
    longest: dict[tuple[str, str], int] = defaultdict(int)
    for each in one.measures.breaks:
        key = each.feed, each.reason
        longest[key] = max(longest[key], each.duration_ns)
    rows = [
        (feed, reason_label(reason), count(number), duration(longest[feed, reason]))
        for (feed, reason), number in sorted(counts.items())
    ]
    shown = table(("feed", "reason", "times", "longest"), rows, text_columns=2)
    return element("section", element("h4", "Breaks and reconnects"), shown, class_="narrow")
