"""Sends the random market's messages to whoever hears them, step by step, none left out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import trio

from harvest.simulator import wire
from harvest.simulator.clock import EPOCH_NS
from harvest.simulator.random_book import STEP_NS
from harvest.simulator.random_market import STEP_MS, step_at

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harvest.simulator.clock import VenueClock
    from harvest.simulator.random_market import RandomInstrument, RandomMarket
    from harvest.simulator.state import VenueState
    from harvest.simulator.streams import StreamKey
    from harvest.simulator.wire import Message

#: Wake at most so often, in seconds; an accelerated venue sends several steps at once.
_LEAST_SLEEP_S: Final = 0.002
#: A step is sent so long after its instant, in the venue's time: no event time lies in the future, not even
#: a connection's own later one.
_DISPATCH_NS: Final = 10_000_000


class RandomFeed:
    """Turns steps of the market into messages. Message `E` is the instant of the step, which sends it."""

    def __init__(self, market: RandomMarket, *, futures: bool) -> None:
        self._market = market
        self._futures = futures

    def messages(self, key: StreamKey, step: int) -> Iterator[Message]:
        """Give what a stream sends at a step, in order; nothing for an unknown symbol."""
        if key.symbol is None:
            if key.kind == "forceOrder" and step * STEP_MS % 1000 == 0:
                for one in self._market.instruments.values():
                    yield from self._liquidations(one, step)
            return
        instrument = self._market.instruments.get(key.symbol)
        if instrument is None:
            return
        match key.kind:
            case "trade" | "aggTrade":
                yield from self._trades(instrument, key, step)
            case "depth" | "partial":
                yield from self._depth(instrument, key, step)
            case "bookTicker":
                yield from self._book_ticker(instrument, step)
            case "markPrice" if step * STEP_MS % key.interval_ms == 0:
                now_us = wire.step_time_us(step)
                yield wire.mark_price(instrument.listed, instrument.mark_price(step), now_us)
            case "forceOrder" if step * STEP_MS % 1000 == 0:
                yield from self._liquidations(instrument, step)

    def _trades(self, instrument: RandomInstrument, key: StreamKey, step: int) -> Iterator[Message]:
        # Futures aggregate over 100 ms; all else goes out with the next step.
        steps = 2 if self._futures and key.kind == "aggTrade" else 1
        if step % steps:
            return
        end_ms = EPOCH_NS // 1_000_000 + step * STEP_MS
        now_us, listed = end_ms * 1000, instrument.listed
        for order in instrument.trades.orders_between(end_ms - steps * STEP_MS, end_ms):
            if key.kind == "aggTrade":
                yield wire.agg_trade(listed, order, now_us, futures=self._futures)
            else:
                for fill in instrument.trades.fills_of(order):
                    yield wire.trade(listed, fill, now_us, futures=self._futures)

    def _depth(self, instrument: RandomInstrument, key: StreamKey, step: int) -> Iterator[Message]:
        steps = max(1, key.interval_ms // STEP_MS)
        if step % steps:
            return
        change = instrument.book.change(step - steps, step)
        if change is None:
            return
        now_us, listed = wire.step_time_us(step), instrument.listed
        if key.kind == "depth":
            yield wire.depth_update(listed, change, step, now_us, futures=self._futures)
        else:
            book = instrument.book.levels(step)
            yield wire.partial_depth(listed, change, book, key.levels, step, now_us, futures=self._futures)

    def _book_ticker(self, instrument: RandomInstrument, step: int) -> Iterator[Message]:
        book = instrument.book
        if not book.is_active(step):
            return
        before, now = book.levels(step - 1), book.levels(step)
        if any(
            next(iter(old.items())) != next(iter(new.items())) for old, new in zip(before, now, strict=True)
        ):
            yield wire.book_ticker(
                instrument.listed,
                book.last_id(step),
                now,
                step,
                wire.step_time_us(step),
                futures=self._futures,
            )

    def _liquidations(self, instrument: RandomInstrument, step: int) -> Iterator[Message]:
        found = instrument.liquidation(step * STEP_MS // 1000 - 1)
        if found is not None:
            yield wire.force_order(instrument.listed, found, wire.step_time_us(step))


async def feed_random(state: VenueState, market: RandomMarket, clock: VenueClock) -> None:
    """Send every step of the market as its time comes; runs until cancelled.

    A step that comes late, because the machine was busy or the server paused, is still sent whole.
    """
    feed = RandomFeed(market, futures=state.rules.futures)
    sent = step_at(clock.now_ns() - _DISPATCH_NS)
    while True:
        if not state.audiences():
            await state.changed()
            sent = max(sent, step_at(clock.now_ns() - _DISPATCH_NS))
            continue
        wait_s = clock.seconds_until(EPOCH_NS + (sent + 1) * STEP_NS + _DISPATCH_NS)
        await trio.sleep(max(wait_s, _LEAST_SLEEP_S))
        await state.standing.gate.passed()
        due = step_at(clock.now_ns() - _DISPATCH_NS)
        while sent < due:
            sent += 1
            _send_step(state, feed, sent)
            await trio.lowlevel.checkpoint()


def _send_step(state: VenueState, feed: RandomFeed, step: int) -> None:
    for key, audience in list(state.audiences().items()):
        for message in feed.messages(key, step):
            for connection, name in audience:
                text = message.text(late_us=connection.late_us, micro=connection.micro)
                connection.send(key, name, text, message.stream_id)
