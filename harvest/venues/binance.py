"""What Binance's markets share: the envelope, requests and answers, exchangeInfo, and splitting streams over connections.

Source: https://developers.binance.com/docs (spot web-socket-streams, USD-M futures websocket market streams).
"""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import msgspec

from harvest.errors import MalformedMessageError, UnknownSymbolError
from harvest.market import BookSnapshot, Feed, Instrument, Level
from harvest.venues import blocks
from harvest.venues.binance_channels import RestOpenInterest
from harvest.venues.binance_wire import ExchangeInfo, RestAggTrade, RestTrade, WireInstrument, WireSnapshot
from harvest.venues.protocol import (
    Acknowledgement,
    ConnectionPlan,
    Control,
    OtherEvent,
    Refusal,
    ShutdownNotice,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from harvest.market import OpenInterest, Trade
    from harvest.venues.protocol import TradeEvent

#: A request may name this many streams, which keeps it far below the venue's limit for one message.
STREAMS_PER_REQUEST = 100
#: The name of a combined message's stream ends within these bytes: symbols have 64 characters at most.
STREAM_NAME_BYTES = 320
#: The mean size of messages above which they are decoded one by one.
LARGE_BYTES = 512
#: What exchangeInfo says of an instrument that will not trade again.
ENDED = frozenset({"SETTLING", "DELIVERING", "DELIVERED", "CLOSE", "CLOSED"})
#: maximum / step below this is held exactly by float64, whose integers are exact to 2**53.
EXACT_STEPS = 1e15
_SYMBOL = b'"s":"'


def split_connections(
    feed: Feed,
    url: str,
    symbols: Sequence[str],
    name_stream: Callable[[str], str],
    max_streams: int,
    *,
    pulse: str = "",
) -> list[ConnectionPlan]:
    """Split one stream a symbol over connections of at most ``max_streams`` streams each.

    With a ``pulse`` each connection also has that stream of its first symbol (and so two streams at least).
    """
    plans = []
    size = max(max_streams - 1, 1) if pulse else max_streams
    for start in range(0, len(symbols), size):
        part = tuple(symbols[start : start + size])
        streams = tuple(name_stream(symbol) for symbol in part)
        if pulse:
            streams += (f"{stream_symbol(part[0])}@{pulse}",)
        plans.append(ConnectionPlan(feed, url, part, streams))
    return plans


def requests(method: str, streams: Sequence[str], first_id: int) -> list[str]:
    """Make the requests that subscribe to ``streams`` or unsubscribe from them, with ascending ids."""
    made = []
    for number, start in enumerate(range(0, len(streams), STREAMS_PER_REQUEST), start=first_id):
        params = list(streams[start : start + STREAMS_PER_REQUEST])
        made.append(msgspec.json.encode({"method": method, "params": params, "id": number}).decode())
    return made


def is_market_data(frame: bytes) -> bool:
    """Tell whether a message of a combined stream is neither an answer nor one of the venue's own (``!…``)."""
    return frame.startswith(b'{"stream":"') and not frame.startswith(b'{"stream":"!')


def symbol_at_a_glance(frame: bytes) -> str | None:
    """Return what a message's only field ``s`` says; None where it has none, several, or one that is not plain text."""
    at = frame.find(_SYMBOL)
    if at < 0 or frame.find(_SYMBOL[:3], at + len(_SYMBOL)) >= 0:
        return None
    name, quote_mark, _ = frame[at + len(_SYMBOL) :].partition(b'"')
    return name.decode() if quote_mark and name.isascii() and b"\\" not in name else None


class Envelope(msgspec.Struct, gc=False):
    """The part of any answer that says what it is. Everything is optional, unknown fields are skipped."""

    stream: str | None = None
    data: Any = None
    event: str | None = msgspec.field(name="e", default=None)
    id: int | None = None
    error: Any = None
    code: int | None = None
    msg: str | None = None
    result: Any = msgspec.UNSET


_envelope = msgspec.json.Decoder(Envelope)


def decode_control(
    venue: str, frame: bytes, recorded: frozenset[str], known: frozenset[str], why: str
) -> Control:
    """Decode what is neither a trade nor a diff: an answer, a notice, or an event that is not recorded.

    ``recorded`` are the events that the typed decoder takes: one of them here is malformed, for the reason ``why``.

    Raises:
        MalformedMessageError: not JSON, not an object, or a recorded event that did not decode.

    Source: https://developers.binance.com/docs/binance-spot-api-docs/web-socket-streams
    """
    try:
        envelope = _envelope.decode(frame)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedMessageError(venue, _reason(error), frame) from None
    if envelope.error is not None or envelope.code is not None:
        return _refusal(envelope)
    data = envelope.data if isinstance(envelope.data, dict) else None
    event = envelope.event if data is None else data.get("e")
    if event == "serverShutdown":
        return ShutdownNotice()
    if isinstance(event, str):
        if event in recorded:
            raise MalformedMessageError(venue, why, frame)
        return OtherEvent(event, event in known)
    if envelope.result is not msgspec.UNSET:
        return Acknowledgement(envelope.id)
    if envelope.stream is not None:
        # Partial depth and the spot bookTicker carry no event name: the stream's name is all there is.
        channel = envelope.stream.partition("@")[2].partition("@")[0] or envelope.stream
        return OtherEvent(channel, channel in known)
    return OtherEvent("(unnamed)", known=False)


def _refusal(envelope: Envelope) -> Refusal:
    error = envelope.error
    if isinstance(error, dict):
        code, message = error.get("code"), error.get("msg")
    elif error is not None:
        code, message = None, str(error)
    else:
        code, message = envelope.code, envelope.msg
    return Refusal(envelope.id, code if isinstance(code, int) else None, str(message))


def _reason(error: Exception) -> str:
    return "nested too deeply" if isinstance(error, RecursionError) else str(error)


def decode_lines(decoder: msgspec.json.Decoder[Any], lines: bytes) -> list[Any] | None:
    """Decode the messages of a block in one piece, the ``data`` of each; None if one of them is not what ``decoder`` takes.

    Large ones are better decoded one by one: what one of them leaves in the processor's cache serves the next.
    """
    expected = blocks.count(lines)
    if len(lines) > LARGE_BYTES * expected:
        return None
    try:
        messages = [envelope.data for envelope in decoder.decode_lines(lines)]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    # A payload that holds two would pass; none is empty, so that their number tells.
    return messages if len(messages) == expected else None


def decode_typed(decoder: msgspec.json.Decoder[Any], venue: str, what: str, body: bytes) -> Any:
    """Decode a REST body.

    Raises:
        MalformedMessageError: the body is not a ``what``.
    """
    try:
        return decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedMessageError(venue, f"not {what}: {_reason(error)}", body) from None


_snapshot = msgspec.json.Decoder(WireSnapshot, strict=False)


def decode_snapshot(venue: str, body: bytes) -> BookSnapshot:
    """Decode the body of ``/depth``.

    Raises:
        MalformedMessageError: the body is not a snapshot.

    Source: GET /api/v3/depth, GET /fapi/v1/depth
    """
    wire: WireSnapshot = decode_typed(_snapshot, venue, "a depth snapshot", body)
    bids: list[Level] = wire.bids
    asks: list[Level] = wire.asks
    return BookSnapshot(wire.last_update_id, bids, asks, wire.event_time, wire.trade_time)


_open_interest = msgspec.json.Decoder(RestOpenInterest, strict=False)


def decode_open_interest(venue: str, body: bytes) -> OpenInterest:
    """Decode the body of ``/openInterest``.

    Raises:
        MalformedMessageError: the body is not an open interest.

    Source: GET /fapi/v1/openInterest
    """
    found: OpenInterest = decode_typed(_open_interest, venue, "an open interest", body)
    return found


def is_partial_depth(frame: bytes) -> bool:
    """Tell by the stream's name whether a message is partial depth, which on USD-M looks like a diff."""
    at = frame.find(b"@depth", 0, STREAM_NAME_BYTES)
    return at >= 0 and frame[at + 6 : at + 7].isdigit()


_agg_trades = msgspec.json.Decoder(list[RestAggTrade], strict=False)
_trades = msgspec.json.Decoder(list[RestTrade], strict=False)


def decode_trades(
    venue: str, event: TradeEvent, symbol: str, body: bytes, trade_type: str | None
) -> list[Trade]:
    """Decode a page of aggregate or raw trades; ``trade_type`` is what REST's raw trades are, where the venue has types.

    Raises:
        MalformedMessageError: the body is not a page of trades.

    Source: GET /aggTrades, /historicalTrades, /trades
    """
    decoder = _agg_trades if event == "aggTrade" else _trades
    rows: list[Any] = decode_typed(decoder, venue, "a page of trades", body)
    for row in rows:
        row.symbol = symbol
        if event == "trade":
            row.trade_type = trade_type
    return sorted(rows, key=lambda row: row.trade_id)


_exchange_info = msgspec.json.Decoder(ExchangeInfo, strict=False)


def decode_instruments(venue: str, body: bytes) -> list[Instrument]:
    """Decode exchangeInfo into instruments, and tell whether float64 holds their numbers exactly.

    Raises:
        MalformedMessageError: the body is not an exchangeInfo.

    Source: GET /api/v3/exchangeInfo, GET /fapi/v1/exchangeInfo
    """
    info: ExchangeInfo = decode_typed(_exchange_info, venue, "an exchangeInfo", body)
    return [_instrument(venue, wire) for wire in info.symbols]


def _instrument(venue: str, wire: WireInstrument) -> Instrument:
    tick = step = None
    exact = True
    for item in wire.filters:
        if item.kind == "PRICE_FILTER":
            tick = item.tick_size
            exact = exact and _is_exact(item.max_price, item.tick_size)
        elif item.kind == "LOT_SIZE":
            step = item.step_size
            exact = exact and _is_exact(item.max_qty, item.step_size)
    return Instrument(
        venue, wire.symbol, wire.status == "TRADING", tick, step, exact, wire.status, wire.status in ENDED
    )


def _is_exact(maximum: float | None, step: float | None) -> bool:
    return bool(maximum and step and maximum / step < EXACT_STEPS)


def check_symbols(venue: str, symbols: Sequence[str], instruments: Sequence[Instrument]) -> list[str]:
    """Return what is wrong with ``symbols`` but does not hinder (not trading now; not exact in float64).

    Raises:
        UnknownSymbolError: the venue does not list one; it would acknowledge it and stay silent for ever.
    """
    listed = {instrument.symbol: instrument for instrument in instruments}
    unknown = [symbol for symbol in symbols if symbol not in listed]
    if unknown:
        close = {symbol: difflib.get_close_matches(symbol, listed, n=3) for symbol in unknown}
        raise UnknownSymbolError(venue, unknown, close)
    warnings = [
        f"{symbol} is listed, but not trading now" for symbol in symbols if not listed[symbol].trading
    ]
    warnings += [
        f"{symbol}: its maximum over its step exceeds what float64 holds exactly; the last digits may be rounded"
        for symbol in symbols
        if not listed[symbol].float_exact
    ]
    return warnings


def stream_symbol(symbol: str) -> str:
    """Write a symbol as stream names have it: lower case, also beyond ASCII."""
    return symbol.lower()


def query_symbol(symbol: str) -> str:
    """Write a symbol as a query value: percent-encoded UTF-8."""
    return quote(symbol, safe="")
