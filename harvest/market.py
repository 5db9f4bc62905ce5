"""The words of the market: what an instrument, a trade, a diff and a snapshot are, whatever the venue.

A venue's decoder gives structs that have these attributes (usually its own wire structs with renamed
fields, so that nothing is copied between the wire and the column buffer); the pipeline relies on nothing
else.
"""

from __future__ import annotations

from typing import ClassVar, Final, Literal, Protocol

import msgspec

Side = Literal["buy", "sell"]
Feed = Literal["trade", "orderbook"]
"""The two kinds of streams, whose connections and health are kept apart."""

IdSpace = Literal["aggregate", "raw"]
"""Aggregate and raw trade ids are different id spaces, that never meet in one series."""

#: How a decoded message says what it is, without an isinstance chain on the hot path.
TRADE: Final = 0
DIFF: Final = 1
CONTROL: Final = 2

#: The time of an event that the venue did not say.
UNKNOWN_TIME: Final = -1

#: A price level as sent: price, absolute quantity (0 removes the level).
Level = tuple[float, float]


class Instrument(msgspec.Struct, frozen=True):
    """What is traded: the venue, its symbol, and what its exchangeInfo says of it.

    ``tick_size`` and ``step_size`` are the smallest steps of price and quantity, None where unknown.
    ``float_exact`` says that float64 holds every price and quantity of it exactly
    (maximum / step < 1e15, from the venue's own filters).
    """

    venue: str
    symbol: str
    trading: bool = True
    tick_size: float | None = None
    step_size: float | None = None
    float_exact: bool = True


class Trade(Protocol):
    """One trade, as a decoder gives it. Times are in milliseconds (microseconds from 10**14 on).

    ``event_time`` is UNKNOWN_TIME for a trade that was fetched.

    ``aggressor_sold`` is the taker's side: on Binance ``m`` (the buyer was the maker).
    ``trade_type`` is None where the venue has none; anything but ``MARKET`` stays out of CVD.
    """

    shape: ClassVar[Literal[0]]
    id_space: ClassVar[IdSpace]
    symbol: str
    trade_id: int
    price: float
    qty: float
    aggressor_sold: bool
    event_time: int
    trade_time: int
    trade_type: str | None


class BookDiff(Protocol):
    """Absolute quantities of changed levels, as a decoder gives them.

    ``trade_time`` and ``prev_update_id`` are None where the venue has none (spot).
    """

    shape: ClassVar[Literal[1]]
    symbol: str
    first_update_id: int
    last_update_id: int
    prev_update_id: int | None
    bids: list[Level]
    asks: list[Level]
    event_time: int
    trade_time: int | None


class BookSnapshot(msgspec.Struct):
    """All levels of one instrument, best first. Times are None where the venue gives none (spot)."""

    last_update_id: int
    bids: list[Level]
    asks: list[Level]
    event_time: int | None = None
    trade_time: int | None = None


class StreamBreak(msgspec.Struct, frozen=True):
    """A known interval without coverage.

    ``from_id`` and ``to_id`` mean, for trades: both missing, both inclusive; for depth on spot: both
    exclusive; for depth on USD-M: the last stored ``u``, and the ``pu`` that did not match. None where unknown.
    ``from_ns`` and ``to_ns`` are our receive times, UTC nanoseconds, around it.
    """

    symbol: str
    feed: Feed
    reason: str
    from_id: int | None
    to_id: int | None
    from_ns: int | None
    to_ns: int
