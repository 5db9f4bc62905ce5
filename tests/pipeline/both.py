"""Two machines that are fed the same: the one takes trades in columns where it can, the other one takes nothing so."""

from __future__ import annotations

from operator import attrgetter
from typing import TYPE_CHECKING, Any

import attrs

from harvest.metrics import FeedStats, Metrics
from harvest.pipeline.records import Frames
from harvest.pipeline.restoration import RestoredPipeline
from harvest.venues import VENUES
from harvest.venues.blocks import join
from tests.pipeline.troubled import LEVELS, MAX_PENDING, PATIENCE_S
from tests.pipeline.wire import T0_MS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harvest.pipeline.records import Record

SYMBOLS = ("BTCUSDT", "1000PEPEUSDT", "牛来USDT")
_STATS = attrgetter(*(one.name for one in attrs.fields(FeedStats)))
_COUNTS = attrgetter(*(one.name for one in attrs.fields(Metrics) if one.name not in ("feeds", "former")))


class Observed:
    """A venue that tells how many blocks were taken in columns: after those nothing else is asked."""

    def __init__(self, name: str, *, in_columns: bool) -> None:
        self._venue, self._in_columns = VENUES[name], in_columns
        self.taken = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._venue, name)

    def decode_runs(self, lines: bytes) -> Any:
        runs = self._venue.decode_runs(lines) if self._in_columns else None
        self.taken += runs is not None
        self._is_taken = runs is not None
        return runs

    def decode_lines(self, lines: bytes) -> Any:
        self.taken -= self._is_taken
        return self._venue.decode_lines(lines)


class Side:
    """A machine, and all that has come of it."""

    def __init__(
        self,
        venue: str,
        *,
        in_columns: bool,
        symbols: Sequence[str] | None = SYMBOLS,
        id_space: Any = "raw",
        max_rows: int = 10**6,
    ) -> None:
        self.venue = Observed(venue, in_columns=in_columns)
        self.metrics = Metrics()
        self.pipeline = RestoredPipeline(
            self.venue,  # type: ignore[arg-type]
            metrics=self.metrics,
            levels=LEVELS,
            max_rows=max_rows,
            max_pending_diffs=MAX_PENDING,
            resume_cvd=lambda _symbol, _day: 0,
            symbols=symbols,
            id_space=id_space,
            patience_s=PATIENCE_S,
        )

    def feed(self, record: Record) -> tuple[Any, ...]:
        """Feed a record; returns all that can be seen after it."""
        outcome = self.pipeline.feed(record)
        states = [self.pipeline.checkpoint(symbol) for symbol in SYMBOLS]
        feeds = {key: _STATS(stats) for key, stats in self.metrics.feeds.items()}
        return outcome, self.pipeline.id_space, states, feeds, _COUNTS(self.metrics), self.sealed()

    def sealed(self) -> list[tuple[Any, ...]]:
        """Return what was sealed, in its order, byte by byte."""
        return [
            (
                part.kind.name,
                part.symbol,
                part.day,
                part.count,
                part.first_seq,
                part.last_seq,
                bytes(part.packed()),
                part.marks.tolist(),
                part.levels,
            )
            for part in self.pipeline.tables.take_sealed()
        ]

    def end(self) -> list[tuple[Any, ...]]:
        """Seal all that waits, and return it."""
        self.pipeline.tables.seal_all()
        return self.sealed()


class Both:
    """Two machines that are fed the same: the one takes what it can in columns, and the other one nothing."""

    def __init__(self, venue: str = "binance-usdm", **settings: Any) -> None:
        self.one, self.other = (
            Side(venue, in_columns=in_columns, **settings) for in_columns in (True, False)
        )
        self.seq, self.recv_ns = 0, T0_MS * 10**6

    def feed(self, kind: type[Record], *fields: Any, after_ms: int = 1) -> Any:
        """Feed a record to both; what can be seen is the same. Returns the outcome."""
        self.seq += 1
        self.recv_ns += after_ms * 10**6
        made = (kind(self.seq, self.recv_ns, self.seq, *fields) for _ in range(2))
        seen, expected = (
            side.feed(record) for side, record in zip((self.one, self.other), made, strict=True)
        )
        assert seen == expected
        return seen[0]

    def block(self, texts: Sequence[bytes], connection: str = "trade-0", after_ms: int = 1) -> bool:
        """Feed a block in one piece; returns whether it was taken in columns."""
        taken, frames = self.one.venue.taken, join(list(texts))
        assert isinstance(frames, bytes)
        self.feed(Frames, connection, frames, after_ms=after_ms)
        assert self.other.venue.taken == 0
        return self.one.venue.taken > taken

    def end(self) -> None:
        """Hold all rows against each other."""
        rows = self.one.end()
        assert rows
        assert rows == self.other.end()
