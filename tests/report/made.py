"""Readings made by hand, as large as nobody would record for a test, and pages read back."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path

import numpy as np

from harvest.pipeline.verify.coverage import DayCoverage
from harvest.pipeline.verify.findings import Missing
from harvest.pipeline.verify.report import Report
from harvest.pipeline.verify.series import SeriesReport
from harvest.report import Reading
from harvest.report.buckets import DAY_NS
from harvest.report.histogram import counted
from harvest.report.measures import Measures, StreamBreak
from harvest.storage.kinds import REASONS
from tests.pipeline.wire import DAY

VOID = {"meta", "input"}


class Page(HTMLParser):
    """A page, parsed: its elements, its text, and what is not closed as it was opened."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.wrong: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        self.wrong += self._open

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag):
        if not self._open or self._open.pop() != tag:
            self.wrong.append(tag)

    def handle_data(self, data):
        if not self._open or self._open[-1] not in ("script", "style"):
            self.texts.append(data)

    def having(self, attribute: str) -> list[str]:
        """Return the values of an attribute, wherever it is."""
        return [attributes[attribute] or "" for _, attributes in self.elements if attribute in attributes]


def large(*, symbols: int, days: int, gaps: int) -> Reading:
    """Make a reading of noise, which nothing shortens: every day of every kind is covered differently."""
    chaos = np.random.default_rng(1)
    series, measures = [], []
    for number in range(symbols):
        symbol = f"COIN{number:03}USDT"
        for kind in ("depth", "orderbook", "ofi", "prices", "cvd"):
            if kind != "cvd":
                covered = chaos.uniform(80, 100, days)
            series.append(
                SeriesReport(
                    "binance-usdm", symbol, kind, 10**9, 0, 10**12, 2 * 10**12, 99.9, 99.9,
                    missing=_gaps(chaos, days, gaps) if kind in ("prices", "depth") else [],
                    days=[DayCoverage(DAY + day, 1000, float(covered[day]), None) for day in range(days)],
                )
            )  # fmt: skip
        one = Measures("binance-usdm", symbol, levels=5)
        at_ns = (DAY * DAY_NS + np.sort(chaos.integers(0, days * DAY_NS, 4000))).astype(np.int64)
        late_ms = chaos.lognormal(3, 2, len(at_ns))
        one.trades.add(at_ns, late_ms)
        one.diffs.add(at_ns, late_ms)
        one.book.add(at_ns, *(chaos.lognormal(scale, 1, len(at_ns)) for scale in (8, 0, 12, 12)))
        one.trade_latencies += counted(late_ms)
        one.diff_latencies += counted(late_ms - 5)
        one.breaks = [
            StreamBreak("trade", one.why, None, None, one.from_ns, one.to_ns or 0)
            for one in _gaps(chaos, days, gaps)
        ]
        measures.append(one)
    return Reading(Report(Path("data"), series, [], [], 1.0), measures)


def _gaps(chaos: np.random.Generator, days: int, gaps: int) -> list[Missing]:
    starts = DAY * DAY_NS + np.sort(chaos.integers(0, days * DAY_NS, gaps))
    return [
        Missing(10**12 + 10 * number, 10**12 + 10 * number + 3, start, start + 10**9, REASONS[number % 8])
        for number, start in enumerate(starts.tolist())
    ]
