"""What Binance's messages look like on the wire, under our names.

Decoding is lax, because numbers come as texts. That alone would let NaN, infinities and integers beyond 64 bits pass, so
every number has its bounds here.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import msgspec
from msgspec import Meta

from harvest.market import TRADE, UNKNOWN_TIME, IdSpace

Id = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Amount = Annotated[float, Meta(ge=0, le=1e100)]
WireLevel = tuple[Amount, Amount]
#: Milliseconds or microseconds; anything later than the year 2286 in either is no time.
WireTime = Annotated[int, Meta(ge=0, le=10**16)]


class AggTrade(
    msgspec.Struct,
    tag_field="e",
    tag="aggTrade",
    gc=False,
    rename={
        "event_time": "E",
        "trade_id": "a",
        "symbol": "s",
        "price": "p",
        "qty": "q",
        "trade_time": "T",
        "aggressor_sold": "m",
    },
):
    """Trades of one taker order at one price; on USD-M aggregated over 100 ms."""

    shape: ClassVar[Literal[0]] = TRADE
    id_space: ClassVar[IdSpace] = "aggregate"
    trade_type: ClassVar[None] = None
    symbol: str
    trade_id: Id
    price: Amount
    qty: Amount
    aggressor_sold: bool
    event_time: WireTime
    trade_time: WireTime


class RawTrade(
    msgspec.Struct,
    tag_field="e",
    tag="trade",
    gc=False,
    rename={
        "event_time": "E",
        "trade_id": "t",
        "symbol": "s",
        "price": "p",
        "qty": "q",
        "trade_time": "T",
        "aggressor_sold": "m",
        "trade_type": "X",
    },
):
    """One fill. ``trade_type`` is USD-M's alone, and not MARKET for insurance fund and ADL trades."""

    shape: ClassVar[Literal[0]] = TRADE
    id_space: ClassVar[IdSpace] = "raw"
    symbol: str
    trade_id: Id
    price: Amount
    qty: Amount
    aggressor_sold: bool
    event_time: WireTime
    trade_time: WireTime
    trade_type: str | None = None


class RestAggTrade(msgspec.Struct, gc=False):
    """One row of ``/aggTrades``: under our names, as the stream's are."""

    shape: ClassVar[Literal[0]] = TRADE
    id_space: ClassVar[IdSpace] = "aggregate"
    trade_type: ClassVar[None] = None
    trade_id: Id = msgspec.field(name="a")
    price: Amount = msgspec.field(name="p")
    qty: Amount = msgspec.field(name="q")
    trade_time: WireTime = msgspec.field(name="T")
    aggressor_sold: bool = msgspec.field(name="m")
    symbol: str = ""
    event_time: int = UNKNOWN_TIME


class RestTrade(msgspec.Struct, gc=False):
    """One row of ``/historicalTrades`` or ``/trades``. REST gives market trades alone."""

    shape: ClassVar[Literal[0]] = TRADE
    id_space: ClassVar[IdSpace] = "raw"
    trade_id: Id = msgspec.field(name="id")
    price: Amount
    qty: Amount
    trade_time: WireTime = msgspec.field(name="time")
    aggressor_sold: bool = msgspec.field(name="isBuyerMaker")
    symbol: str = ""
    event_time: int = UNKNOWN_TIME
    trade_type: str | None = None


class WireSnapshot(msgspec.Struct):
    """A REST depth snapshot; spot has neither time."""

    last_update_id: Id = msgspec.field(name="lastUpdateId")
    bids: list[WireLevel]
    asks: list[WireLevel]
    event_time: WireTime | None = msgspec.field(name="E", default=None)
    trade_time: WireTime | None = msgspec.field(name="T", default=None)


class Filter(msgspec.Struct):
    """One filter of an instrument; which fields it has depends on ``kind``."""

    kind: str = msgspec.field(name="filterType")
    tick_size: Amount | None = msgspec.field(name="tickSize", default=None)
    step_size: Amount | None = msgspec.field(name="stepSize", default=None)
    max_price: Amount | None = msgspec.field(name="maxPrice", default=None)
    max_qty: Amount | None = msgspec.field(name="maxQty", default=None)


class WireInstrument(msgspec.Struct):
    """One entry of exchangeInfo."""

    symbol: str
    status: str = ""
    filters: list[Filter] = []


class ExchangeInfo(msgspec.Struct):
    """The part of exchangeInfo that harvest reads."""

    symbols: list[WireInstrument]
