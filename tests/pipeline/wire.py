"""A venue's messages, made by hand, and a pipeline to feed with them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harvest.metrics import Metrics
from harvest.pipeline.machine import Pipeline
from harvest.pipeline.records import AuditBegun, AuditBody, Closed, Frames, Overload, SnapshotBody
from harvest.venues import VENUES
from tests.storage.rows import expected_rows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harvest.pipeline.events import Outcome
    from harvest.storage.tables import Sealed

PAYLOADS = Path(__file__).resolve().parents[1] / "payloads"
#: 2024-07-18, as days since 1970, and its last second, in milliseconds.
DAY = 19_922
MIDNIGHT_MS = (DAY + 1) * 86_400_000
T0_MS = MIDNIGHT_MS - 3_600_000
Levels = list[tuple[float, float]]


def payload(venue: str, name: str) -> bytes:
    """Return a captured message."""
    return (PAYLOADS / venue.replace("-", "_") / f"{name}.json").read_bytes().strip()


def trade(
    trade_id: int,
    *,
    symbol: str = "BTCUSDT",
    event: str = "trade",
    price: float = 100.0,
    qty: float = 1.0,
    sold: bool = False,
    at_ms: int = T0_MS,
    event_ms: int | None = None,
    kind: str | None = "MARKET",
) -> bytes:
    """Make a trade message; ``kind`` is USD-M's X, None leaves it out."""
    data = {
        "e": event,
        "E": at_ms if event_ms is None else event_ms,
        "T": at_ms,
        "s": symbol,
        "a" if event == "aggTrade" else "t": trade_id,
        "p": repr(price),
        "q": repr(qty),
        "m": sold,
    }
    if kind is not None and event == "trade":
        data["X"] = kind
    return _frame({"stream": f"{symbol.lower()}@{event}", "data": data})


def diff(
    first: int,
    last: int,
    prev: int | None = None,
    bids: Sequence[tuple[float, float]] = (),
    asks: Sequence[tuple[float, float]] = (),
    *,
    symbol: str = "BTCUSDT",
    at_ms: int = T0_MS,
) -> bytes:
    """Make a depth diff: of USD-M with ``prev``, of spot without."""
    data: dict[str, Any] = {"e": "depthUpdate", "E": at_ms, "s": symbol, "U": first, "u": last}
    if prev is not None:
        data |= {"T": at_ms - 1, "pu": prev}
    data |= {"b": _texts(bids), "a": _texts(asks)}
    return _frame({"stream": f"{symbol.lower()}@depth@100ms", "data": data})


def snapshot(
    last: int,
    bids: Sequence[tuple[float, float]] = (),
    asks: Sequence[tuple[float, float]] = (),
    *,
    at_ms: int | None = None,
) -> bytes:
    """Make the body of a depth snapshot; USD-M's has a time."""
    body: dict[str, Any] = {"lastUpdateId": last}
    if at_ms is not None:
        body |= {"E": at_ms, "T": at_ms}
    return _frame(body | {"bids": _texts(bids), "asks": _texts(asks)})


def _frame(message: dict[str, Any]) -> bytes:
    return json.dumps(message, ensure_ascii=False, separators=(",", ":")).encode()


def _texts(levels: Sequence[tuple[float, float]]) -> list[list[str]]:
    return [[repr(price), repr(qty)] for price, qty in levels]


class Harness:
    """A pipeline, the next ``seq``, a clock that goes on by a millisecond a record, and all rows so far."""

    def __init__(
        self,
        venue: str = "binance-usdm",
        *,
        symbols: Sequence[str] | None = ("BTCUSDT",),
        levels: int = 2,
        max_rows: int = 10**6,
        max_pending_diffs: int = 100,
        stored_cvd: dict[tuple[str, int], int] | None = None,
        channels: Sequence[Any] = (),
    ) -> None:
        self.metrics = Metrics()
        self.pipeline = Pipeline(
            VENUES[venue],
            metrics=self.metrics,
            levels=levels,
            max_rows=max_rows,
            max_pending_diffs=max_pending_diffs,
            resume_cvd=lambda symbol, day: (stored_cvd or {}).get((symbol, day), 0),
            symbols=symbols,
            channels=channels,
        )
        self.seq = 0
        self.recv_ns = T0_MS * 10**6
        self.sealed: list[Sealed] = []

    def frames(self, *frames: bytes, connection: str = "trade-1") -> Outcome:
        """Feed one block."""
        self._tick()
        return self.pipeline.feed(Frames(self.seq, self.recv_ns, self.seq, connection, list(frames)))

    def each(self, frames: Sequence[bytes]) -> list[Outcome]:
        """Feed each frame as a block of its own."""
        return [self.frames(frame) for frame in frames]

    def body(self, body: bytes, symbol: str = "BTCUSDT") -> Outcome:
        """Feed a snapshot's body."""
        self._tick()
        return self.pipeline.feed(SnapshotBody(self.seq, self.recv_ns, self.seq, symbol, body))

    def begin_audit(self, symbol: str = "BTCUSDT") -> Outcome:
        """Feed the beginning of an audit."""
        self._tick()
        return self.pipeline.feed(AuditBegun(self.seq, self.recv_ns, self.seq, symbol))

    def audit(self, body: bytes | None, symbol: str = "BTCUSDT") -> Outcome:
        """Feed the snapshot of an audit, or that there is none."""
        self._tick()
        return self.pipeline.feed(AuditBody(self.seq, self.recv_ns, self.seq, symbol, body))

    def closed(self, feed: Any, reason: str, symbols: tuple[str, ...] = ("BTCUSDT",)) -> Outcome:
        """Feed the end of a connection."""
        self._tick()
        return self.pipeline.feed(
            Closed(self.seq, self.recv_ns, self.seq, f"{feed}-1", feed, symbols, reason)
        )

    def overload(self, feed: Any, symbols: tuple[str, ...] = ("BTCUSDT",)) -> Outcome:
        """Feed a loss for want of memory."""
        self._tick()
        record = Overload(self.seq, self.recv_ns, self.seq, f"{feed}-1", feed, symbols, self.recv_ns - 1, 3)
        return self.pipeline.feed(record)

    def rows(self, kind: str, symbol: str = "BTCUSDT", day: int | None = None) -> list[dict[str, Any]]:
        """Seal everything, and return all rows of a kind so far: of one date, or of all, oldest first."""
        self.pipeline.tables.seal_all()
        self.sealed += self.pipeline.tables.take_sealed()
        found = [part for part in self.sealed if (part.kind.name, part.symbol) == (kind, symbol)]
        found.sort(key=lambda part: part.day)
        return [row for part in found if day in (None, part.day) for row in expected_rows(part)]

    def column(self, kind: str, name: str, **where: Any) -> list[Any]:
        """Return one column of ``rows``."""
        return [row[name] for row in self.rows(kind, **where)]

    def _tick(self) -> None:
        self.seq += 1
        self.recv_ns += 10**6
