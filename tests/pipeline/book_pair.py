"""Two machines that are fed alike, one of which takes all diffs one by one; and a market whose diffs have every trouble."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any

import attrs
import msgspec
import numpy as np

from harvest.metrics import Metrics
from harvest.pipeline.checkpoint import decode_state
from harvest.pipeline.records import Frames
from harvest.pipeline.restoration import RestoredPipeline
from harvest.venues.binance_spot import BinanceSpot
from harvest.venues.binance_usdm import BinanceUsdm
from harvest.venues.blocks import join
from tests.pipeline.wire import diff, snapshot

if TYPE_CHECKING:
    import random
    from collections.abc import Iterable, Sequence

    from harvest.pipeline.records import Record
    from harvest.storage.tables import Sealed

SYMBOLS = ("BTCUSDT", "ETHUSDT", "XRPUSDT")


class OneByOneUsdm(BinanceUsdm):
    """Reads nothing in columns."""

    def decode_runs(self, lines: bytes) -> None:
        """Leave every block to be decoded otherwise."""


class OneByOneSpot(BinanceSpot):
    """Reads nothing in columns."""

    def decode_runs(self, lines: bytes) -> None:
        """Leave every block to be decoded otherwise."""


class Pair:
    """Takes each record twice; ``taken`` counts, by symbol, the diffs that were taken at once."""

    def __init__(
        self, *, spot: bool, levels: int = 10, max_rows: int = 10**6, symbols: Iterable[str] = SYMBOLS
    ) -> None:
        self.taken: Counter[str] = Counter()
        self._spot, self._levels, self._max_rows = spot, levels, max_rows
        self._symbols = set(symbols)
        self._machines = [self._machine(at_once=at_once) for at_once in (True, False)]
        self._sealed: list[list[Sealed]] = [[], []]
        for symbol in self._symbols:
            for machine in self._machines:
                machine._recorded.include(symbol)
                machine._recorded.add_book(symbol)
        self.seq, self.now_ns = 0, 0

    def feed(self, record: type[Record], *fields: Any) -> list[Any]:
        """Feed a record to both; returns what both tell of it."""
        self.seq += 1
        return self.take(record(self.seq, self.now_ns + self.seq * 1000, self.seq, *fields))

    def take(self, made: Record) -> list[Any]:
        """Feed a record that is made."""
        at_once, one_by_one = (machine.feed(made) for machine in self._machines)
        assert at_once == one_by_one
        return one_by_one.events

    def block(self, frames: Sequence[bytes], connection: str = "orderbook-0") -> list[Any]:
        """Feed messages in one piece."""
        return self.feed(Frames, connection, join(list(frames)))

    def book(self, symbol: str) -> Any:
        """Return the book that is followed at once."""
        return self._machines[0]._books[symbol]

    def agree(self) -> None:
        """See that both machines are in the same state, whatever decides rows, and whatever was counted."""
        metrics = [attrs.asdict(machine.metrics) for machine in self._machines]
        assert metrics[0] == metrics[1]
        for symbol in self._symbols:
            states = [_in_order(symbol, machine.checkpoint(symbol)) for machine in self._machines]
            assert states[0] == states[1]

    def agree_in_rows(self) -> None:
        """See that both have sealed the same tables, byte by byte."""
        sealed = []
        for machine, parts in zip(self._machines, self._sealed, strict=True):
            machine.tables.seal_all()
            parts += machine.tables.take_sealed()
            sealed.append(_bytes_of(parts))
        assert sealed[0] == sealed[1]

    def forget_before(self, day: int) -> None:
        """Let go of tables, in both."""
        for machine in self._machines:
            machine.forget_before(day)

    def restore(self) -> None:
        """Let new machines go on from checkpoints, each from its own."""
        for number, at_once in enumerate((True, False)):
            before = self._machines[number]
            before.tables.seal_all()
            self._sealed[number] += before.tables.take_sealed()
            after = self._machines[number] = self._machine(at_once=at_once)
            for symbol in self._symbols:
                after.restore(symbol, before.checkpoint(symbol))

    def _machine(self, *, at_once: bool) -> RestoredPipeline:
        venues = {True: (BinanceUsdm, BinanceSpot), False: (OneByOneUsdm, OneByOneSpot)}
        made = RestoredPipeline(
            venues[at_once][self._spot](),
            metrics=Metrics(),
            levels=self._levels,
            max_rows=self._max_rows,
            max_pending_diffs=20,
            resume_cvd=None,
            symbols=(),
            id_space="raw",
        )
        if at_once:
            made._recorded._make_book = self._counted(made._recorded._make_book)
        return made

    def _counted(self, make: Any) -> Any:
        def counted(symbol: str) -> Any:
            series = make(symbol)
            take_run = series.take_run

            def take(run: Any, *where: int) -> bool:
                is_taken = take_run(run, *where)
                self.taken[symbol] += run.size * is_taken
                return is_taken

            series.take_run = take
            return series

        return counted


def _in_order(symbol: str, checkpoint: bytes) -> str:
    """Return a checkpoint with the levels in order, for they are packed in none; as a text, for NaN equals nothing."""
    state = decode_state(symbol, checkpoint)
    book = state.book
    if book is None:
        return repr(state)
    sides = [
        sorted(zip(*np.frombuffer(side, "<f8").reshape(2, -1).tolist(), strict=True))
        for side in (book.bids, book.asks)
    ]
    return repr(
        (sides, msgspec.structs.replace(state, book=msgspec.structs.replace(book, bids=b"", asks=b"")))
    )


def _bytes_of(sealed: list[Sealed]) -> dict[Any, list[Any]]:
    found = defaultdict(list)
    for one in sealed:
        levels = () if one.levels is None else tuple(column.tobytes() for column in one.levels)
        found[one.kind.name, one.symbol, one.day].append(
            (one.count, one.first_seq, one.last_seq, bytes(one.packed()), one.marks.tolist(), levels)
        )
    return dict(found)


#: Quantities that not everything can say exactly, and one that is the last it can.
ODD_QUANTITIES = (22_517_998.136_852_47, 22_517_998.136_852_48, 30_000_000.0, 1e60, 1e-320, -0.0)


class Market:
    """The venue's side of one symbol. Unless ``is_exact``, some numbers are such that arrays cannot take them."""

    def __init__(self, symbol: str, chaos: random.Random, *, spot: bool, is_exact: bool = True) -> None:
        self.symbol, self._chaos, self._spot, self._is_exact = symbol, chaos, spot, is_exact
        self._update_id = 5_000_000
        self._reach = chaos.choice((3, 8, 40, 300))
        self._of_diff = chaos.choice((2, 6, 60))
        self._removed = chaos.choice((0.3, 0.7))
        count = chaos.choice((0, 2, self._reach))
        self._sides = tuple({self._price(sign, level): 1.0 for level in range(count)} for sign in (-1, 1))

    def diff(self, at_ms: int) -> bytes:
        """Make the next diff."""
        chaos, before = self._chaos, self._update_id
        first = before + (1 if self._spot else chaos.choice((-5, 1, 1, 7)))
        self._update_id = max(first, before + 1) + chaos.randrange(3)
        changes = [self._changes(sign, side) for sign, side in zip((-1, 1), self._sides, strict=True)]
        if not self._is_exact and chaos.random() < 0.02:
            at_ms *= 1000
        prev = None if self._spot else before - chaos.choice((0, 0, 0, 4))
        return diff(first, self._update_id, prev, *changes, symbol=self.symbol, at_ms=at_ms)

    def _changes(self, sign: int, side: dict[float, float]) -> list[tuple[float, float]]:
        chaos = self._chaos
        if chaos.random() < 0.01:
            # A side becomes empty.
            changes = [(price, 0.0) for price in side]
        else:
            changes = [
                (self._price(sign, chaos.randrange(-1, self._reach)), self._quantity())
                for _ in range(chaos.randrange(self._of_diff))
            ]
        if not self._is_exact and chaos.random() < 0.003:
            changes.append((chaos.choice((0.0, -0.0, 1e-320, 1e90)), 1.0))
        for price, qty in changes:
            side[price] = qty
            if not qty:
                del side[price]
        return changes

    def _price(self, sign: int, level: int) -> float:
        return round(1000.0 + sign * (level + 0.5) / 4, 3)

    def _quantity(self) -> float:
        chaos = self._chaos
        if chaos.random() < self._removed:
            return 0.0
        if not self._is_exact and chaos.random() < 0.001:
            return chaos.choice(ODD_QUANTITIES)
        return chaos.choice((0.5, 2.25, chaos.randrange(1, 10**6) / 1000))

    def snapshot(self, at_ms: int, *, is_wrong: bool = False) -> bytes:
        """Say what the book is now."""
        bids, asks = (list(side.items()) for side in self._sides)
        if is_wrong:
            asks.append((self._price(1, 1), 77.0))
        return snapshot(self._update_id, bids, asks, at_ms=None if self._spot else at_ms)
