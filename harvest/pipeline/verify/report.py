"""What a verification says: for machines, for people, and as an exit code."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import groupby
from typing import TYPE_CHECKING, Any

import attrs
import msgspec
from rich.table import Table

from harvest.pipeline.summary import WIDTH
from harvest.pipeline.verify.findings import UNEXPLAINED
from harvest.storage.layout import date_text

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Console

    from harvest.pipeline.verify.coverage import DayCoverage
    from harvest.pipeline.verify.findings import Damage, Missing, Uncovered
    from harvest.pipeline.verify.series import SeriesReport

EXIT_COMPLETE, EXIT_EXPLAINED, EXIT_DAMAGED = 0, 1, 3
#: Gaps, findings and warnings that are shown to people; the JSON holds all.
SHOWN = 40

_JSON_FIELDS = ("venue", "symbol", "kind", "rows", "duplicates", "first_id", "last_id")


@attrs.frozen
class Report:
    """The whole verification. ``series`` is in the order of venue, symbol and kind."""

    root: Path
    series: list[SeriesReport]
    damage: list[Damage]
    warnings: list[str]
    seconds: float

    @property
    def missing(self) -> list[tuple[SeriesReport, Missing]]:
        """All intervals that are missing, with the series that lacks them."""
        return [(series, one) for series in self.series for one in series.missing]

    @property
    def uncovered(self) -> list[tuple[SeriesReport, Uncovered]]:
        """All times in which nothing could come of a channel, with the series."""
        return [(series, one) for series in self.series for one in series.uncovered]

    @property
    def unexplained(self) -> int:
        """The number of intervals of which nobody knows why."""
        return sum(one.why == UNEXPLAINED for _, one in self.missing)

    @property
    def exit_code(self) -> int:
        """0: complete; 1: something is missing, and it is known why; 3: unexplained gaps, or damage."""
        if self.damage or self.unexplained:
            return EXIT_DAMAGED
        return EXIT_EXPLAINED if self.missing or self.uncovered else EXIT_COMPLETE

    @property
    def complete(self) -> bool:
        """Whether nothing is missing and nothing is damaged."""
        return self.exit_code == EXIT_COMPLETE

    @property
    def rows(self) -> int:
        """Rows that were read."""
        return sum(series.rows for series in self.series)

    def to_json(self) -> dict[str, Any]:
        """Return it for machines, in the shape that ``docs/verify.md`` shows."""
        return {
            "complete": self.complete,
            "exit": self.exit_code,
            "series": [
                {name: getattr(series, name) for name in _JSON_FIELDS}
                | {
                    "coverage_ids": series.coverage_ids,
                    "coverage_s": series.coverage_s,
                    "missing": msgspec.to_builtins(series.missing),
                    "uncovered": msgspec.to_builtins(series.uncovered),
                }
                for series in self.series
            ],
            "damage": msgspec.to_builtins(self.damage),
        }

    def render(self, console: Console) -> None:
        """Print it for people."""
        if not console.is_terminal:
            # Nobody's window cuts a line: eighty columns would.
            console.width = max(console.width, WIDTH)
        console.print(self._coverage())
        if any(series.latency for series in self.series):
            console.print(self._latencies())
        missing = [_missing_line(series, one) for series, one in self.missing]
        _print_some(console, "missing", missing)
        _print_some(console, "not covered", [_uncovered_line(series, one) for series, one in self.uncovered])
        _print_some(console, "DAMAGE", [_damage_line(one) for one in self.damage])
        _print_some(console, "warnings", self.warnings)
        console.print(self.verdict, highlight=False, soft_wrap=True, markup=False)

    @property
    def judgement(self) -> str:
        """Say it in one line that depends on the data alone."""
        gaps = len(self.missing) + len(self.uncovered)
        if self.exit_code == EXIT_COMPLETE:
            return "COMPLETE: nothing is missing, nothing is damaged"
        if self.exit_code == EXIT_EXPLAINED:
            reasons = "1 gap, with its reason" if gaps == 1 else f"{gaps:,} gaps, all with their reasons"
            return f"EXPLAINED: {reasons}; nothing is damaged"
        return f"NOT PROVEN: {self.unexplained:,} of {gaps:,} gaps are unexplained, {len(self.damage):,} findings of damage"

    @property
    def verdict(self) -> str:
        """Say it in one line, and how much was read for it."""
        files = sum(series.files for series in self.series)
        size = sum(series.bytes for series in self.series) / 2**20
        read = f"{self.rows:,} rows in {files:,} files ({size:,.1f} MiB) read in {self.seconds:.1f}s"
        return f"{self.judgement}; {read}"

    def _coverage(self) -> Table:
        table = Table(title=f"{self.root}", title_justify="left")
        for heading in ("venue", "symbol", "kind", "date"):
            table.add_column(heading, no_wrap=True)
        for heading in ("rows", "ids %", "seconds %", "missing", "duplicates", "suspect"):
            table.add_column(heading, justify="right", no_wrap=True)
        for series in self.series:
            names = (series.venue, series.symbol, series.kind)
            table.add_row(
                *names,
                "all",
                f"{series.rows:,}",
                _ids_text(series),
                _percent(series.coverage_s),
                f"{len(series.missing):,}",
                f"{series.duplicates:,}",
                f"{series.suspect_rows:,}",
                style="bold",
            )
            for dates, rows, one in _alike(series.days):
                row = (dates, f"{rows:,}", _percent(one.coverage_ids), _percent(one.coverage_s))
                table.add_row("", "", "", *row, "", "", "")
        return table

    def _latencies(self) -> Table:
        table = Table(title="event to receipt, milliseconds", title_justify="left")
        for heading in ("venue", "symbol", "kind"):
            table.add_column(heading, no_wrap=True)
        for heading in ("p50", "p99", "max", "clock skew"):
            table.add_column(heading, justify="right", no_wrap=True)
        for series in self.series:
            one = series.latency
            if one is not None:
                skew = f"{one.skewed:,} rows, down to {one.min_ms:,.1f}" if one.skewed else ""
                names = (series.venue, series.symbol, series.kind)
                table.add_row(*names, f"{one.p50_ms:,.1f}", f"{one.p99_ms:,.1f}", f"{one.max_ms:,.1f}", skew)
        return table


def _alike(days: list[DayCoverage]) -> list[tuple[str, int, DayCoverage]]:
    """Put dates that follow each other and are covered alike into one line: text, rows, one of them."""
    lines = []
    numbered = enumerate(days)
    for _, group in groupby(numbered, lambda it: (it[1].day - it[0], it[1].coverage_ids, it[1].coverage_s)):
        some = [one for _, one in group]
        dates = date_text(some[0].day)
        if len(some) > 1:
            dates += f" … {date_text(some[-1].day)}"
        lines.append((dates, sum(one.rows for one in some), some[0]))
    return lines


def _ids_text(series: SeriesReport) -> str:
    if series.coverage_links is not None:
        return f"{_percent(series.coverage_links)} of links"
    return _percent(series.coverage_ids)


def _percent(value: float | None) -> str:
    if value is None:
        return "-"
    if value == 100.0:
        return "100"
    # What is not all never looks like it.
    return f"{min(value, 99.9999):.4f}"


def _missing_line(series: SeriesReport, one: Missing) -> str:
    when = f"{_time(one.from_ns)} to {_time(one.to_ns)}"
    return f"{series.venue} {series.symbol} {series.kind}: {one.from_id} to {one.to_id}, {one.why}, {when}"


def _uncovered_line(series: SeriesReport, one: Uncovered) -> str:
    when = f"{_time(one.from_ns)} to {_time(one.to_ns)}"
    return f"{series.venue} {series.symbol} {series.kind}: {one.why}, {when}"


def _damage_line(one: Damage) -> str:
    words = [word for word in (one.venue, one.symbol, one.kind) if word is not None]
    where = one.path if one.path is not None else " ".join(words)
    rows = "" if one.rows is None else f", {one.rows:,} rows"
    ids = "" if one.from_id is None else f", ids {one.from_id} to {one.to_id}"
    return f"{one.what}: {where}: {one.detail}{rows}{ids}"


def _time(at_ns: int | None) -> str:
    if at_ns is None:
        return "?"
    seconds, rest_ns = divmod(at_ns, 10**9)
    try:
        return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest_ns // 10**6:03}Z"
    except (ValueError, OverflowError, OSError):
        return f"{at_ns} ns"


def _print_some(console: Console, title: str, lines: list[str]) -> None:
    if not lines:
        return
    console.print(f"\n{title} ({len(lines):,})", highlight=False)
    for line in lines[:SHOWN]:
        console.print(f"  {line}", highlight=False, soft_wrap=True, markup=False)
    if len(lines) > SHOWN:
        console.print(f"  … and {len(lines) - SHOWN:,} more", highlight=False)
    console.print()
