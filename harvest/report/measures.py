"""What a page shows of one instrument beyond what its verification says: one pass over its files, in bounded memory."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import attrs
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from harvest.report.buckets import Buckets
from harvest.report.histogram import BINS, counted
from harvest.storage.kinds import SOURCES, UNKNOWN, WS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from harvest.pipeline.verify.discovery import Series

    Ints = NDArray[np.int64]

#: Numbers of a row of the book, in their order in ``Measures.book``.
MID, SPREAD_BPS, BID_DEPTH, ASK_DEPTH = range(4)
#: Breaks of one instrument that are kept one by one; of more, the longest are.
MAX_BREAKS = 2_000
_BATCH_ROWS = 65_536


@attrs.frozen
class StreamBreak:
    """One row of ``breaks``. Ids and the beginning are None where unknown."""

    feed: str
    reason: str
    from_id: int | None
    to_id: int | None
    from_ns: int | None
    to_ns: int

    @property
    def duration_ns(self) -> int:
        """How long it lasted; 0 where nobody knows when it began."""
        return 0 if self.from_ns is None else max(self.to_ns - self.from_ns, 0)


@attrs.define
class Measures:
    """Everything by receive time. Trades and diffs are those that came over the stream."""

    venue: str
    symbol: str
    #: Latencies of trades in milliseconds are their one number.
    trades: Buckets = attrs.field(factory=lambda: Buckets(1))
    diffs: Buckets = attrs.field(factory=lambda: Buckets(1))
    #: Rows of ``orderbook`` that are not suspect: mid price, spread, and what both sides of the stored levels are worth.
    book: Buckets = attrs.field(factory=lambda: Buckets(4))
    levels: int = 0
    trade_latencies: Ints = attrs.field(factory=lambda: np.zeros(BINS, np.int64))
    diff_latencies: Ints = attrs.field(factory=lambda: np.zeros(BINS, np.int64))
    #: Rows by source, of ``prices``.
    trade_sources: Counter[str] = attrs.field(factory=Counter)
    breaks: list[StreamBreak] = attrs.field(factory=list)
    #: How many breaks there are of each feed and reason, those that are not in ``breaks`` too.
    break_counts: Counter[tuple[str, str]] = attrs.field(factory=Counter)
    #: Files that could not be read to the end: what is damaged is for the verification to say.
    unread: int = 0

    @property
    def buckets(self) -> tuple[Buckets, Buckets, Buckets]:
        """All that has a time."""
        return self.trades, self.diffs, self.book


def measure(series: Series) -> Measures:
    """Read the files of one instrument."""
    measures = Measures(series.venue, series.symbol)
    readers = {"prices": _trades, "depth": _diffs, "orderbook": _book, "breaks": _breaks}
    for kind, reader in readers.items():
        for file in series.kinds.get(kind, ()):
            try:
                with pq.ParquetFile(file.path) as opened:
                    reader(measures, opened)
            except (OSError, pa.ArrowException, LookupError):
                measures.unread += 1
        measures.breaks = _longest(measures.breaks)
    return measures


def _trades(measures: Measures, file: pq.ParquetFile) -> None:
    for batch in _batches(file, ("recv_ns", "event_time", "source")):
        sources = batch["source"]
        for name in SOURCES:
            count = pc.sum(pc.equal(sources, name)).as_py()
            if count:
                measures.trade_sources[name] += count
        live = pc.equal(sources, SOURCES[WS]).to_numpy(zero_copy_only=False)
        _arrived(batch, live, measures.trades, measures.trade_latencies)


def _diffs(measures: Measures, file: pq.ParquetFile) -> None:
    for batch in _batches(file, ("recv_ns", "event_time", "is_snapshot", "source")):
        live = pc.and_(pc.equal(batch["source"], SOURCES[WS]), pc.invert(batch["is_snapshot"]))
        _arrived(batch, live.to_numpy(zero_copy_only=False), measures.diffs, measures.diff_latencies)


def _arrived(batch: pa.RecordBatch, live: NDArray[np.bool_], buckets: Buckets, latencies: Ints) -> None:
    recv_ns, event_us = _ints(batch["recv_ns"])[live], _ints(batch["event_time"])[live]
    known = event_us != UNKNOWN
    late_ms = np.where(known, recv_ns // 1000 - event_us, 0) / 1000
    buckets.add(recv_ns, late_ms)
    latencies += counted(late_ms[known])


def _book(measures: Measures, file: pq.ParquetFile) -> None:
    levels = sum(name.startswith("bid_px_") for name in file.schema_arrow.names)
    measures.levels = max(measures.levels, levels)
    sides = [
        f"{side}_{what}_{level}"
        for side in ("bid", "ask")
        for what in ("px", "qty")
        for level in range(levels)
    ]
    for batch in _batches(file, ("recv_ns", "suspect", *sides)):
        bid, ask = (pc.fill_null(batch[f"{side}_px_0"], np.nan).to_numpy() for side in ("bid", "ask"))
        mid = (bid + ask) / 2
        with np.errstate(divide="ignore", invalid="ignore"):
            spread_bps = (ask - bid) / mid * 1e4
        worth = [_worth(batch, side, levels) for side in ("bid", "ask")]
        sound = ~batch["suspect"].to_numpy(zero_copy_only=False) & np.isfinite(spread_bps)
        numbers = [column[sound] for column in (mid, spread_bps, *worth)]
        measures.book.add(_ints(batch["recv_ns"])[sound], *numbers)


def _worth(batch: pa.RecordBatch, side: str, levels: int) -> NDArray[np.float64]:
    """Sum price times quantity over the levels of one side."""
    total = np.zeros(batch.num_rows)
    for level in range(levels):
        price = pc.fill_null(batch[f"{side}_px_{level}"], 0.0).to_numpy()
        total += np.nan_to_num(price * batch[f"{side}_qty_{level}"].to_numpy())
    return total


def _breaks(measures: Measures, file: pq.ParquetFile) -> None:
    names = ("feed", "reason", "from_id", "to_id", "from_ns", "to_ns")
    for batch in _batches(file, names):
        for values in zip(*(batch[name].to_pylist() for name in names), strict=True):
            one = StreamBreak(*values)
            measures.break_counts[one.feed, one.reason] += 1
            measures.breaks.append(one)
        if len(measures.breaks) > 2 * MAX_BREAKS:
            measures.breaks = _longest(measures.breaks)


def _longest(breaks: list[StreamBreak]) -> list[StreamBreak]:
    """Keep the longest, in the order of time."""
    kept = sorted(breaks, key=lambda one: -one.duration_ns)[:MAX_BREAKS]
    return sorted(kept, key=lambda one: (one.to_ns, one.feed, one.reason))


def _batches(file: pq.ParquetFile, columns: tuple[str, ...]) -> Iterator[pa.RecordBatch]:
    """Give the columns, a row group or less at a time.

    Raises:
        LookupError: the file lacks one of them.
    """
    if lacking := set(columns) - set(file.schema_arrow.names):
        raise LookupError(f"no column {', '.join(sorted(lacking))}")
    return file.iter_batches(batch_size=_BATCH_ROWS, columns=list(columns))  # type: ignore[no-any-return]


def _ints(column: pa.Array) -> Ints:
    if pa.types.is_timestamp(column.type):
        column = column.cast(pa.int64())
    numbers: Ints = pc.fill_null(column, UNKNOWN).to_numpy()
    return numbers
