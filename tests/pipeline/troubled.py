"""A run of two symbols over midnight with every trouble at once, as its records; and rows to hold against each other."""

from __future__ import annotations

import json
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import numpy as np

from harvest.metrics import Metrics
from harvest.pipeline.events import SnapshotWanted, TradesWanted
from harvest.pipeline.records import (
    AuditBegun,
    AuditBody,
    Checkpoint,
    Closed,
    Frames,
    Opened,
    Overload,
    Record,
    SnapshotBody,
    TradesBody,
    Unserved,
)
from harvest.pipeline.restoration import RestoredPipeline
from harvest.venues import VENUES
from tests.pipeline.wire import MIDNIGHT_MS, diff, snapshot, trade

if TYPE_CHECKING:
    import random
    from collections.abc import Iterable, Iterator

    from harvest.market import Feed
    from harvest.storage.tables import Sealed

SYMBOLS = ("BTCUSDT", "ETHUSDT")
FEEDS: tuple[Feed, ...] = ("trade", "orderbook")
LEVELS, MAX_PENDING, PATIENCE_S = 2, 6, 0.2


def machine(
    *, spot: bool = False, symbols: Iterable[str] = SYMBOLS, with_cvd: bool = False, max_rows: int = 10**6
) -> RestoredPipeline:
    """Make a machine as the run has it."""
    return RestoredPipeline(
        VENUES["binance-spot" if spot else "binance-usdm"],
        metrics=Metrics(),
        levels=LEVELS,
        max_rows=max_rows,
        max_pending_diffs=MAX_PENDING,
        resume_cvd=(lambda _symbol, _day: 0) if with_cvd else None,
        symbols=symbols,
        id_space="raw",
        patience_s=PATIENCE_S,
    )


class _Market:
    """The venue's side of one symbol."""

    def __init__(self, symbol: str, chaos: random.Random, *, spot: bool) -> None:
        self.symbol, self.chaos, self.spot = symbol, chaos, spot
        self.trade_id, self.update_id = 1000, 5000
        self.bids = {100.0 - level: 1.0 for level in range(chaos.randrange(6))}
        self.asks = {101.0 + level: 1.0 for level in range(chaos.randrange(6))}

    def next_trade(self, at_ms: int) -> bytes:
        chaos = self.chaos
        self.trade_id += 1
        kind = None if self.spot else chaos.choice(["MARKET"] * 5 + ["ADL"])
        return trade(
            self.trade_id,
            symbol=self.symbol,
            qty=chaos.randrange(1, 5000) / 1000,
            sold=chaos.random() < 0.5,
            at_ms=at_ms - chaos.choice((0, 0, 0, 400)),
            event_ms=at_ms,
            kind=kind,
        )

    def next_diff(self, at_ms: int) -> bytes:
        chaos, before = self.chaos, self.update_id
        first = before + 1 if self.spot else before + chaos.randrange(1, 4)
        self.update_id = first + chaos.randrange(3)
        changes = []
        for side, best, sign in ((self.bids, 100.0, -1), (self.asks, 101.0, 1)):
            levels = [
                (best + sign * chaos.randrange(6), chaos.choice((0.0, 0.5, 2.25)))
                for _ in range(chaos.randrange(3))
            ]
            for price, qty in levels:
                side[price] = qty
                if not qty:
                    del side[price]
            changes.append(levels)
        prev = None if self.spot else before
        return diff(first, self.update_id, prev, *changes, symbol=self.symbol, at_ms=at_ms)

    def snapshot(self, at_ms: int) -> bytes:
        sides = (list(self.bids.items()), list(self.asks.items()))
        return snapshot(self.update_id, *sides, at_ms=None if self.spot else at_ms)


class Troubled:
    """Makes ``records``, from chaos, by the run's own rules: what the machine wants, it gets, sooner or later or not at all.

    Up to two sockets a feed, which lose and delay; the first records are a checkpoint of each symbol.
    """

    def __init__(
        self, chaos: random.Random, ticks: int, *, spot: bool = False, checkpoint_share: float = 0.1
    ) -> None:
        self.records: list[Record] = []
        self._chaos = chaos
        self._pipeline = machine(spot=spot)
        self._at_ms = MIDNIGHT_MS - ticks * 50 + chaos.randrange(-1000, 1000)
        self._markets = {symbol: _Market(symbol, chaos, spot=spot) for symbol in SYMBOLS}
        self._sockets: dict[str, list[bytes]] = {}
        self._due: list[tuple[int, Any, bytes | None]] = []
        for symbol in SYMBOLS:
            self._checkpoint(symbol)
        for tick in range(ticks):
            self._tick(tick)
            if chaos.random() < checkpoint_share:
                self._checkpoint(chaos.choice(SYMBOLS))

    def _tick(self, tick: int) -> None:
        chaos = self._chaos
        self._at_ms += chaos.choice((20, 100, 100, 300))
        for feed in FEEDS:
            for number in range(2):
                self._maybe_connect(feed, f"{feed}-{number}")
        for market in self._markets.values():
            for feed in FEEDS:
                make = market.next_trade if feed == "trade" else market.next_diff
                for _ in range(chaos.randrange(3)):
                    message = make(self._at_ms)
                    for name, waiting in self._sockets.items():
                        if name.startswith(feed) and chaos.random() < 0.93:
                            waiting.append(message)
        for name, waiting in list(self._sockets.items()):
            if waiting and chaos.random() < 0.8:
                count = chaos.randrange(1, len(waiting) + 1)
                self._feed(Frames, name, waiting[:count])
                del waiting[:count]
        symbol = chaos.choice(SYMBOLS)
        if chaos.random() < 0.2:
            self._feed(AuditBegun, symbol)
        if chaos.random() < 0.2:
            taken = self._markets[symbol].snapshot(self._at_ms)
            self._feed(AuditBody, symbol, chaos.choice((taken, taken, taken, None)))
        for due in [due for due in self._due if due[0] <= tick]:
            self._due.remove(due)
            self._answer(due[1], due[2])
        wanted = [event for event in self._events if isinstance(event, SnapshotWanted | TradesWanted)]
        for event in wanted:
            # A snapshot may be older than what comes before it does.
            taken = self._markets[event.symbol].snapshot(self._at_ms) if chaos.random() < 0.7 else None
            self._due.append((tick + chaos.randrange(1, 8), event, taken))
        self._events.clear()

    def _maybe_connect(self, feed: Feed, name: str) -> None:
        if name not in self._sockets:
            if self._chaos.random() < 0.3:
                self._sockets[name] = []
                self._feed(Opened, name, feed, SYMBOLS)
        elif self._chaos.random() < 0.04:
            del self._sockets[name]
            self._feed(
                Closed,
                name,
                feed,
                SYMBOLS,
                self._chaos.choice(("stall", "disconnect", "own_stall", "handover")),
            )
        elif self._chaos.random() < 0.02:
            self._feed(Overload, name, feed, SYMBOLS, self._now_ns() - 10**6, 3)

    def _answer(self, event: SnapshotWanted | TradesWanted, taken: bytes | None) -> None:
        if isinstance(event, SnapshotWanted):
            if self._chaos.random() < 0.9:
                body = taken or self._markets[event.symbol].snapshot(self._at_ms)
                self._feed(SnapshotBody, event.symbol, body)
            else:
                self._feed(SnapshotBody, event.symbol, b'{"lastUpdateId": no')
            return
        ids = [trade_id for trade_id in range(event.from_id, event.to_id + 1) if self._chaos.random() < 0.7]
        page = [
            {"id": one, "price": "99.5", "qty": "0.125", "time": self._at_ms - 500, "isBuyerMaker": True}
            for one in ids
        ]
        self._feed(TradesBody, event.symbol, event.from_id, event.to_id, json.dumps(page).encode())
        if len(ids) <= event.to_id - event.from_id:
            self._feed(Unserved, event.symbol, event.from_id, event.to_id, "not_served")

    def _checkpoint(self, symbol: str) -> None:
        self._feed(Checkpoint, symbol, 1, 1, self._pipeline.checkpoint(symbol))

    _events: list[Any]

    def _feed(self, record: type[Record], *fields: Any) -> None:
        seq = len(self.records) + 1
        made: Record = record(seq, self._now_ns(), seq, *fields)
        self.records.append(made)
        self._events = [*getattr(self, "_events", ()), *self._pipeline.feed(made).events]

    def _now_ns(self) -> int:
        return (self._at_ms + 20) * 10**6 + len(self.records) * 1000


Key = tuple[str, str, int]


def rows_of(sealed: Iterable[Sealed]) -> dict[Key, list[tuple[Any, ...]]]:
    """Return all rows by directory, bit by bit: (seq, recv_ns, source, packed row, its levels)."""
    found: dict[Key, list[tuple[Any, ...]]] = defaultdict(list)
    for part in sealed:
        found[part.kind.name, part.symbol, part.day].extend(_rows(part))
    return dict(found)


def _rows(sealed: Sealed) -> Iterator[tuple[Any, ...]]:
    size, dtype = sealed.kind.dtype.itemsize, sealed.kind.dtype
    marks = [tuple(sealed.marks[at : at + 4]) for at in range(0, len(sealed.marks), 4)]
    ends = [*(mark[0] for mark in marks[1:]), sealed.count]
    bid_at = ask_at = 0
    packed = np.frombuffer(sealed.rows, dtype)
    for (start, *mark), end in zip(marks, ends, strict=True):
        for index in range(start, end):
            levels: tuple[Any, ...] = ()
            if sealed.levels is not None:
                bid_end, ask_end = (
                    bid_at + int(packed["n_bids"][index]),
                    ask_at + int(packed["n_asks"][index]),
                )
                bids, asks = slice(bid_at, bid_end), slice(ask_at, ask_end)
                levels = tuple(
                    tuple(column[side])
                    for column, side in zip(sealed.levels, (bids, bids, asks, asks), strict=True)
                )
                bid_at, ask_at = bid_end, ask_end
            yield (*mark, bytes(sealed.rows[index * size : (index + 1) * size]), *levels)
