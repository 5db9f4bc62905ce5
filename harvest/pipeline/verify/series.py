"""Verifies one series (venue and symbol): all its kinds, each file read once. One call is one task of a process."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

import msgspec

from harvest.market import CHANNELS
from harvest.pipeline.verify import coverage
from harvest.pipeline.verify.channels import ChannelRows
from harvest.pipeline.verify.discovery import report_overlaps
from harvest.pipeline.verify.explain import Break
from harvest.pipeline.verify.findings import Damage, Findings, Missing, Uncovered
from harvest.pipeline.verify.latency import Latency
from harvest.pipeline.verify.orderbook import DERIVED, Orderbook
from harvest.pipeline.verify.quotes import QuoteAgreement
from harvest.pipeline.verify.reading import Reading
from harvest.pipeline.verify.replay import Drift
from harvest.pipeline.verify.rows import cut
from harvest.pipeline.verify.trades import Trades
from harvest.storage.kinds import UNKNOWN
from harvest.storage.parquet import SIMULATED_PREFIX
from harvest.venues import VENUES

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from harvest.pipeline.verify.discovery import Series
    from harvest.pipeline.verify.reading import Tally

#: Kinds that are told apart here; of others the files alone are verified.
KINDS = ("prices", "depth", "orderbook", "ofi", "cvd", *CHANNELS, "breaks", "audits")


class SeriesReport(msgspec.Struct):
    """What is known of one kind of one series.

    Percentages are None where they mean nothing: ids of USD-M depth are sparse, so their links are counted
    (``coverage_links``).
    """

    venue: str
    symbol: str
    kind: str
    rows: int
    duplicates: int
    first_id: int | None
    last_id: int | None
    coverage_ids: float | None
    coverage_s: float | None
    missing: list[Missing]
    coverage_links: float | None = None
    days: list[coverage.DayCoverage] = msgspec.field(default_factory=list)
    latency: Latency | None = None
    #: Rows of ``orderbook`` and ``ofi`` while the book was not in sync.
    suspect_rows: int = 0
    #: Tops of ``orderbook`` that were held against ``bbo``, and those of them that it does not agree with.
    tops_compared: int = 0
    tops_disagreeing: int = 0
    #: When nothing could come of a kind whose rows do not tell what came before (the channels).
    uncovered: list[Uncovered] = msgspec.field(default_factory=list)
    files: int = 0
    bytes: int = 0


class SeriesResult(msgspec.Struct):
    """All kinds of one series, what is damaged, and what is worth a warning."""

    reports: list[SeriesReport]
    damage: list[Damage]
    warnings: list[str]


def verify_series(root: Path, series: Series, on_bytes: Callable[[int], None]) -> SeriesResult:
    """Read all files of a series; ``on_bytes`` gets the size of each file that was read."""
    return _Verification(root, series, on_bytes).run()


class _Verification:
    def __init__(self, root: Path, series: Series, on_bytes: Callable[[int], None]) -> None:
        self._series = series
        self._findings = Findings(root, series.venue, series.symbol)
        self._reading = Reading(root, series, self._findings, on_bytes)
        self._reports: list[SeriesReport] = []
        #: Breaks of feeds whose messages have no ids that follow each other.
        self._broken: dict[str, list[Uncovered]] = {}

    def run(self) -> SeriesResult:
        series, findings = self._series, self._findings
        for files in series.kinds.values():
            report_overlaps(files, findings)
        breaks = self._read_breaks()
        self._verify_trades(breaks)
        self._verify_book(breaks, self._read_drifts())
        for channel in CHANNELS:
            if channel in series.kinds:
                self._verify_channel(channel)
        for kind in sorted(set(series.kinds) - set(KINDS)):
            findings.warn(
                f"{series.venue} {series.symbol}: of kind {kind} the files alone are verified", sort="kind"
            )
            self._read_all(kind)
            self._report(kind)
        for kind in ("breaks", "audits"):
            if kind in series.kinds:
                rows = self._reading.tallies[kind].rows_by_day
                self._report(kind).days = coverage.days(rows, None, {}, {})
        self._reading.report_unkept()
        findings.close()
        order = {kind: place for place, kind in enumerate(KINDS)}
        self._reports.sort(key=lambda report: (order.get(report.kind, len(order)), report.kind))
        return SeriesResult(self._reports, findings.damage, findings.warnings)

    def _read_breaks(self) -> list[Break]:
        found = []
        names = ("seq", "feed", "reason", "from_id", "to_id", "from_ns", "to_ns")
        for file in self._series.kinds.get("breaks", ()):
            for rows in self._reading.open(file).batches():
                for values in zip(*(rows[name].tolist() for name in names), strict=True):
                    seq, feed, reason, from_id, to_id, from_ns, to_ns = values
                    since_ns = None if from_ns == UNKNOWN else from_ns
                    if feed in CHANNELS:
                        self._broken.setdefault(feed, []).append(Uncovered(since_ns, to_ns, reason))
                    elif UNKNOWN not in (from_id, to_id):
                        found.append(Break(seq, feed, reason, from_id, to_id, since_ns, to_ns))
        return found

    def _read_drifts(self) -> dict[str, list[Drift]]:
        """Read the audits; returns those that found a drift, by run, in their order."""
        series, found = self._series, defaultdict(list)
        names = ("seq", "update_id", "bid_differing", "ask_differing", "max_drift")
        for file in series.kinds.get("audits", ()):
            for rows in self._reading.open(file).batches():
                drifted = cut(rows, rows["drifted"])
                for values in zip(*(drifted[name].tolist() for name in names), strict=True):
                    seq, update_id, bids, asks, max_drift = values
                    found[file.run].append(Drift(seq, update_id))
                    self._findings.warn(
                        f"{series.venue} {series.symbol}: an audit found that the book had drifted at update {update_id}: "
                        f"{bids + asks} levels differed, by {max_drift:g} at most",
                        sort="drift",
                    )
        return found

    def _verify_trades(self, breaks: list[Break]) -> None:
        kinds = self._series.kinds
        if not ("prices" in kinds or "cvd" in kinds):
            return
        trades = Trades(self._reading, self._findings)
        trades.read(kinds.get("prices", ()), kinds.get("cvd", ()))
        missing, bounds = trades.missing(breaks), trades.bounds
        rows = self._reading.tallies["prices"].rows_by_day
        counts = [(one, one.to_id - one.from_id + 1) for one in missing]
        by_day: list[coverage.DayCoverage] = []
        coverage_ids = coverage_s = None
        if bounds is not None:
            span = bounds[1] - bounds[0] + 1
            coverage_ids = coverage.percent(span - sum(count for _, count in counts), span)
            lacking, time = coverage.uncovered(missing), {}
            if trades.time_bounds is not None:
                coverage_s = coverage.seconds(trades.time_bounds, lacking)
                time = coverage.seconds_by_day(trades.time_bounds, lacking)
            by_day = coverage.days(rows, rows, coverage.missing_by_day(counts), time)
        duplicates = trades.duplicates()
        for kind in ("prices", "cvd"):
            if kind not in kinds:
                continue
            is_source = kind == "prices"
            report = self._report(kind)
            report.first_id, report.last_id = bounds if bounds is not None else (None, None)
            report.coverage_ids, report.coverage_s = coverage_ids, coverage_s
            report.days = by_day if is_source else self._with_rows_of("cvd", by_day)
            report.duplicates = duplicates if is_source else trades.cvd_duplicates
            if is_source:
                report.missing = missing
                report.latency = trades.latencies.summary()

    def _verify_book(self, breaks: list[Break], drifts: Mapping[str, list[Drift]]) -> None:
        series, kinds = self._series, self._series.kinds
        here = [kind for kind in ("depth", *DERIVED) if kind in kinds]
        if not here:
            return
        venue = VENUES.get(series.venue.removeprefix(SIMULATED_PREFIX))
        if venue is None:
            self._findings.warn(
                f"{series.venue}: its rule for depth is not known, so {', '.join(here)} of {series.symbol} are read "
                "but not followed",
                sort="venue",
            )
            for kind in here:
                self._read_all(kind)
                self._report(kind)
            return
        book = Orderbook(
            venue,
            series.symbol,
            self._reading,
            self._findings,
            breaks,
            drifts,
        )
        book.read(kinds)
        if "depth" in kinds:
            self._report_depth(book, is_sparse=venue.depth_rule == "usdm")
        for kind in DERIVED:
            if kind in kinds:
                self._report_derived(kind, book, is_sparse=venue.depth_rule == "usdm")

    def _report_depth(self, book: Orderbook, *, is_sparse: bool) -> None:
        missing = book.missing()
        counts = [(one, 1 if is_sparse else one.to_id - one.from_id - 1) for one in missing]
        report = self._report("depth")
        report.missing, report.duplicates = missing, book.duplicates["depth"]
        report.latency = book.latencies.summary()
        time: dict[int, float] = {}
        if book.bounds is not None:
            report.first_id, report.last_id = book.bounds
            lost = sum(count for _, count in counts)
            if is_sparse:
                links = sum(book.stored_by_day.values())
                report.coverage_links = coverage.percent(links, links + lost)
            else:
                span = book.bounds[1] - book.bounds[0] + 1
                report.coverage_ids = coverage.percent(span - lost, span)
        if book.time_bounds is not None:
            lacking = coverage.uncovered(missing)
            report.coverage_s = coverage.seconds(book.time_bounds, lacking)
            time = coverage.seconds_by_day(book.time_bounds, lacking)
        stored = None if is_sparse else book.stored_by_day
        rows = self._reading.tallies["depth"].rows_by_day
        report.days = coverage.days(rows, stored, coverage.missing_by_day(counts), time)

    def _report_derived(self, kind: str, book: Orderbook, *, is_sparse: bool) -> None:
        report, stretches = self._report(kind), book.stretches[kind]
        report.duplicates = book.duplicates[kind]
        report.suspect_rows = stretches.suspect_rows
        if stretches.id_bounds is None or stretches.time_bounds is None:
            return
        report.first_id, report.last_id = first, last = stretches.id_bounds
        if not is_sparse:
            report.coverage_ids = coverage.percent(
                coverage.length(coverage.merged(stretches.ids), (first, last)), last - first
            )
        lacking = coverage.between(stretches.times, stretches.time_bounds)
        report.coverage_s = coverage.seconds(stretches.time_bounds, lacking)
        time = coverage.seconds_by_day(stretches.time_bounds, lacking)
        report.days = coverage.days(self._reading.tallies[kind].rows_by_day, None, {}, time)

    def _verify_channel(self, kind: str) -> None:
        files, broken = self._series.kinds[kind], self._broken.get(kind, [])
        channel = ChannelRows(kind, self._reading, self._findings)
        tops = self._series.kinds.get("orderbook", ())
        agreement = QuoteAgreement(tops, self._reading.runs, broken)
        if kind == "bbo":
            channel.read(files, follow=agreement.follow)
            if agreement.disagreeing:
                self._findings.warn(
                    f"{self._series.venue} {self._series.symbol}: {agreement.disagreeing:,} of {agreement.compared:,} tops "
                    "of orderbook are not what bbo says",
                    sort="bbo",
                )
        else:
            channel.read(files)
        report = self._report(kind)
        report.duplicates, report.latency = channel.duplicates, channel.latencies.summary()
        report.tops_compared, report.tops_disagreeing = agreement.compared, agreement.disagreeing
        report.uncovered = channel.uncovered(broken)
        if channel.bounds is not None:
            report.first_id, report.last_id = channel.bounds
        if channel.time_bounds is not None:
            lacking = coverage.uncovered(report.uncovered)
            report.coverage_s = coverage.seconds(channel.time_bounds, lacking)
            time = coverage.seconds_by_day(channel.time_bounds, lacking)
            report.days = coverage.days(self._reading.tallies[kind].rows_by_day, None, {}, time)

    def _read_all(self, kind: str) -> None:
        for file in self._series.kinds[kind]:
            for _ in self._reading.open(file).batches():
                pass

    def _with_rows_of(self, kind: str, days: list[coverage.DayCoverage]) -> list[coverage.DayCoverage]:
        rows = self._reading.tallies[kind].rows_by_day
        return [msgspec.structs.replace(one, rows=rows.get(one.day, 0)) for one in days]

    def _report(self, kind: str) -> SeriesReport:
        tally: Tally = self._reading.tallies[kind]
        report = SeriesReport(
            self._series.venue,
            self._series.symbol,
            kind,
            tally.rows,
            duplicates=0,
            first_id=None,
            last_id=None,
            coverage_ids=None,
            coverage_s=None,
            missing=[],
            files=tally.files,
            bytes=tally.bytes,
        )
        self._reports.append(report)
        return report
