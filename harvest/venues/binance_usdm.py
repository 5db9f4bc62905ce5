"""Binance USD-M futures.

The trap of this venue: since 2026-04-23 streams are split by route, and a connection without the right route
acknowledges a subscription and stays silent for ever. ``ROUTES`` says where each stream lives.

Source: https://developers.binance.com/docs/derivatives/usds-margined-futures/websocket-market-streams
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

import msgspec

from harvest.market import CHANNELS, DIFF, Channel, Feed, IdSpace
from harvest.venues import binance
from harvest.venues.binance_channels import BookTicker, ForceOrder, MarkPriceUpdate, PartialDepth
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
        BookDiff,
        BookSnapshot,
        ChannelMessage,
        DiffRun,
        Instrument,
        OpenInterest,
        Trade,
        TradeRun,
    )

#: Which route carries which stream. ``trade`` is undocumented, and seen flowing on the public route.
ROUTES = {"aggTrade": "market", "trade": "public", "depth": "public"}
CHANNEL_ROUTES: dict[Feed, str] = {
    "bbo": "public",
    "partial_depth": "public",
    "mark": "market",
    "liquidations": "market",
}
#: Flows once a second whatever the market does.
MARK_STREAM = "markPrice@1s"


#: Levels a side that the snapshot request serves, with its weight.
SNAPSHOT_WEIGHTS = {5: 2, 10: 2, 20: 2, 50: 2, 100: 5, 500: 10, 1000: 20}


class DepthUpdate(
    msgspec.Struct,
    tag_field="e",
    tag="depthUpdate",
    rename={
        "event_time": "E",
        "trade_time": "T",
        "symbol": "s",
        "first_update_id": "U",
        "last_update_id": "u",
        "prev_update_id": "pu",
        "bids": "b",
        "asks": "a",
    },
):
    """Changed levels. ``prev_update_id`` is the last id of the diff before; ``first_update_id`` is sparse."""

    shape: ClassVar[Literal[1]] = DIFF
    symbol: str
    first_update_id: Id
    last_update_id: Id
    prev_update_id: Id
    bids: list[WireLevel]
    asks: list[WireLevel]
    event_time: WireTime
    trade_time: WireTime | None = None


class Message(msgspec.Struct, gc=False):
    """The combined envelope."""

    data: AggTrade | DepthUpdate | RawTrade | BookTicker | MarkPriceUpdate | ForceOrder


_decoder = msgspec.json.Decoder(Message, strict=False)
_decode = _decoder.decode
RECORDED = frozenset({"aggTrade", "trade", "depthUpdate", "bookTicker", "markPriceUpdate", "forceOrder"})
KNOWN = frozenset(
    {
        "kline",
        "contractInfo",
        "24hrTicker",
    }
)


class BinanceUsdm:
    """USD-M futures of Binance."""

    name: str = "binance-usdm"
    ws_url: str = "wss://fstream.binance.com"
    rest_url: str = "https://fapi.binance.com"
    #: 200 in one source, 1024 in another.
    max_streams: int = 200
    messages_per_s: int = 10
    weight_per_minute: int = 2400
    depth_rule: DepthRule = "usdm"
    channels: tuple[Channel, ...] = CHANNELS

    def __init__(self) -> None:
        self._runs = RunReader(_decode)
        self._diffs = DiffReader(self.decode)

    def connections(
        self, feed: Feed, symbols: Sequence[str], options: StreamOptions, *, ws_url: str, max_streams: int
    ) -> list[ConnectionPlan]:
        """Split ``symbols`` over connections on the route that carries the feed."""
        if feed in CHANNEL_ROUTES:
            return self._channel_connections(feed, symbols, options, ws_url=ws_url, max_streams=max_streams)
        event = options.trade_event if feed == "trade" else "depth"
        suffix = f"@{options.depth_interval_ms}ms" if feed == "orderbook" else ""
        url = f"{ws_url}/{ROUTES[event]}/stream"
        return binance.split_connections(
            feed, url, symbols, lambda symbol: f"{binance.stream_symbol(symbol)}@{event}{suffix}", max_streams
        )

    def _channel_connections(
        self, feed: Feed, symbols: Sequence[str], options: StreamOptions, *, ws_url: str, max_streams: int
    ) -> list[ConnectionPlan]:
        events = {
            "bbo": "bookTicker",
            "mark": MARK_STREAM,
            "liquidations": "forceOrder",
            "partial_depth": f"depth{options.partial_levels}@{options.partial_interval_ms}ms",
        }
        return binance.split_connections(
            feed,
            f"{ws_url}/{CHANNEL_ROUTES[feed]}/stream",
            symbols,
            lambda symbol: f"{binance.stream_symbol(symbol)}@{events[feed]}",
            max_streams,
            # Liquidations may not come for hours: what always flows shows that the connection delivers.
            pulse=MARK_STREAM if feed == "liquidations" else "",
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
            message = _decode(frame).data
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            return binance.decode_control(self.name, frame, RECORDED, KNOWN, str(error))
        # Nearly every diff's stream names its interval: one search is all that it costs them.
        if type(message) is DepthUpdate and frame.find(b"@depth@") < 0 and binance.is_partial_depth(frame):
            return PartialDepth(
                message.symbol,
                message.last_update_id,
                message.bids,
                message.asks,
                message.event_time,
                message.trade_time,
            )
        return message  # type: ignore[return-value]

    def decode_runs(self, lines: bytes) -> Sequence[TradeRun | DiffRun] | None:
        """Decode a block of nothing but trades, or nothing but diffs, in columns; None where it is to be decoded otherwise."""
        return self._runs.read(lines) or self._diffs.read(lines)

    def decode_lines(self, lines: bytes) -> list[Trade | BookDiff | ChannelMessage | Control] | None:
        """Decode a block that is in one piece at one stroke; None where its messages are to be decoded one by one."""
        messages = binance.decode_lines(_decoder, lines)
        # Whether it is a diff, or partial depth, the stream's name alone can tell.
        return None if messages is None or DepthUpdate in set(map(type, messages)) else messages

    def symbol_of(self, frame: bytes) -> str | None:
        """Tell at a glance which symbol a message is of; None where only ``decode`` can tell."""
        return binance.symbol_at_a_glance(frame)

    def id_space(self, event: TradeEvent) -> IdSpace:
        """Name the id space of the trade ids that ``event`` carries."""
        return "aggregate" if event == "aggTrade" else "raw"

    def snapshot_request(self, symbol: str, levels: int) -> RestRequest:
        """Ask for a depth snapshot with the next number of levels that the venue serves (1000 at most)."""
        limit = next((served for served in SNAPSHOT_WEIGHTS if served >= levels), 1000)
        path = f"/fapi/v1/depth?symbol={binance.query_symbol(symbol)}&limit={limit}"
        return RestRequest(path, SNAPSHOT_WEIGHTS[limit])

    def decode_snapshot(self, body: bytes) -> BookSnapshot:
        """Decode the answer to ``snapshot_request``.

        Raises:
            MalformedMessageError: the body is not a snapshot.
        """
        return binance.decode_snapshot(self.name, body)

    def trades_request(self, event: TradeEvent, symbol: str, from_id: int) -> RestRequest | None:
        """Ask for trades: aggregate ones by id (of the last 48 hours), of the raw ones the most recent thousand."""
        name = binance.query_symbol(symbol)
        if event == "aggTrade":
            return RestRequest(f"/fapi/v1/aggTrades?symbol={name}&fromId={from_id}&limit=1000", 20)
        # Raw trades by id need a key, and no credentials are taken.
        return RestRequest(f"/fapi/v1/trades?symbol={name}&limit=1000", 5)

    def latest_trade_request(self, event: TradeEvent, symbol: str) -> RestRequest:
        """Ask for the newest trade."""
        kind, weight = ("aggTrades", 20) if event == "aggTrade" else ("trades", 5)
        return RestRequest(f"/fapi/v1/{kind}?symbol={binance.query_symbol(symbol)}&limit=1", weight)

    def open_interest_request(self, symbol: str) -> RestRequest | None:
        """Ask for the open interest."""
        return RestRequest(f"/fapi/v1/openInterest?symbol={binance.query_symbol(symbol)}", 1)

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
        return binance.decode_trades(self.name, event, symbol, body, "MARKET")

    def instruments_request(self) -> RestRequest:
        """Ask for all instruments."""
        return RestRequest("/fapi/v1/exchangeInfo", 1)

    def decode_instruments(self, body: bytes) -> list[Instrument]:
        """Decode the answer to ``instruments_request``.

        Raises:
            MalformedMessageError: the body is not an exchangeInfo.
        """
        return binance.decode_instruments(self.name, body)
