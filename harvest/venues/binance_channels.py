"""The messages of Binance's other channels on the wire, under our names: what is neither a trade nor a diff.

Source: https://developers.binance.com/docs (USD-M futures websocket market streams, spot web-socket-streams).
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import msgspec
from msgspec import Meta

from harvest.market import CHANNEL, Channel
from harvest.venues.binance_wire import Amount, Id, WireLevel, WireTime

#: A rate as text, empty for a contract that pays no funding; the text leaves no room for NaN or infinities.
RateText = Annotated[str, Meta(pattern=r"^(-?\d{1,9}(\.\d{1,18})?)?$")]

_BOOK_TICKER = {
    "update_id": "u",
    "symbol": "s",
    "bid_px": "b",
    "bid_qty": "B",
    "ask_px": "a",
    "ask_qty": "A",
}


class BookTicker(
    msgspec.Struct,
    tag_field="e",
    tag="bookTicker",
    gc=False,
    rename=_BOOK_TICKER | {"event_time": "E", "trade_time": "T"},
):
    """The best bid and ask of USD-M."""

    shape: ClassVar[Literal[3]] = CHANNEL
    feed: ClassVar[Channel] = "bbo"
    name: ClassVar[str] = "bookTicker"
    symbol: str
    update_id: Id
    bid_px: Amount
    bid_qty: Amount
    ask_px: Amount
    ask_qty: Amount
    event_time: WireTime
    trade_time: WireTime


class SpotBookTicker(msgspec.Struct, gc=False, rename=_BOOK_TICKER):
    """The best bid and ask of spot, which names no event and says no time."""

    shape: ClassVar[Literal[3]] = CHANNEL
    feed: ClassVar[Channel] = "bbo"
    name: ClassVar[str] = "bookTicker"
    event_time: ClassVar[None] = None
    trade_time: ClassVar[None] = None
    symbol: str
    update_id: Id
    bid_px: Amount
    bid_qty: Amount
    ask_px: Amount
    ask_qty: Amount


class MarkPriceUpdate(
    msgspec.Struct,
    tag_field="e",
    tag="markPriceUpdate",
    gc=False,
    rename={
        "event_time": "E",
        "symbol": "s",
        "mark_price": "p",
        "index_price": "i",
        "settle_price": "P",
        "average_price": "ap",
        "rate_text": "r",
        "funding_time": "T",
    },
):
    """Mark price and funding. A contract with a delivery date has an empty rate, and 0 as the time of its funding."""

    shape: ClassVar[Literal[3]] = CHANNEL
    feed: ClassVar[Channel] = "mark"
    name: ClassVar[str] = "markPriceUpdate"
    symbol: str
    event_time: WireTime
    mark_price: Amount
    index_price: Amount
    settle_price: Amount
    rate_text: RateText
    funding_time: WireTime
    average_price: Amount | None = None

    @property
    def funding_rate(self) -> float | None:
        """The rate, None where there is no funding."""
        return float(self.rate_text) if self.rate_text else None

    @property
    def next_funding_time(self) -> int | None:
        """When funding is paid next, None where it is not."""
        return self.funding_time or None


class LiquidationOrder(
    msgspec.Struct,
    gc=False,
    frozen=True,
    rename={
        "symbol": "s",
        "side": "S",
        "order_type": "o",
        "time_in_force": "f",
        "qty": "q",
        "price": "p",
        "average_price": "ap",
        "status": "X",
        "last_qty": "l",
        "filled_qty": "z",
        "trade_time": "T",
    },
):
    """The order within a ``forceOrder``."""

    symbol: str
    side: Literal["BUY", "SELL"]
    order_type: str
    time_in_force: str
    qty: Amount
    price: Amount
    average_price: Amount
    status: str
    last_qty: Amount
    filled_qty: Amount
    trade_time: WireTime


class ForceOrder(
    msgspec.Struct, tag_field="e", tag="forceOrder", gc=False, rename={"event_time": "E", "order": "o"}
):
    """A liquidation; the venue sends only the latest of a symbol and second."""

    shape: ClassVar[Literal[3]] = CHANNEL
    feed: ClassVar[Channel] = "liquidations"
    name: ClassVar[str] = "forceOrder"
    event_time: WireTime
    order: LiquidationOrder

    @property
    def symbol(self) -> str:
        """The symbol, which stands in the order."""
        return self.order.symbol


class SpotPartialDepth(msgspec.Struct):
    """The best levels of a spot book: no symbol, no time."""

    last_update_id: Id = msgspec.field(name="lastUpdateId")
    bids: list[WireLevel]
    asks: list[WireLevel]


class PartialDepth(msgspec.Struct):
    """The best levels of a book, from either market's message."""

    shape: ClassVar[Literal[3]] = CHANNEL
    feed: ClassVar[Channel] = "partial_depth"
    name: ClassVar[str] = "partial depth"
    symbol: str
    update_id: int
    bids: list[WireLevel]
    asks: list[WireLevel]
    event_time: int | None
    trade_time: int | None


class RestOpenInterest(
    msgspec.Struct, gc=False, rename={"open_interest": "openInterest", "event_time": "time"}
):
    """The body of ``/openInterest``."""

    shape: ClassVar[Literal[3]] = CHANNEL
    feed: ClassVar[Channel] = "open_interest"
    name: ClassVar[str] = "openInterest"
    symbol: str
    open_interest: Amount
    event_time: WireTime
