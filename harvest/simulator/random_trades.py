"""The random market's trades: a function of the seed and the time, ids included, without history.

The unit is the aggregate trade, an order that meets one price. Time is cut into blocks, a second each and
longer ones where trades are rare. How many orders have come before any block has a closed form (a line bent
by smooth noise whose slope stays below its own); their times inside the block are sorted hashes. An order is
filled in one or more raw trades, whose ids have a closed form in its own id.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Final

import attrs
import numpy as np

from harvest.simulator.clock import EPOCH_NS
from harvest.simulator.noise import ValueNoise, key_of, mix, mix_array
from harvest.simulator.random_book import STEP_NS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harvest.simulator.listing import Listed
    from harvest.simulator.random_book import RandomBook

_EPOCH_MS: Final = EPOCH_NS // 1_000_000
_STEP_MS: Final = STEP_NS // 1_000_000
#: Slope at most 3 x 0.06 each, 0.9 in all: the count never falls, and rates vary between 10 and 190 %.
_OCTAVES: Final = tuple((period, 0.06 * period) for period in (4, 16, 64, 256, 1024))
_FILLS: Final = 2
_ODD_ONE_IN: Final = 400
_ODD_TYPES: Final = ("INSURANCE_FUND", "ADL", "NA")
#: The streams read the present block and the one before; REST makes older ones when it is asked for them.
_BLOCKS_KEPT: Final = 4


@attrs.frozen
class Order:
    """An aggregate trade: its id, its raw trades' ids (both inclusive), its one price and its time.

    ``odd_type`` is the type of one more raw trade after ``last_trade_id`` that is not a market trade and
    belongs to no aggregate; None if there is none.
    """

    order_id: int
    first_trade_id: int
    last_trade_id: int
    time_ms: int
    tick: int
    buyer_was_maker: bool
    qty: int
    odd_type: str | None


@attrs.frozen
class Fill:
    """A raw trade; ``trade_type`` is MARKET but for the rare odd ones of futures."""

    trade_id: int
    time_ms: int
    tick: int
    buyer_was_maker: bool
    qty: int
    trade_type: str


class RandomTrades:
    """The trades of one instrument; prices are those of its book's touch at the time."""

    def __init__(self, listed: Listed, book: RandomBook, seed: int, *, rate: float, futures: bool) -> None:
        key = key_of(seed, "trades", listed.symbol)
        self._book = book
        self._futures = futures
        self._block_ms = 1000 * min(60, max(1, round(2 / listed.orders_per_s)))
        self._per_block = listed.orders_per_s * rate * self._block_ms / 1000
        self._base = listed.step_base
        self._noise = ValueNoise(mix(key, 1), _OCTAVES)
        self._time_key, self._side_key, self._fill_key = mix(key, 2), mix(key, 3), mix(key, 4)
        self._qty_key, self._odd_key = mix(key, 5), mix(key, 6)
        self._blocks: OrderedDict[int, list[Order]] = OrderedDict()

    def orders_before(self, block: int) -> int:
        """Count the aggregate trades from the epoch to a block; the next one's id is one more."""
        if block <= 0:
            return 0
        return int(self._per_block * (block + self._noise.at(block) - self._noise.at(0)))

    def orders_in(self, block: int) -> list[Order]:
        """Give the aggregate trades of a block, in order. The caller must not change the list."""
        known = self._blocks.get(block)
        if known is None:
            known = self._make(block)
            self._blocks[block] = known
            if len(self._blocks) > _BLOCKS_KEPT:
                self._blocks.popitem(last=False)
        return known

    def orders_between(self, start_ms: int, end_ms: int) -> Iterator[Order]:
        """Give the aggregate trades of [start_ms, end_ms), UTC milliseconds, in order."""
        if end_ms <= start_ms:
            return
        for block in range(max(0, self._block_of(start_ms)), self._block_of(end_ms - 1) + 1):
            for order in self.orders_in(block):
                if start_ms <= order.time_ms < end_ms:
                    yield order

    def orders_from(self, order_id: int, end_ms: int) -> Iterator[Order]:
        """Give the aggregate trades from an id on, before ``end_ms``."""
        order_id = max(order_id, 1)
        last = max(0, self._block_of(end_ms - 1))
        low, high = 0, last
        while low < high:
            middle = (low + high + 1) // 2
            if self.orders_before(middle) < order_id:
                low = middle
            else:
                high = middle - 1
        for block in range(low, last + 1):
            for order in self.orders_in(block):
                if order.order_id >= order_id and order.time_ms < end_ms:
                    yield order

    def last_orders(self, count: int, end_ms: int) -> list[Order]:
        """Give the last aggregate trades before ``end_ms``, at most ``count``, oldest first."""
        newest = self.newest_order_id(end_ms)
        return list(self.orders_from(newest - count + 1, end_ms)) if newest else []

    def newest_order_id(self, end_ms: int) -> int:
        """Give the id of the last aggregate trade before ``end_ms``; 0 if there is none."""
        block = self._block_of(end_ms)
        if block < 0:
            return 0
        return self.orders_before(block) + sum(order.time_ms < end_ms for order in self.orders_in(block))

    def order_of(self, trade_id: int) -> int:
        """Give the id of the aggregate trade during which a raw id was given."""
        near = max(1, trade_id // _FILLS)
        return near if self._first_fill(near) <= trade_id else max(1, near - 1)

    def fills_of(self, order: Order) -> list[Fill]:
        """Give an order's raw trades in order, the odd one last."""
        fills = [
            Fill(
                number,
                order.time_ms,
                order.tick,
                order.buyer_was_maker,
                self._fill_qty(number),
                "MARKET",
            )
            for number in range(order.first_trade_id, order.last_trade_id + 1)
        ]
        if order.odd_type is not None:
            number = order.last_trade_id + 1
            qty = self._fill_qty(number)
            fills.append(Fill(number, order.time_ms, order.tick, order.buyer_was_maker, qty, order.odd_type))
        return fills

    def _first_fill(self, order_id: int) -> int:
        return order_id * _FILLS + mix(self._fill_key, order_id) % _FILLS

    def _fill_qty(self, trade_id: int) -> int:
        portion = (mix(self._qty_key, trade_id) >> 11) / 2.0**53
        return 1 + int(self._base * 0.05 / (portion + 0.002))

    def _block_of(self, time_ms: int) -> int:
        return (time_ms - _EPOCH_MS) // self._block_ms

    def _make(self, block: int) -> list[Order]:
        before = self.orders_before(block)
        count = self.orders_before(block + 1) - before
        if count <= 0 or block < 0:
            return []
        hashes = mix_array(mix(self._time_key, block), np.arange(count, dtype=np.int64))
        offsets = np.sort((hashes % np.uint64(self._block_ms)).astype(np.int64)).tolist()
        start_ms = _EPOCH_MS + block * self._block_ms
        return [self._order(before + number + 1, start_ms + offset) for number, offset in enumerate(offsets)]

    def _order(self, order_id: int, time_ms: int) -> Order:
        bid, ask = self._book.touch((time_ms - _EPOCH_MS) // _STEP_MS)
        sold = mix(self._side_key, order_id) & 1 == 1
        first, last = self._first_fill(order_id), self._first_fill(order_id + 1) - 1
        odd: str | None = None
        if self._futures and last > first:
            chance = mix(self._odd_key, order_id)
            if chance % _ODD_ONE_IN == 0:
                odd = _ODD_TYPES[(chance >> 32) % len(_ODD_TYPES)]
                last -= 1
        qty = sum(self._fill_qty(number) for number in range(first, last + 1))
        return Order(order_id, first, last, time_ms, bid if sold else ask, sold, qty, odd)
