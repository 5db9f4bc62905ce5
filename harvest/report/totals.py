"""All instruments together: rates, latencies, rows by kind, gaps and breaks by reason."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING

import numpy as np

from harvest.pipeline.verify.findings import UNEXPLAINED
from harvest.report import charts
from harvest.report.buckets import Buckets
from harvest.report.histogram import BINS
from harvest.report.lanes import reason_label
from harvest.report.markup import Html, element
from harvest.report.tables import table
from harvest.report.texts import count, size

if TYPE_CHECKING:
    from harvest.pipeline.verify import Report
    from harvest.report.axis import TimeAxis
    from harvest.report.instrument import Instrument


def totals(report: Report, instruments: list[Instrument], axis: TimeAxis | None) -> Html:
    """Write the totals."""
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
        element("section", element("h4", "Breaks and reconnects"), _breaks(instruments)),
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


def _breaks(instruments: list[Instrument]) -> Html:
    """Write how often each feed of all instruments broke, and why."""
    totals: dict[tuple[str, str], int] = defaultdict(int)
    for one in instruments:
        for key, number in one.measures.break_counts.items():
            totals[key] += number
    if not totals:
        return element("p", "No stream broke.", class_="none")
    rows = [(feed, reason_label(reason), count(number)) for (feed, reason), number in sorted(totals.items())]
    return table(("feed", "reason", "times"), rows, text_columns=2)
