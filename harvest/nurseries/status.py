"""How a run stands at this moment: what waits where, how old each feed is, what the disk says. Reads, and changes nothing."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from harvest.nurseries.rotation import FeedAges

if TYPE_CHECKING:
    from harvest.market import Feed
    from harvest.metrics import Metrics
    from harvest.nurseries.journaling import Journaling
    from harvest.nurseries.rotation import Rotation
    from harvest.nurseries.upkeep import Upkeep
    from harvest.nurseries.writer import Writer
    from harvest.storage.tables import Tables


def feed_ages(metrics: Metrics, symbol: str) -> FeedAges:
    """Return how long ago each feed of ``symbol`` brought something, by the monotonic clock."""
    now_ns = time.monotonic_ns()

    def age_s(feed: Feed) -> float | None:
        # Rows of a symbol that is watched no more may still wait.
        stats = metrics.feeds.get((feed, symbol))
        return None if stats is None or stats.last_mono_ns is None else (now_ns - stats.last_mono_ns) / 1e9

    return FeedAges(age_s("trade"), age_s("orderbook"), metrics.reconnects(symbol))


class Status:
    """The facts of one run, for whoever shows them or bounds them."""

    def __init__(
        self,
        *,
        metrics: Metrics,
        tables: Tables,
        writer: Writer,
        rotation: Rotation,
        upkeep: Upkeep,
        journaling: Journaling | None = None,
    ) -> None:
        self.metrics = metrics
        self._tables = tables
        self._writer = writer
        self._rotation = rotation
        self._upkeep = upkeep
        self._journaling = journaling

    def buffered_bytes(self) -> int:
        """Return the memory of everything that is not in a file yet."""
        journalled = 0 if self._journaling is None else self._journaling.held_bytes
        return (
            self._tables.size_bytes + self._rotation.overflow_bytes + self._writer.waiting_bytes + journalled
        )

    def uncommitted_seq(self) -> int | None:
        """Return the first ``seq`` whose rows are not all in files, None if all are."""
        waiting = self._rotation.unwritten() + self._writer.unwritten()
        return min(
            (seq for seq in (self._tables.first_seq, *(one.first_seq for one in waiting)) if seq is not None),
            default=None,
        )

    def buffered_rows(self) -> dict[str, dict[str, int]]:
        """Return the rows that wait to be sealed, by symbol and kind."""
        rows: dict[str, dict[str, int]] = {}
        for table in self._tables:
            of_symbol = rows.setdefault(table.symbol, {})
            of_symbol[table.kind.name] = of_symbol.get(table.kind.name, 0) + table.count
        return rows

    def lines(self) -> list[str]:
        """Return the mode, the writer and the disk, for people."""
        pending, stats, extreme = self._writer.pending(), self._writer.stats, self._rotation.extreme
        mode = "EXTREME" if extreme.active else "NORMAL"
        flushed = "none yet"
        if stats.last_done_s is not None and stats.last_path is not None:
            flushed = f"{time.monotonic() - stats.last_done_s:.0f}s ago"
        lines = [
            f"mode {mode}, rotating every {extreme.interval_s:g}s   last flush: {flushed}   files: {stats.files:,} "
            f"({stats.bytes / 2**20:,.1f} MiB)   waiting: {pending.tables} tables",
            f"in memory: {self.buffered_bytes() / 2**20:,.1f} MiB   free disk: {self._upkeep.free_text}   "
            f"Ctrl-C ends the run",
        ]
        audits = self.metrics.audits
        if audits:
            lines.append(
                f"audits of books: {audits['in_sync']:,} in sync, {audits['drift']:,} drifted, "
                f"{audits['abandoned']:,} abandoned"
            )
        if pending.failing:
            lines.append(f"CANNOT WRITE: {pending.last_error}; {pending.failing} tables wait")
        if self._journaling is not None and (trouble := self._journaling.trouble):
            lines.append(f"JOURNAL: {trouble}")
        return lines
