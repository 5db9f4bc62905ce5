"""What the random market answers over REST."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from harvest.simulator.clock import EPOCH_NS
from harvest.simulator.listing import exchange_info
from harvest.simulator.random_market import step_at
from harvest.simulator.wire import step_time_us

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from harvest.simulator.clock import VenueClock
    from harvest.simulator.listing import Listed
    from harvest.simulator.random_market import RandomMarket
    from harvest.simulator.random_trades import Fill, Order, RandomTrades
    from harvest.simulator.rules import VenueRules

_EPOCH_MS: Final = EPOCH_NS // 1_000_000


class RandomHistory:
    """The random market as REST serves it, at the venue's present time."""

    def __init__(self, market: RandomMarket, rules: VenueRules, clock: VenueClock) -> None:
        self._instruments = market.instruments
        self._rules = rules
        self._clock = clock

    def now_ms(self) -> int:
        """Give the venue's time."""
        return self._clock.now_ns() // 1_000_000

    def exchange_info(self) -> dict[str, Any]:
        """Give the body of exchangeInfo."""
        listing = {symbol: one.listed for symbol, one in self._instruments.items()}
        return exchange_info(self._rules, listing, self.now_ms())

    def knows(self, symbol: str) -> bool:
        """Say whether a symbol is listed."""
        return symbol in self._instruments

    def depth(self, symbol: str, limit: int) -> dict[str, Any]:
        """Give the book of the last step, which may lie inside of what a diff covers."""
        instrument = self._instruments[symbol]
        step = step_at(self._clock.now_ns())
        listed = instrument.listed
        bids, asks = (
            [[listed.price(tick), listed.qty(qty)] for tick, qty in islice(side.items(), limit)]
            for side in instrument.book.levels(step)
        )
        body: dict[str, Any] = {"lastUpdateId": instrument.book.last_id(step)}
        if self._rules.futures:
            body["E"], body["T"] = self.now_ms(), step_time_us(step) // 1000
        return {**body, "bids": bids, "asks": asks}

    def agg_trades(
        self, symbol: str, *, from_id: int | None, start_ms: int | None, end_ms: int | None, limit: int
    ) -> list[dict[str, Any]]:
        """Give aggregate trades; what is older than the venue serves is left out."""
        trades, now_ms = self._instruments[symbol].trades, self.now_ms()
        oldest_ms = _EPOCH_MS if self._rules.history_ms is None else now_ms - self._rules.history_ms
        end = now_ms if end_ms is None else min(now_ms, end_ms + 1)
        orders: Iterable[Order]
        if from_id is not None:
            oldest_id = trades.newest_order_id(oldest_ms) + 1
            orders = islice(trades.orders_from(max(from_id, oldest_id), end), limit)
        elif start_ms is not None:
            orders = islice(trades.orders_between(max(start_ms, oldest_ms), end), limit)
        else:
            orders = [order for order in trades.last_orders(limit, end) if order.time_ms >= oldest_ms]
        listed = self._instruments[symbol].listed
        return [self._agg_row(listed, order) for order in orders]

    def trades(self, symbol: str, *, from_id: int | None, limit: int) -> list[dict[str, Any]]:
        """Give raw trades; futures leave out those that are no market trades."""
        instrument, end = self._instruments[symbol], self.now_ms()
        if from_id is not None:
            rows = self._fills(instrument.trades, instrument.trades.order_of(from_id), end)
            fills = list(islice((fill for fill in rows if fill.trade_id >= from_id), limit))
        else:
            first = instrument.trades.newest_order_id(end) - limit + 1
            fills = list(self._fills(instrument.trades, first, end))[-limit:]
        return [self._trade_row(instrument.listed, fill) for fill in fills]

    def open_interest(self, symbol: str) -> dict[str, Any]:
        """Give the open interest of a contract."""
        step = step_at(self._clock.now_ns())
        return {
            "openInterest": self._instruments[symbol].open_interest(step),
            "symbol": symbol,
            "time": self.now_ms(),
        }

    def premium_index(self, symbol: str) -> dict[str, Any]:
        """Give mark price, index price and funding of a contract."""
        mark = self._instruments[symbol].mark_price(step_at(self._clock.now_ns()))
        return {
            "symbol": symbol,
            "markPrice": mark.mark,
            "indexPrice": mark.index,
            "estimatedSettlePrice": mark.index,
            "lastFundingRate": mark.funding_rate,
            "interestRate": "0.00010000",
            "nextFundingTime": mark.next_funding_ms,
            "time": self.now_ms(),
        }

    def status(self) -> dict[str, Any]:
        """Say that this is no replay, and so never done."""
        return {"mode": "random", "replay_done": False}

    def _fills(self, trades: RandomTrades, order_id: int, end_ms: int) -> Iterator[Fill]:
        for order in trades.orders_from(order_id, end_ms):
            for fill in trades.fills_of(order):
                if not self._rules.futures or fill.trade_type == "MARKET":
                    yield fill

    def _agg_row(self, listed: Listed, order: Order) -> dict[str, Any]:
        qty = listed.qty(order.qty)
        row: dict[str, Any] = {"a": order.order_id, "p": listed.price(order.tick), "q": qty}
        if self._rules.futures:
            row["nq"] = qty
        row |= {"f": order.first_trade_id, "l": order.last_trade_id, "T": order.time_ms}
        row["m"] = order.buyer_was_maker
        return row if self._rules.futures else row | {"M": True}

    def _trade_row(self, listed: Listed, fill: Fill) -> dict[str, Any]:
        scale = 10 ** (8 - listed.tick_places - listed.step_places)
        quote = fill.tick * fill.qty * scale
        row = {
            "id": fill.trade_id,
            "price": listed.price(fill.tick),
            "qty": listed.qty(fill.qty),
            "quoteQty": f"{int(quote) // 10**8}.{int(quote) % 10**8:08d}",
            "time": fill.time_ms,
            "isBuyerMaker": fill.buyer_was_maker,
        }
        return row if self._rules.futures else row | {"isBestMatch": True}
