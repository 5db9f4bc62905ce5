"""Blocks of Binance's trades, read by stencils: where nothing but trades stands in them, and many look alike."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec
import numpy as np

from harvest.market import TRADE_ROWS, TradeRun
from harvest.venues import blocks
from harvest.venues.binance_wire import AggTrade, RawTrade
from harvest.venues.stencil import cut

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from harvest.venues.stencil import Stencil

    Places = NDArray[np.intp]

WireTrade: TypeAlias = AggTrade | RawTrade
Owner: TypeAlias = tuple[str, type[WireTrade], str | None]
"""Whose trades they are: the symbol, which ids they have, and their type."""

#: Blocks of fewer bytes are decoded otherwise: to look at all of a block at once has its price too.
LEAST_BYTES = 48 * 1024
#: Trades that look alike from which on a stencil is laid on them.
LEAST_ALIKE = 24
#: Of the trades of a block, one in so many may be decoded alone.
ALONE = 6
#: After a block that could not be read so, this many are not looked at.
BLOCKS_PASSED = 32
#: Looks that are remembered of trades of one length.
LOOKS = 8
#: No trade is longer.
_MOST_BYTES = 1024
_RAW = f"V{TRADE_ROWS.itemsize}"

#: A flat event in its envelope, without escapes.
_VALUE = rb'"[^"\\]*"|[0-9]+|true|false|null'
_FIELDS = rb'"[A-Za-z]+":(?:%b)' % _VALUE
_EVENT = re.compile(rb'\{"stream":"[^"\\]*","data":\{(%b(?:,%b)*)\}\}' % (_FIELDS, _FIELDS))
_FIELD = re.compile(rb'"([A-Za-z]+)":(?:"([^"]*)"|([^",]*))')
_NUMBER = re.compile(rb"[0-9]+(?:\.[0-9]+)?")
#: What is a text, though it may look like a number.
_TEXTS = frozenset(("e", "s", "X"))


class Look:
    """How trades of one owner look: a stencil, and what it does not read."""

    def __init__(self, stencil: Stencil, trade: WireTrade) -> None:
        self.owner = owner_of(trade)
        self._stencil = stencil
        self._id = "a" if isinstance(trade, AggTrade) else "t"
        self._aggressor_sold = trade.aggressor_sold

    def read(self, block: bytes, starts: Places) -> tuple[NDArray[np.void], NDArray[np.bool_] | None]:
        """Return the rows of trades that begin at ``starts``, and which of them look like this: None if all do."""
        numbers, fits = self._stencil.lay(block, starts)
        rows = np.empty(len(starts), TRADE_ROWS)
        rows["event_time"] = numbers.integers("E")
        rows["trade_time"] = numbers.integers("T")
        rows["trade_id"] = numbers.integers(self._id)
        rows["price"] = numbers.decimals("p")
        rows["qty"] = numbers.decimals("q")
        rows["aggressor_sold"] = self._aggressor_sold
        rows["code"] = 0
        return rows, fits


def owner_of(trade: WireTrade) -> Owner:
    """Tell whose a trade is."""
    return trade.symbol, type(trade), trade.trade_type


def rows_of(trade: WireTrade) -> NDArray[np.void]:
    """Return the row of one trade."""
    values = (
        trade.event_time,
        trade.trade_time,
        trade.trade_id,
        trade.price,
        trade.qty,
        trade.aggressor_sold,
        0,
    )
    return np.array([values], TRADE_ROWS)


def look_of(text: bytes, trade: WireTrade) -> Look | None:
    """Return how a trade looks; None where it is written in a way that is not known."""
    event = _EVENT.fullmatch(text)
    if event is None:
        return None
    spans: dict[str, tuple[int, int]] = {}
    names: set[str] = set()
    for field in _FIELD.finditer(text, *event.span(1)):
        name, value = field[1].decode(), 2 if field[2] is not None else 3
        if name in names:
            return None
        names.add(name)
        if name not in _TEXTS and _NUMBER.fullmatch(field[value]):
            spans[name] = field.span(value)
    stencil = cut(text, spans)
    if stencil is None or not {"E", "T", "p", "q"} <= spans.keys() or not {"a", "t"} & spans.keys():
        return None
    look = Look(stencil, trade)
    rows, fits = look.read(text.ljust(stencil.reach), np.zeros(1, np.intp))
    # It must read from its own text what the decoder does.
    return look if fits is None and rows.tobytes() == rows_of(trade).tobytes() else None


class RunReader:
    """Reads blocks of trades; ``decode`` gives what the combined envelope of one message holds.

    It remembers how trades look, and for how long to leave blocks alone: nothing that decides what is read.
    """

    def __init__(self, decode: Callable[[bytes], Any]) -> None:
        self._decode = decode
        self._looks: dict[int, tuple[Look, ...]] = {}
        self._to_pass = 0

    def read(self, lines: bytes) -> list[TradeRun] | None:
        """Return the trades of a block in one piece, a run an owner; None where it is to be decoded otherwise."""
        if len(lines) < LEAST_BYTES:
            return None
        if self._to_pass:
            self._to_pass -= 1
            return None
        gathered = self._gather(lines)
        if gathered is None:
            self._to_pass = BLOCKS_PASSED
            return None
        return gathered.runs()

    def _gather(self, lines: bytes) -> _Gathered | None:
        starts, ends = blocks.bounds(lines)
        lengths = ends - starts
        if lengths.max() > _MOST_BYTES:
            return None
        # A stencil reaches beyond its text, and behind the last one there is nothing.
        lengths[-1] = 0
        gathered = _Gathered(len(starts))
        may_be_alone = max(len(starts) // ALONE, 1)
        for length in np.flatnonzero(np.bincount(lengths)).tolist():
            places = np.flatnonzero(lengths == length)
            for owner, those, rows in self._alike(lines, starts, length, places):
                gathered.add(owner, those, rows)
            left = gathered.missing(places)
            may_be_alone -= len(left)
            if may_be_alone < 0:
                return None
            for place in left.tolist():
                trade = self._decode_one(lines[starts[place] : ends[place]])
                if trade is None:
                    return None
                gathered.add(owner_of(trade), np.array([place]), rows_of(trade))
        return gathered

    def _alike(
        self, lines: bytes, starts: Places, length: int, places: Places
    ) -> Iterator[tuple[Owner, Places, NDArray[np.void]]]:
        """Read those of the texts of one length at ``places`` that look alike: whose they are, their places, their rows."""
        looks = list(self._looks.get(length, ()))
        learned = 0
        while len(places) >= LEAST_ALIKE:
            if not looks:
                look = self._learn(lines, int(starts[places[0]]), length) if learned < LOOKS else None
                if look is None:
                    return
                learned += 1
                looks.append(look)
            look = looks.pop(0)
            rows, fits = look.read(lines, starts[places])
            if fits is None:
                yield look.owner, places, rows
                return
            if fits.any():
                yield look.owner, places[fits], rows[fits]
                places = places[~fits]

    def _learn(self, lines: bytes, start: int, length: int) -> Look | None:
        text = lines[start : start + length]
        trade = self._decode_one(text)
        look = None if trade is None else look_of(text, trade)
        if look is not None:
            self._looks[length] = (look, *self._looks.get(length, ())[: LOOKS - 1])
        return look

    def _decode_one(self, text: bytes) -> WireTrade | None:
        try:
            found = self._decode(text).data
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None
        return found if isinstance(found, WireTrade) else None


class _Gathered:
    """The trades of a block, as they are found."""

    def __init__(self, count: int) -> None:
        self._rows = np.empty(count, TRADE_ROWS)
        self._owners: list[Owner] = []
        self._of = np.full(count, -1, np.int16)

    def add(self, owner: Owner, places: Places, rows: NDArray[np.void]) -> None:
        """Take the rows of the trades at ``places``."""
        if owner not in self._owners:
            self._owners.append(owner)
        # As plain bytes: field by field it would take seven times as long.
        self._rows.view(_RAW)[places] = rows.view(_RAW)
        self._of[places] = self._owners.index(owner)

    def missing(self, places: Places) -> Places:
        """Return those of ``places`` whose trades were not found yet."""
        return places[self._of[places] < 0]

    def runs(self) -> list[TradeRun]:
        """Return the trades of each owner in their order."""
        return [
            TradeRun(
                symbol,
                kind.id_space,
                trade_type,
                self._rows if len(self._owners) == 1 else self._rows[self._of == index],
            )
            for index, (symbol, kind, trade_type) in enumerate(self._owners)
        ]
