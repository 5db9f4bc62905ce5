"""What a run or an ingest leaves behind, in a few lines: rows, gaps, files."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
from rich.table import Table

from harvest.market import CHANNELS

if TYPE_CHECKING:
    from collections import Counter

    from rich.console import Console

    from harvest.metrics import Metrics

#: Columns of the summary where there is no terminal.
WIDTH = 140
KINDS = ("prices", "depth", "orderbook", "ofi", "cvd", *CHANNELS, "breaks", "audits")


@attrs.frozen
class Summary:
    """The account of one run. ``rows`` counts what is in files, by kind and symbol."""

    run: str
    root: str
    venue: str
    seconds: float
    rows: Counter[tuple[str, str]]
    files: int
    bytes: int
    metrics: Metrics
    #: One line for each batch of rows that is in no file, if any.
    unwritten: list[str] = attrs.field(factory=list)

    def print(self, console: Console) -> None:
        """Print it for people."""
        if not console.is_terminal:
            # Nobody's window cuts a file: eighty columns would.
            console.width = max(console.width, WIDTH)
        metrics = self.metrics
        table = Table(title=f"{self.venue}: run {self.run}, {_duration(self.seconds)}", title_justify="left")
        table.add_column("symbol", no_wrap=True)
        stored = {kind for kind, _ in self.rows}
        kinds = [kind for kind in KINDS if kind not in CHANNELS or kind in stored]
        for kind in kinds:
            table.add_column(kind, justify="right")
        for heading in ("gaps", "missing ids", "duplicates"):
            table.add_column(heading, justify="right")
        every = [*metrics.feeds.values(), *metrics.former.values()]
        symbols = {symbol for _, symbol in self.rows} | {stats.symbol for stats in every}
        for symbol in sorted(symbols):
            feeds = [stats for stats in every if stats.symbol == symbol]
            table.add_row(
                symbol,
                *(f"{self.rows[kind, symbol]:,}" for kind in kinds),
                *(
                    f"{sum(getattr(f, name) for f in feeds):,}"
                    for name in ("gaps", "missing_ids", "duplicates")
                ),
            )
        console.print(table)
        console.print(
            f"{self.files:,} files, {self.bytes / 2**20:,.1f} MiB in {self.root}; {metrics.reconnects():,} reconnects",
            highlight=False,
            soft_wrap=True,
        )
        for line in self.oddities():
            console.print(line, highlight=False, soft_wrap=True, markup=False)
        for line in self.unwritten:
            console.print(f"NOT WRITTEN: {line}", highlight=False, soft_wrap=True, markup=False)

    def oddities(self) -> list[str]:
        """Name what was received and did not become rows."""
        metrics = self.metrics
        lines = []
        if metrics.malformed:
            lines.append(
                f"{metrics.malformed:,} malformed messages, kept in {self.root}/_quarantine/{self.run}.jsonl"
            )
        if metrics.audits["drift"]:
            lines.append(
                f"{metrics.audits['drift']:,} audits found that a book had drifted (kind audits says how)"
            )
        if metrics.overload_frames:
            lines.append(f"{metrics.overload_frames:,} messages lost to overload, recorded as breaks")
        lines += [
            f"{_names(counter)}: {what}"
            for counter, what in (
                (metrics.other_events, "not recorded"),
                (metrics.unknown_events, "unknown events, not recorded"),
                (metrics.unknown_symbols, "symbols that were not asked for"),
            )
            if counter
        ]
        return lines


def _names(counter: Counter[str]) -> str:
    shown = [f"{count:,} {name}" for name, count in counter.most_common(5)]
    return ", ".join(shown) + (", …" if len(counter) > 5 else "")


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f}s"
    hours, rest = divmod(round(seconds), 3600)
    return f"{hours}h{rest // 60:02}m{rest % 60:02}s"
