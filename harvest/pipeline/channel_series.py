"""The rows of one channel of one instrument: what is new, and how it is packed."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, ClassVar, cast

from harvest.pipeline.times import to_us
from harvest.storage.kinds import (
    BBO,
    LIQUIDATIONS,
    MARK,
    OPEN_INTEREST,
    ORDER_STATUSES,
    ORDER_TYPES,
    PARTIAL_DEPTH,
    SIDES,
    TIMES_IN_FORCE,
    UNKNOWN,
    WS,
)
from harvest.storage.tables import DAY_US

if TYPE_CHECKING:
    from harvest.market import (
        BestQuote,
        Channel,
        Level,
        Liquidation,
        LiquidationOrder,
        Mark,
        OpenInterest,
        PartialBook,
    )
    from harvest.metrics import FeedStats, Metrics
    from harvest.storage.kinds import Kind
    from harvest.storage.tables import Table, Tables

#: Mark prices come once a second: what is closer is the same one, over another connection.
SAME_MARK_US = 500_000
#: Liquidations of which another connection may bring the same; there is one a second at most.
RECENT_LIQUIDATIONS = 64
_NAN = float("nan")


class ChannelSeries:
    """Packs rows of one kind for one symbol. A subclass says what is new, and what a row is.

    ``carriers`` are the connections that deliver it now; ``broken`` is since when none does, by our receive time, and why.
    """

    kind: ClassVar[Kind]

    def __init__(self, feed: Channel, symbol: str, tables: Tables, metrics: Metrics) -> None:
        self.symbol = symbol
        self.stats: FeedStats = metrics.feed(feed, symbol)
        self.carriers = 0
        self.broken: tuple[int, str] | None = None
        self._tables = tables
        self._table: Table | None = None
        self._day_from_us = 1
        self._day_until_us = 0

    def forget_tables(self) -> None:
        """Let go of the open table: the next row looks it up anew."""
        self._table = None
        self._day_from_us, self._day_until_us = 1, 0

    def take(self, message: Any, seq: int, recv_ns: int, mono_ns: int, source: int = WS) -> bool:
        """Pack one message of the record ``seq``, unless it was seen; returns whether it was packed."""
        stats = self.stats
        stats.last_mono_ns = mono_ns
        event_us = UNKNOWN if message.event_time is None else to_us(message.event_time)
        if not self._is_new(message, event_us):
            stats.duplicates += 1
            return False
        date_us = recv_ns // 1000 if event_us == UNKNOWN else event_us
        table = self._table
        if table is None or not self._day_from_us <= date_us < self._day_until_us:
            table = self._roll(date_us)
        if table.marked_seq != seq:
            table.mark(seq, recv_ns, source)
            stats.last_recv_ns = recv_ns
        self._pack(table, message, event_us)
        table.count += 1
        stats.stored += 1
        return True

    def _roll(self, date_us: int) -> Table:
        day = date_us // DAY_US
        self._day_from_us, self._day_until_us = day * DAY_US, (day + 1) * DAY_US
        self._table = self._tables.table(self.kind, self.symbol, day)
        return self._table

    def _is_new(self, message: Any, event_us: int) -> bool:
        raise NotImplementedError

    def _pack(self, table: Table, message: Any, event_us: int) -> None:
        raise NotImplementedError


class UpdateSeries(ChannelSeries):
    """What names the update of the book that it follows: anything that is not beyond the last one was seen."""

    def __init__(self, feed: Channel, symbol: str, tables: Tables, metrics: Metrics) -> None:
        super().__init__(feed, symbol, tables, metrics)
        self.last: BestQuote | PartialBook | None = None

    def _is_new(self, message: BestQuote | PartialBook, event_us: int) -> bool:
        if self.last is not None and message.update_id <= self.last.update_id:
            return False
        self.last = message
        return True


def sides_of(message: BestQuote | PartialBook) -> tuple[list[Level], list[Level]]:
    """Return bids and asks that a message shows, best first."""
    if message.feed == "bbo":
        quote = cast("BestQuote", message)
        return [(quote.bid_px, quote.bid_qty)], [(quote.ask_px, quote.ask_qty)]
    book = cast("PartialBook", message)
    return book.bids, book.asks


class BestQuotes(UpdateSeries):
    """Rows of kind ``bbo``."""

    kind = BBO

    def _pack(self, table: Table, message: BestQuote, event_us: int) -> None:
        trade_time = message.trade_time
        table.rows += BBO.packer.pack(
            event_us,
            UNKNOWN if trade_time is None else to_us(trade_time),
            message.update_id,
            message.bid_px,
            message.bid_qty,
            message.ask_px,
            message.ask_qty,
        )


class PartialBooks(UpdateSeries):
    """Rows of kind ``partial_depth``."""

    kind = PARTIAL_DEPTH

    def _pack(self, table: Table, message: PartialBook, event_us: int) -> None:
        trade_time, bids, asks = message.trade_time, message.bids, message.asks
        table.rows += PARTIAL_DEPTH.packer.pack(
            event_us,
            UNKNOWN if trade_time is None else to_us(trade_time),
            message.update_id,
            len(bids),
            len(asks),
        )
        table.add_levels(bids, asks)


class TimedSeries(ChannelSeries):
    """What has nothing but its event time to tell it by."""

    same_us: ClassVar[int] = 0

    def __init__(self, feed: Channel, symbol: str, tables: Tables, metrics: Metrics) -> None:
        super().__init__(feed, symbol, tables, metrics)
        self._last_us = UNKNOWN

    def _is_new(self, message: Any, event_us: int) -> bool:
        if event_us <= self._last_us + self.same_us:
            return False
        self._last_us = event_us
        return True


class Marks(TimedSeries):
    """Rows of kind ``mark``."""

    kind = MARK
    same_us = SAME_MARK_US

    def _pack(self, table: Table, message: Mark, event_us: int) -> None:
        average, rate, funding = message.average_price, message.funding_rate, message.next_funding_time
        table.rows += MARK.packer.pack(
            event_us,
            message.mark_price,
            message.index_price,
            message.settle_price,
            _NAN if average is None else average,
            _NAN if rate is None else rate,
            UNKNOWN if funding is None else to_us(funding),
        )


class OpenInterests(TimedSeries):
    """Rows of kind ``open_interest``."""

    kind = OPEN_INTEREST

    def _pack(self, table: Table, message: OpenInterest, event_us: int) -> None:
        table.rows += OPEN_INTEREST.packer.pack(event_us, message.open_interest)


class Liquidations(ChannelSeries):
    """Rows of kind ``liquidations``. They have no id: an order that is equal to a recent one is that one."""

    kind = LIQUIDATIONS

    def __init__(self, feed: Channel, symbol: str, tables: Tables, metrics: Metrics) -> None:
        super().__init__(feed, symbol, tables, metrics)
        self._recent: deque[LiquidationOrder] = deque(maxlen=RECENT_LIQUIDATIONS)

    def _is_new(self, message: Liquidation, event_us: int) -> bool:
        if message.order in self._recent:
            return False
        self._recent.append(message.order)
        return True

    def _pack(self, table: Table, message: Liquidation, event_us: int) -> None:
        order = message.order
        table.rows += LIQUIDATIONS.packer.pack(
            event_us,
            to_us(order.trade_time),
            SIDES.index(order.side.lower()),
            _code(ORDER_TYPES, order.order_type),
            _code(TIMES_IN_FORCE, order.time_in_force),
            _code(ORDER_STATUSES, order.status),
            order.price,
            order.average_price,
            order.qty,
            order.last_qty,
            order.filled_qty,
        )


def _code(labels: tuple[str, ...], word: str) -> int:
    return labels.index(word if word in labels else "OTHER")


SERIES: dict[Channel, type[ChannelSeries]] = {
    "bbo": BestQuotes,
    "mark": Marks,
    "liquidations": Liquidations,
    "open_interest": OpenInterests,
    "partial_depth": PartialBooks,
}
