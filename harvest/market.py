"""The words of the market: what an instrument, a trade, a diff and a snapshot are, whatever the venue.

A venue's decoder gives structs that have these attributes (usually its own wire structs with renamed
fields, so that nothing is copied between the wire and the column buffer); the pipeline relies on nothing
else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Final, Literal, NamedTuple, Protocol, get_args

import msgspec
import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

Side = Literal["buy", "sell"]
Channel = Literal["bbo", "mark", "liquidations", "open_interest", "partial_depth"]
"""What may be recorded besides trades and order books; each is a kind of rows of the same name."""

Feed = Literal["trade", "orderbook"] | Channel
"""The kinds of streams, whose connections and health are kept apart."""

CHANNELS: Final[tuple[Channel, ...]] = get_args(Channel)

IdSpace = Literal["aggregate", "raw"]
"""Aggregate and raw trade ids are different id spaces, that never meet in one series."""

#: How a decoded message says what it is, without an isinstance chain on the hot path.
TRADE: Final = 0
DIFF: Final = 1
CONTROL: Final = 2
CHANNEL: Final = 3

#: The time of an event that the venue did not say.
UNKNOWN_TIME: Final = -1

#: A price level as sent: price, absolute quantity (0 removes the level).
Level = tuple[float, float]


class Instrument(msgspec.Struct, frozen=True):
    """What is traded: the venue, its symbol, and what its exchangeInfo says of it.

    ``tick_size`` and ``step_size`` are the smallest steps of price and quantity, None where unknown.
    ``float_exact`` says that float64 holds every price and quantity of it exactly
    (maximum / step < 1e15, from the venue's own filters). ``status`` is the venue's word; ``ended`` says that it
    will not trade again.
    """

    venue: str
    symbol: str
    trading: bool = True
    tick_size: float | None = None
    step_size: float | None = None
    float_exact: bool = True
    status: str = ""
    ended: bool = False


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


#: A trade among others in columns: the fields of a ``Trade``, and room for a code of its type.
TRADE_ROWS: Final = np.dtype(
    [
        ("event_time", "<i8"),
        ("trade_time", "<i8"),
        ("trade_id", "<i8"),
        ("price", "<f8"),
        ("qty", "<f8"),
        ("aggressor_sold", "u1"),
        ("code", "u1"),
    ]
)


class TradeRun(NamedTuple):
    """Trades of one instrument in their order, as rows of ``TRADE_ROWS``; all are of the same type."""

    symbol: str
    id_space: IdSpace
    trade_type: str | None
    rows: NDArray[np.void]

    @property
    def size(self) -> int:
        """How many trades there are."""
        return len(self.rows)


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


class DiffRun(NamedTuple):
    """Diffs of one instrument in their order, in columns: those of a ``BookDiff``, None where the venue has none.

    The levels of a side stand in two columns, those of all diffs one after the other; how many each diff has is said apart.
    """

    symbol: str
    event_time: NDArray[np.int64]
    trade_time: NDArray[np.int64] | None
    first_update_id: NDArray[np.int64]
    last_update_id: NDArray[np.int64]
    prev_update_id: NDArray[np.int64] | None
    bid_counts: NDArray[np.int64]
    bid_px: NDArray[np.float64]
    bid_qty: NDArray[np.float64]
    ask_counts: NDArray[np.int64]
    ask_px: NDArray[np.float64]
    ask_qty: NDArray[np.float64]

    @property
    def size(self) -> int:
        """How many diffs there are."""
        return len(self.event_time)


class BookSnapshot(msgspec.Struct):
    """All levels of one instrument, best first. Times are None where the venue gives none (spot)."""

    last_update_id: int
    bids: list[Level]
    asks: list[Level]
    event_time: int | None = None
    trade_time: int | None = None


class ChannelMessage(Protocol):
    """One message of a channel, as a decoder gives it; ``feed`` says which, and so what else it has.

    ``name`` is the venue's own for it. ``event_time`` is None where the venue says none; times are as those of a ``Trade``.
    """

    shape: ClassVar[Literal[3]]
    feed: ClassVar[Channel]
    name: ClassVar[str]
    symbol: str
    event_time: int | None


class BestQuote(ChannelMessage, Protocol):
    """The best bid and ask after the update ``update_id`` of the book."""

    update_id: int
    trade_time: int | None
    bid_px: float
    bid_qty: float
    ask_px: float
    ask_qty: float


class PartialBook(ChannelMessage, Protocol):
    """The best levels of a book, best first, after the update ``update_id``."""

    update_id: int
    trade_time: int | None
    bids: list[Level]
    asks: list[Level]


class Mark(ChannelMessage, Protocol):
    """Mark price, index price and funding of a contract; the last two None for one that pays no funding.

    ``average_price`` is None where the venue does not say it.
    """

    mark_price: float
    index_price: float
    settle_price: float
    average_price: float | None
    funding_rate: float | None
    next_funding_time: int | None


class LiquidationOrder(Protocol):
    """An order by which the venue closed a position, equal to another one if all of it is; ``side`` is ``BUY`` or ``SELL``."""

    trade_time: int
    side: str
    order_type: str
    time_in_force: str
    status: str
    price: float
    average_price: float
    qty: float
    last_qty: float
    filled_qty: float


class Liquidation(ChannelMessage, Protocol):
    """A liquidation. It has no id."""

    order: LiquidationOrder


class OpenInterest(ChannelMessage, Protocol):
    """Contracts that are open, in the base currency."""

    open_interest: float


class StreamBreak(msgspec.Struct, frozen=True):
    """A known interval without coverage.

    ``from_id`` and ``to_id`` mean, for trades: both missing, both inclusive; for depth on spot: both
    exclusive; for depth on USD-M: the last stored ``u``, and the ``pu`` that did not match. None where unknown, and for
    channels, whose messages do not tell what came before.
    ``from_ns`` and ``to_ns`` are our receive times, UTC nanoseconds, around it.
    """

    symbol: str
    feed: Feed
    reason: str
    from_id: int | None
    to_id: int | None
    from_ns: int | None
    to_ns: int
