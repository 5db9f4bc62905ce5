"""Blocks of Binance's trades, read by stencils: where nothing but trades stands in them, and many look alike."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec
import numpy as np

from harvest.market import TRADE_ROWS, TradeRun
from harvest.venues import blocks
from harvest.venues.binance_events import EVENT_WITHIN, number_spans, symbol_keys
from harvest.venues.binance_wire import AggTrade, RawTrade
from harvest.venues.looks import Looks, Trials
from harvest.venues.stencil import cut

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from harvest.venues.looks import Places
    from harvest.venues.stencil import Numbers, Stencil

WireTrade: TypeAlias = AggTrade | RawTrade
Owner: TypeAlias = tuple[str, type[WireTrade], str | None]
"""Whose trades they are: the symbol, which ids they have, and their type."""

#: Blocks of fewer bytes are decoded otherwise: to look at all of a block at once has its price too.
LEAST_BYTES = 48 * 1024
#: Trades have to look alike in such numbers for a stencil, and in such on the average.
LEAST_ALIKE, MEAN_ALIKE = 64, 160
#: Of the trades of a block, one in so many may be decoded alone.
ALONE = 6
#: No trade is longer.
_MOST_BYTES = 1024
#: Times of so many digits are times, whatever these are.
_TIME_DIGITS = 16
_RAW = f"V{TRADE_ROWS.itemsize}"


class TradeLook:
    """How trades of one owner look: a stencil, and what it does not read."""

    def __init__(self, stencil: Stencil, trade: WireTrade) -> None:
        self.stencil = stencil
        self.owner = owner_of(trade)
        self._id = id_of(trade)
        self._aggressor_sold = trade.aggressor_sold

    def rows(self, numbers: Numbers) -> NDArray[np.void]:
        """Return the rows of trades that look like this."""
        price = numbers.decimals("p")
        rows = np.empty(len(price), TRADE_ROWS)
        rows["event_time"] = numbers.integers("E")
        rows["trade_time"] = numbers.integers("T")
        rows["trade_id"] = numbers.integers(self._id)
        rows["price"] = price
        rows["qty"] = numbers.decimals("q")
        rows["aggressor_sold"] = self._aggressor_sold
        rows["code"] = 0
        return rows


def owner_of(trade: WireTrade) -> Owner:
    """Tell whose a trade is."""
    return trade.symbol, type(trade), trade.trade_type


def id_of(trade: WireTrade) -> str:
    """Name the field of its id."""
    return "a" if isinstance(trade, AggTrade) else "t"


def row_of(trade: WireTrade) -> NDArray[np.void]:
    """Return the row of one trade, in an array."""
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


def look_of(text: bytes, trade: WireTrade) -> TradeLook | None:
    """Return how a trade looks; None where it is written in a way that is not known."""
    spans = number_spans(text)
    whole = ("E", "T", id_of(trade))
    if spans is None or not {*whole, "p", "q"} <= spans.keys():
        return None
    # The decoder takes 5.0 for an integer too, and not 5.5; and a time only up to a bound.
    if not all(text[slice(*spans[name])].isdigit() for name in whole):
        return None
    if any(end - begin > _TIME_DIGITS for begin, end in (spans["E"], spans["T"])):
        return None
    stencil = cut(text, spans)
    if stencil is None:
        return None
    look = TradeLook(stencil, trade)
    numbers = stencil.read(text)
    # It must read from its own text what the decoder does.
    is_right = numbers is not None and look.rows(numbers).tobytes() == row_of(trade).tobytes()
    return look if is_right else None


class RunReader:
    """Reads blocks of trades; ``decode`` gives what the combined envelope of one message holds.

    It remembers how trades look, and for how long to leave blocks alone: nothing that decides what is read.
    """

    def __init__(self, decode: Callable[[bytes], Any]) -> None:
        self._decode = decode
        self._looks: Looks[TradeLook] = Looks(self._learn, least=LEAST_ALIKE, mean=MEAN_ALIKE, alone=ALONE)
        self._trials = Trials()

    def read(self, lines: bytes) -> list[TradeRun] | None:
        """Return the trades of a block in one piece, a run an owner; None where it is to be decoded otherwise."""
        if (
            len(lines) < LEAST_BYTES
            or lines.find(b'rade","E":', 0, EVENT_WITHIN) < 0
            or not self._trials.may()
        ):
            return None
        gathered = self._gather(lines)
        runs = None if gathered is None else gathered.runs()
        self._trials.ended(well=runs is not None)
        return runs

    def _gather(self, lines: bytes) -> _Gathered | None:
        starts, ends = blocks.bounds(lines)
        if (ends - starts).max() > _MOST_BYTES:
            return None
        # A stencil reaches beyond its text, and behind the last one there is nothing: it is decoded alone, before all others, so
        # that what stands behind these is a trade, and long enough.
        last = self._decode_one(lines[starts[-1] :])
        if last is None:
            return None
        others = starts[:-1]
        found = self._looks.find(lines, others, ends[:-1] - others, symbol_keys(lines, others))
        if found is None:
            return None
        gathered = _Gathered(len(starts))
        for look, places, numbers in found[0]:
            gathered.add(look.owner, places, look.rows(numbers))
        gathered.add(owner_of(last), np.array([len(others)]), row_of(last))
        for place in found[1]:
            trade = self._decode_one(lines[starts[place] : ends[place]])
            if trade is None:
                return None
            gathered.add(owner_of(trade), np.array([place]), row_of(trade))
        return gathered

    def _learn(self, text: bytes) -> TradeLook | None:
        trade = self._decode_one(text)
        return None if trade is None else look_of(text, trade)

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
        self._owners: dict[Owner, int] = {}
        self._of = np.empty(count, np.int16)

    def add(self, owner: Owner, places: Places, rows: NDArray[np.void]) -> None:
        """Take the rows of the trades at ``places``."""
        # As plain bytes: field by field it would take seven times as long.
        self._rows.view(_RAW)[places] = rows.view(_RAW)
        self._of[places] = self._owners.setdefault(owner, len(self._owners))

    def runs(self) -> list[TradeRun] | None:
        """Return the trades of each owner in their order, the owner whose first one stands first before the others.

        None where there are several of one symbol: what is stored of the one depends on the other.
        """
        if len(self._owners) == 1:
            ((symbol, kind, trade_type),) = self._owners
            return [TradeRun(symbol, kind.id_space, trade_type, self._rows)]
        if len({symbol for symbol, _, _ in self._owners}) < len(self._owners):
            return None
        theirs = [(self._of == index, owner) for owner, index in self._owners.items()]
        theirs.sort(key=lambda those: int(those[0].argmax()))
        return [
            TradeRun(symbol, kind.id_space, trade_type, self._rows[those])
            for those, (symbol, kind, trade_type) in theirs
        ]
