"""Binance spot.

Source: https://developers.binance.com/docs/binance-spot-api-docs/web-socket-streams
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

import msgspec

from harvest.market import DIFF, Channel, IdSpace
from harvest.venues import binance
from harvest.venues.binance_channels import PartialDepth, SpotBookTicker, SpotPartialDepth
from harvest.venues.binance_diffs import DiffReader
from harvest.venues.binance_runs import RunReader
from harvest.venues.binance_wire import AggTrade, Id, RawTrade, WireLevel, WireTime
from harvest.venues.protocol import (
    ConnectionPlan,
    Control,
    DepthRule,
    RestRequest,
    StreamOptions,
    TradeEvent,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harvest.market import (
        BestQuote,
        BookDiff,
        BookSnapshot,
        ChannelMessage,
        DiffRun,
        Feed,
        Instrument,
        OpenInterest,
        Trade,
        TradeRun,
    )


class DepthUpdate(
    msgspec.Struct,
    tag_field="e",
    tag="depthUpdate",
    rename={
        "event_time": "E",
        "symbol": "s",
        "first_update_id": "U",
        "last_update_id": "u",
        "bids": "b",
        "asks": "a",
    },
):
    """Changed levels; ``first_update_id`` follows the last id of the diff before."""

    shape: ClassVar[Literal[1]] = DIFF
    trade_time: ClassVar[None] = None
    prev_update_id: ClassVar[None] = None
    symbol: str
    first_update_id: Id
    last_update_id: Id
    bids: list[WireLevel]
    asks: list[WireLevel]
    event_time: WireTime


class Message(msgspec.Struct, gc=False):
    """The combined envelope."""

    data: AggTrade | DepthUpdate | RawTrade


_decoder = msgspec.json.Decoder(Message, strict=False)
_decode = _decoder.decode
RECORDED = frozenset({"aggTrade", "trade", "depthUpdate"})
KNOWN = frozenset({"kline", "24hrTicker", "avgPrice"})


class TickerMessage(msgspec.Struct, gc=False):
    """The combined envelope of a bookTicker."""

    data: SpotBookTicker


class PartialMessage(msgspec.Struct):
    """The combined envelope of partial depth, whose symbol is in the stream's name alone."""

    stream: str
    data: SpotPartialDepth


_ticker = msgspec.json.Decoder(TickerMessage, strict=False)
_partial = msgspec.json.Decoder(PartialMessage, strict=False)


def _interval(interval_ms: int) -> str:
    """Write an interval as stream names have it: that of one second is not named."""
    return "" if interval_ms == 1000 else f"@{interval_ms}ms"


class BinanceSpot:
    """The spot market of Binance."""

    name: str = "binance-spot"
    ws_url: str = "wss://data-stream.binance.vision"
    rest_url: str = "https://data-api.binance.vision"
    max_streams: int = 1024
    messages_per_s: int = 5
    weight_per_minute: int = 6000
    depth_rule: DepthRule = "spot"
    channels: tuple[Channel, ...] = ("bbo", "partial_depth")

    def __init__(self) -> None:
        self._runs = RunReader(_decode)
        self._diffs = DiffReader(self.decode)

    def connections(
        self, feed: Feed, symbols: Sequence[str], options: StreamOptions, *, ws_url: str, max_streams: int
    ) -> list[ConnectionPlan]:
        """Split ``symbols`` over connections."""
        if feed == "trade":
            suffix: str = options.trade_event
        elif feed == "bbo":
            suffix = "bookTicker"
        elif feed == "partial_depth":
            suffix = f"depth{options.partial_levels}{_interval(options.partial_interval_ms)}"
        else:
            suffix = f"depth{_interval(options.depth_interval_ms)}"
        return binance.split_connections(
            feed,
            f"{ws_url}/stream",
            symbols,
            lambda symbol: f"{binance.stream_symbol(symbol)}@{suffix}",
            max_streams,
        )

    def subscribe(self, streams: Sequence[str], first_id: int) -> list[str]:
        """Make the requests that subscribe to streams."""
        return binance.requests("SUBSCRIBE", streams, first_id)

    def unsubscribe(self, streams: Sequence[str], first_id: int) -> list[str]:
        """Make the requests that unsubscribe from streams."""
        return binance.requests("UNSUBSCRIBE", streams, first_id)

    def is_market_data(self, frame: bytes) -> bool:
        """Tell whether a message is of a stream, rather than an answer or a notice."""
        return binance.is_market_data(frame)

    def decode(self, frame: bytes) -> Trade | BookDiff | ChannelMessage | Control:
        """Decode one message of a combined stream.

        Raises:
            MalformedMessageError: the message is not what the venue documents.
        """
        try:
            return _decode(frame).data  # type: ignore[return-value]
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            # What names no event is told by its stream.
            if b'@bookTicker"' in frame[: binance.STREAM_NAME_BYTES]:
                ticker: BestQuote = binance.decode_typed(_ticker, self.name, "a bookTicker", frame).data
                return ticker
            if binance.is_partial_depth(frame):
                return self._decode_partial(frame)
            return binance.decode_control(self.name, frame, RECORDED, KNOWN, str(error))

    def _decode_partial(self, frame: bytes) -> PartialDepth:
        message: PartialMessage = binance.decode_typed(_partial, self.name, "partial depth", frame)
        symbol, book = message.stream.partition("@")[0].upper(), message.data
        return PartialDepth(symbol, book.last_update_id, book.bids, book.asks, None, None)

    def decode_runs(self, lines: bytes) -> Sequence[TradeRun | DiffRun] | None:
        """Decode a block of nothing but trades, or nothing but diffs, in columns; None where it is to be decoded otherwise."""
        return self._runs.read(lines) or self._diffs.read(lines)

    def decode_lines(self, lines: bytes) -> list[Trade | BookDiff | ChannelMessage | Control] | None:
        """Decode a block that is in one piece at one stroke; None where its messages are to be decoded one by one."""
        return binance.decode_lines(_decoder, lines)

    def symbol_of(self, frame: bytes) -> str | None:
        """Tell at a glance which symbol a message is of; None where only ``decode`` can tell."""
        return binance.symbol_at_a_glance(frame)

    def id_space(self, event: TradeEvent) -> IdSpace:
        """Name the id space of the trade ids that ``event`` carries."""
        return "aggregate" if event == "aggTrade" else "raw"

    def snapshot_request(self, symbol: str, levels: int) -> RestRequest:
        """Ask for a depth snapshot of ``levels`` levels (5000 at most), at the venue's weight for it."""
        limit = min(levels, 5000)
        weight = next(cost for top, cost in ((100, 5), (500, 25), (1000, 50), (5000, 250)) if limit <= top)
        return RestRequest(f"/api/v3/depth?symbol={binance.query_symbol(symbol)}&limit={limit}", weight)

    def decode_snapshot(self, body: bytes) -> BookSnapshot:
        """Decode the answer to ``snapshot_request``.

        Raises:
            MalformedMessageError: the body is not a snapshot.
        """
        return binance.decode_snapshot(self.name, body)

    def trades_request(self, event: TradeEvent, symbol: str, from_id: int) -> RestRequest | None:
        """Ask for a page of trades by id."""
        kind, weight = ("aggTrades", 4) if event == "aggTrade" else ("historicalTrades", 25)
        name = binance.query_symbol(symbol)
        return RestRequest(f"/api/v3/{kind}?symbol={name}&fromId={from_id}&limit=1000", weight)

    def latest_trade_request(self, event: TradeEvent, symbol: str) -> RestRequest:
        """Ask for the newest trade."""
        kind, weight = ("aggTrades", 4) if event == "aggTrade" else ("trades", 25)
        return RestRequest(f"/api/v3/{kind}?symbol={binance.query_symbol(symbol)}&limit=1", weight)

    def open_interest_request(self, symbol: str) -> RestRequest | None:
        """Spot has no open interest."""
        return None

    def decode_open_interest(self, body: bytes) -> OpenInterest:
        """Decode the answer to ``open_interest_request``.

        Raises:
            MalformedMessageError: the body is not an open interest.
        """
        return binance.decode_open_interest(self.name, body)

    def decode_trades(self, event: TradeEvent, symbol: str, body: bytes) -> list[Trade]:
        """Decode the answer to ``trades_request``.

        Raises:
            MalformedMessageError: the body is not a page of trades.
        """
        return binance.decode_trades(self.name, event, symbol, body, None)

    def instruments_request(self) -> RestRequest:
        """Ask for all instruments."""
        return RestRequest("/api/v3/exchangeInfo?permissions=SPOT", 20)

    def decode_instruments(self, body: bytes) -> list[Instrument]:
        """Decode the answer to ``instruments_request``.

        Raises:
            MalformedMessageError: the body is not an exchangeInfo.
        """
        return binance.decode_instruments(self.name, body)
