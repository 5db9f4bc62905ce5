"""What a venue must give: its facts as data, its subscriptions and its decoder as pure functions."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal, Protocol

import msgspec

from harvest.market import CONTROL, Channel, Feed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harvest.market import (
        BookDiff,
        BookSnapshot,
        ChannelMessage,
        DiffRun,
        IdSpace,
        Instrument,
        OpenInterest,
        Trade,
        TradeRun,
    )

TradeEvent = Literal["aggTrade", "trade"]
DepthRule = Literal["spot", "usdm"]


class Acknowledgement(msgspec.Struct, frozen=True):
    """The venue accepted the request ``request_id``."""

    shape: ClassVar[Literal[2]] = CONTROL
    request_id: int | None


class Refusal(msgspec.Struct, frozen=True):
    """The venue refused a request (flat or wrapped error)."""

    shape: ClassVar[Literal[2]] = CONTROL
    request_id: int | None
    code: int | None
    message: str


class ShutdownNotice(msgspec.Struct, frozen=True):
    """The server announces that it will close this connection."""

    shape: ClassVar[Literal[2]] = CONTROL


class OtherEvent(msgspec.Struct, frozen=True):
    """An event that this version does not record; counted by ``name``."""

    shape: ClassVar[Literal[2]] = CONTROL
    name: str
    known: bool


Control = Acknowledgement | Refusal | ShutdownNotice | OtherEvent


class StreamOptions(msgspec.Struct, frozen=True):
    """What to subscribe to: which trade event, how many levels of partial depth; intervals are in milliseconds."""

    trade_event: TradeEvent = "aggTrade"
    depth_interval_ms: int = 100
    partial_levels: int = 20
    partial_interval_ms: int = 100


class ConnectionPlan(msgspec.Struct, frozen=True):
    """What one connection carries: its URL, its symbols, and the stream of each, in the same order.

    Where the streams may be silent by nature, one of another channel, which never is, follows them.
    """

    feed: Feed
    url: str
    symbols: tuple[str, ...]
    streams: tuple[str, ...]


class RestRequest(msgspec.Struct, frozen=True):
    """A GET: path with query, and the request weight that the venue charges for it."""

    path: str
    weight: int


class Venue(Protocol):
    """One venue. Everything here is data or a pure function; nothing waits, nothing is written."""

    name: str
    ws_url: str
    rest_url: str
    #: Streams that one connection may carry.
    max_streams: int
    #: Messages that a client may send on one connection in a second; pings, pongs and requests count.
    messages_per_s: int
    #: Request weight a minute and IP.
    weight_per_minute: int
    #: Which of the two gap rules its depth stream obeys.
    depth_rule: DepthRule
    #: What it has besides trades and order books.
    channels: tuple[Channel, ...]

    def connections(
        self, feed: Feed, symbols: Sequence[str], options: StreamOptions, *, ws_url: str, max_streams: int
    ) -> list[ConnectionPlan]:
        """Split ``symbols`` over as few connections as the limits allow."""
        ...

    def subscribe(self, streams: Sequence[str], first_id: int) -> list[str]:
        """Make the requests that subscribe to ``streams``, with ascending ids.

        Each is answered by an Acknowledgement or a Refusal.
        """
        ...

    def unsubscribe(self, streams: Sequence[str], first_id: int) -> list[str]:
        """Make the requests that unsubscribe from ``streams``; they are answered likewise."""
        ...

    def is_market_data(self, frame: bytes) -> bool:
        """Tell, without decoding it, whether a message is of a stream, rather than an answer or a notice."""
        ...

    def decode(self, frame: bytes) -> Trade | BookDiff | ChannelMessage | Control:
        """Decode one WebSocket message; its ``shape`` says which it is.

        Raises:
            MalformedMessageError: the message is not what the venue documents.
        """
        ...

    def decode_runs(self, lines: bytes) -> Sequence[TradeRun | DiffRun] | None:
        """Decode a block in one piece that holds nothing but trades, or nothing but diffs, in columns: a run a symbol.

        None where it is to be decoded otherwise.
        """
        ...

    def decode_lines(self, lines: bytes) -> list[Trade | BookDiff | ChannelMessage | Control] | None:
        """Decode a block that is in one piece at one stroke; None where its messages are to be decoded one by one."""
        ...

    def symbol_of(self, frame: bytes) -> str | None:
        """Tell at a glance which symbol a WebSocket message is of; None where only ``decode`` can tell."""
        ...

    def id_space(self, event: TradeEvent) -> IdSpace:
        """Name the id space of the trade ids that ``event`` carries."""
        ...

    def snapshot_request(self, symbol: str, levels: int) -> RestRequest:
        """Ask for the whole book of ``symbol``, at least ``levels`` a side as far as the venue serves them."""
        ...

    def decode_snapshot(self, body: bytes) -> BookSnapshot:
        """Decode the answer to ``snapshot_request``.

        Raises:
            MalformedMessageError: the body is not a snapshot.
        """
        ...

    def trades_request(self, event: TradeEvent, symbol: str, from_id: int) -> RestRequest | None:
        """Ask for a page of trades from ``from_id`` on; None where the venue gives none of that id space."""
        ...

    def latest_trade_request(self, event: TradeEvent, symbol: str) -> RestRequest:
        """Ask for the newest trade; ``decode_trades`` decodes the answer."""
        ...

    def open_interest_request(self, symbol: str) -> RestRequest | None:
        """Ask for the open interest; None where the venue has none."""
        ...

    def decode_open_interest(self, body: bytes) -> OpenInterest:
        """Decode the answer to ``open_interest_request``.

        Raises:
            MalformedMessageError: the body is not an open interest.
        """
        ...

    def decode_trades(self, event: TradeEvent, symbol: str, body: bytes) -> list[Trade]:
        """Decode the answer to ``trades_request``, ascending by id; their ``event_time`` is ``UNKNOWN_TIME``.

        Raises:
            MalformedMessageError: the body is not a page of trades.
        """
        ...

    def instruments_request(self) -> RestRequest:
        """Ask for all instruments."""
        ...

    def decode_instruments(self, body: bytes) -> list[Instrument]:
        """Decode the answer to ``instruments_request``.

        Raises:
            MalformedMessageError: the body is not an exchangeInfo.
        """
        ...
