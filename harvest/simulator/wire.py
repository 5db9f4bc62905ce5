"""The venue's messages as text, with the letters and the order of the real ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from harvest.simulator.clock import EPOCH_NS
from harvest.simulator.random_book import STEP_NS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from harvest.simulator.listing import Listed
    from harvest.simulator.random_book import Change, Levels
    from harvest.simulator.random_trades import Fill, Order


@attrs.frozen
class Message:
    """One message of a stream; its event time (and, on spot, its trade time) are filled in for a connection.

    ``pattern`` takes as many integers as there are times: on spot ``E`` is stamped per connection, and
    either may be wanted in microseconds. ``stream_id`` is the id that the message brings the stream to.
    """

    pattern: bytes
    stream_id: int
    event_time_us: int | None
    trade_time_us: int | None = None

    def text(self, *, late_us: int = 0, micro: bool = False) -> bytes:
        """Give the message, its event time ``late_us`` later; times in microseconds where ``micro``."""
        if self.event_time_us is None:
            return self.pattern % ()
        unit = 1 if micro else 1000
        event_time = (self.event_time_us + late_us) // unit
        if self.trade_time_us is None:
            return self.pattern % (event_time,)
        return self.pattern % (event_time, self.trade_time_us // unit)


def step_time_us(step: int) -> int:
    """Give the instant of a step, UTC microseconds."""
    return (EPOCH_NS + step * STEP_NS) // 1000


def _bool(value: bool) -> str:
    return "true" if value else "false"


def _pairs(listed: Listed, levels: Iterable[tuple[int, int]]) -> str:
    price, qty = listed.price, listed.qty
    return ",".join([f'["{price(tick)}","{qty(steps)}"]' for tick, steps in levels])


def trade(listed: Listed, fill: Fill, event_time_us: int, *, futures: bool) -> Message:
    """Write a raw trade."""
    body = f'"t":{fill.trade_id},"p":"{listed.price(fill.tick)}","q":"{listed.qty(fill.qty)}"'
    maker = _bool(fill.buyer_was_maker)
    if futures:
        text = (
            f'{{"e":"trade","E":%d,"T":{fill.time_ms},"s":"{listed.symbol}",{body},'
            f'"X":"{fill.trade_type}","m":{maker},"st":1}}'
        )
        return Message(text.encode(), fill.trade_id, event_time_us)
    text = f'{{"e":"trade","E":%d,"s":"{listed.symbol}",{body},"T":%d,"m":{maker},"M":true}}'
    return Message(text.encode(), fill.trade_id, event_time_us, fill.time_ms * 1000)


def agg_trade(listed: Listed, order: Order, event_time_us: int, *, futures: bool) -> Message:
    """Write an aggregate trade."""
    price, qty = listed.price(order.tick), listed.qty(order.qty)
    maker = _bool(order.buyer_was_maker)
    ids = f'"f":{order.first_trade_id},"l":{order.last_trade_id}'
    head = f'{{"e":"aggTrade","E":%d,"s":"{listed.symbol}","a":{order.order_id},"p":"{price}","q":"{qty}"'
    if futures:
        text = f'{head},"nq":"{qty}",{ids},"T":{order.time_ms},"m":{maker},"st":1}}'
        return Message(text.encode(), order.order_id, event_time_us)
    text = f'{head},{ids},"T":%d,"m":{maker},"M":true}}'
    return Message(text.encode(), order.order_id, event_time_us, order.time_ms * 1000)


def depth_update(listed: Listed, change: Change, step: int, event_time_us: int, *, futures: bool) -> Message:
    """Write a diff: absolute quantities of exactly the changed levels, each side by rising price."""
    symbol = listed.symbol
    levels = (
        f'"b":[{_pairs(listed, sorted(change.bids.items()))}],'
        f'"a":[{_pairs(listed, sorted(change.asks.items()))}]'
    )
    ids = f'"U":{change.first_id},"u":{change.last_id}'
    if futures:
        text = (
            f'{{"e":"depthUpdate","E":%d,"T":{step_time_us(step) // 1000},"s":"{symbol}",'
            f'"ps":"{symbol}",{ids},"pu":{change.prev_id},{levels},"st":1}}'
        )
    else:
        text = f'{{"e":"depthUpdate","E":%d,"s":"{symbol}",{ids},{levels}}}'
    return Message(text.encode(), change.last_id, event_time_us)


def partial_depth(
    listed: Listed,
    change: Change,
    book: tuple[Levels, Levels],
    levels: int,
    step: int,
    event_time_us: int,
    *,
    futures: bool,
) -> Message:
    """Write the best ``levels`` of both sides, best first."""
    bids = _pairs(listed, list(book[0].items())[:levels])
    asks = _pairs(listed, list(book[1].items())[:levels])
    if not futures:
        text = f'{{"lastUpdateId":{change.last_id},"bids":[{bids}],"asks":[{asks}]}}'
        return Message(text.encode(), change.last_id, None)
    symbol = listed.symbol
    text = (
        f'{{"e":"depthUpdate","E":%d,"T":{step_time_us(step) // 1000},"s":"{symbol}","ps":"{symbol}",'
        f'"U":{change.first_id},"u":{change.last_id},"pu":{change.prev_id},"b":[{bids}],"a":[{asks}],"st":1}}'
    )
    return Message(text.encode(), change.last_id, event_time_us)


def book_ticker(
    listed: Listed,
    update_id: int,
    book: tuple[Levels, Levels],
    step: int,
    event_time_us: int,
    *,
    futures: bool,
) -> Message:
    """Write the best level of both sides."""
    (bid, bid_qty), (ask, ask_qty) = next(iter(book[0].items())), next(iter(book[1].items()))
    best = (
        f'"b":"{listed.price(bid)}","B":"{listed.qty(bid_qty)}",'
        f'"a":"{listed.price(ask)}","A":"{listed.qty(ask_qty)}"'
    )
    symbol = listed.symbol
    if not futures:
        text = f'{{"u":{update_id},"s":"{symbol}",{best}}}'
        return Message(text.encode(), update_id, None)
    text = (
        f'{{"e":"bookTicker","u":{update_id},"s":"{symbol}","ps":"{symbol}",{best},'
        f'"T":{step_time_us(step) // 1000},"E":%d,"st":1}}'
    )
    return Message(text.encode(), update_id, event_time_us)


def mark_price(listed: Listed, mark: MarkPrice, event_time_us: int) -> Message:
    """Write a mark price with its funding rate."""
    text = (
        f'{{"e":"markPriceUpdate","E":%d,"s":"{listed.symbol}","p":"{mark.mark}","ap":"{mark.mark}",'
        f'"P":"{mark.index}","i":"{mark.index}","r":"{mark.funding_rate}","T":{mark.next_funding_ms},"st":1}}'
    )
    return Message(text.encode(), event_time_us // 1000, event_time_us)


def force_order(listed: Listed, liquidation: Liquidation, event_time_us: int) -> Message:
    """Write a liquidation."""
    side = "SELL" if liquidation.sold else "BUY"
    price, qty = listed.price(liquidation.tick), listed.qty(liquidation.qty)
    text = (
        f'{{"e":"forceOrder","E":%d,"o":{{"s":"{listed.symbol}","S":"{side}","o":"LIMIT","f":"IOC",'
        f'"q":"{qty}","p":"{price}","ap":"{price}","X":"FILLED","l":"{qty}","z":"{qty}",'
        f'"T":{liquidation.time_ms},"ps":"{listed.symbol}","st":1}}}}'
    )
    return Message(text.encode(), liquidation.time_ms, event_time_us)


@attrs.frozen
class MarkPrice:
    """Mark price, index price and funding rate of a perpetual contract, as the venue writes them."""

    mark: str
    index: str
    funding_rate: str
    next_funding_ms: int


@attrs.frozen
class Liquidation:
    """A position that the venue closed by force."""

    time_ms: int
    sold: bool
    tick: int
    qty: int
