from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from harvest.errors import MalformedMessageError, UnknownSymbolError
from harvest.market import CONTROL, DIFF, TRADE
from harvest.venues import VENUES
from harvest.venues.binance import STREAMS_PER_REQUEST, check_symbols, decode_instruments
from harvest.venues.protocol import Acknowledgement, OtherEvent, Refusal, ShutdownNotice, StreamOptions

PAYLOADS = Path(__file__).parents[1] / "payloads"
USDM = VENUES["binance-usdm"]
SPOT = VENUES["binance-spot"]
BOTH = pytest.mark.parametrize("venue", [USDM, SPOT], ids=lambda venue: venue.name)


def payload(venue: str, name: str) -> bytes:
    return (PAYLOADS / venue / f"{name}.json").read_bytes().strip()


def test_usdm_aggregate_trade_with_new_fields_is_decoded_under_our_names():
    trade = USDM.decode(payload("binance_usdm", "aggTrade"))
    assert (trade.shape, trade.id_space, trade.trade_type) == (TRADE, "aggregate", None)
    assert (trade.symbol, trade.trade_id, trade.price, trade.qty) == ("BTCUSDT", 3466782974, 84551.1, 0.03)
    assert (trade.event_time, trade.trade_time, trade.aggressor_sold) == (1790526539033, 1790526538883, False)


def test_usdm_raw_trade_says_its_type_and_that_the_aggressor_sold():
    trade = USDM.decode(payload("binance_usdm", "trade"))
    assert (trade.id_space, trade.trade_type, trade.trade_id) == ("raw", "MARKET", 5182005737)
    assert trade.aggressor_sold
    assert (trade.event_time, trade.trade_time) == (1721347022956, 1721347022955)


def test_usdm_diff_has_the_id_of_its_predecessor():
    diff = USDM.decode(payload("binance_usdm", "depthUpdate"))
    assert diff.shape == DIFF
    assert (diff.first_update_id, diff.last_update_id) == (4984034747463, 4984034747467)
    assert diff.prev_update_id == 4984033952967
    assert diff.bids == [(63335.1, 1.136), (63462.6, 0.0)]
    assert diff.asks == [(64020.4, 0.0)]


@pytest.mark.parametrize(
    ("name", "id_space", "trade_id"), [("aggTrade", "aggregate", 3010230123), ("trade", "raw", 3735683259)]
)
def test_spot_trades_are_decoded(name, id_space, trade_id):
    trade = SPOT.decode(payload("binance_spot", name))
    assert (trade.shape, trade.id_space, trade.trade_id) == (TRADE, id_space, trade_id)
    assert (trade.price, trade.qty, trade.aggressor_sold) == (61837.63, 0.02, True)
    assert trade.trade_type is None


def test_spot_diff_has_no_predecessor_and_no_trade_time():
    diff = SPOT.decode(payload("binance_spot", "depthUpdate"))
    assert (diff.shape, diff.prev_update_id, diff.trade_time) == (DIFF, None, None)
    assert (diff.first_update_id, diff.last_update_id) == (50093239203, 50093239207)


def test_usdm_snapshot_has_times_and_spot_has_none():
    usdm = USDM.decode_snapshot(payload("binance_usdm", "snapshot"))
    assert (usdm.last_update_id, usdm.event_time, usdm.trade_time) == (
        4984028384061,
        1721347022759,
        1721347022750,
    )
    assert usdm.bids == [(63943.9, 46.372), (63943.8, 0.007)]
    spot = SPOT.decode_snapshot(payload("binance_spot", "snapshot"))
    assert (spot.last_update_id, spot.event_time, spot.trade_time) == (50093239218, None, None)


@BOTH
def test_answers_and_notices_are_control_messages(venue):
    expected = {
        b'{"result":null,"id":1}': Acknowledgement(1),
        b'{"code":2,"msg":"Invalid request"}': Refusal(None, 2, "Invalid request"),
        b'{"error":{"code":-1121,"msg":"bad"},"id":3}': Refusal(3, -1121, "bad"),
        b'{"error":"no","id":3}': Refusal(3, None, "no"),
        b'{"e":"serverShutdown","E":1}': ShutdownNotice(),
        b'{"stream":"!serverShutdown","data":{"e":"serverShutdown","E":1}}': ShutdownNotice(),
        b'{"stream":"btcusdt@kline_1m","data":{"e":"kline"}}': OtherEvent("kline", known=True),
        b'{"stream":"btcusdt@x","data":{"e":"brandNew"}}': OtherEvent("brandNew", known=False),
        b"{}": OtherEvent("(unnamed)", known=False),
    }
    for frame, message in expected.items():
        decoded = venue.decode(frame)
        assert decoded == message
        assert decoded.shape == CONTROL


@BOTH
@pytest.mark.parametrize(
    ("was", "becomes"),
    [
        (b'"p":"', b'"p":"NaN'),
        (b'"p":"', b'"p":"-'),
        (b'"q":"', b'"q":"inf'),
        (b'"q":"', b'"q":"1e999'),
        (b'"E":', b'"E":99999999999999999999'),
        (b'"m":', b'"m":"perhaps","was":'),
        (b'"s":"', b'"s":["'),
    ],
)
def test_numbers_that_are_none_and_broken_fields_are_malformed(venue, was, becomes):
    frame = payload(venue.name.replace("-", "_"), "aggTrade")
    broken = frame.replace(was, becomes, 1)
    with pytest.raises(MalformedMessageError) as caught:
        venue.decode(broken)
    assert caught.value.raw == broken
    assert caught.value.why


@BOTH
@pytest.mark.parametrize("level", ['["1","-1"]', '["nan","1"]', '["1","inf"]', '["1"]', '["1","2","3"]', "5"])
def test_a_diff_with_one_broken_level_is_malformed_as_a_whole(venue, level):
    frame = payload(venue.name.replace("-", "_"), "depthUpdate").decode()
    with pytest.raises(MalformedMessageError):
        venue.decode(frame.replace('"b":[', f'"b":[{level},').encode())


@BOTH
@pytest.mark.parametrize(
    "raw", [b"", b"[]", b"\xff\xfe", b"{", b'{"data":' + b"[" * 100_000, b'{"stream":5}']
)
def test_what_is_no_message_at_all_is_malformed_and_never_crashes(venue, raw):
    with pytest.raises(MalformedMessageError):
        venue.decode(raw)
    with pytest.raises(MalformedMessageError):
        venue.decode_snapshot(raw)
    with pytest.raises(MalformedMessageError):
        venue.decode_instruments(raw)


@BOTH
def test_integers_are_bounded_to_64_bits(venue):
    frame = payload(venue.name.replace("-", "_"), "aggTrade")
    trade_id = str(venue.decode(frame).trade_id).encode()
    assert venue.decode(frame.replace(trade_id, str(2**63 - 1).encode())).trade_id == 2**63 - 1
    with pytest.raises(MalformedMessageError):
        venue.decode(frame.replace(trade_id, str(2**63).encode()))


def test_usdm_streams_go_to_the_route_that_carries_them():
    def plan(feed, event="aggTrade"):
        options = StreamOptions(event, 100)
        (only,) = USDM.connections(
            feed, ["BTCUSDT", "牛来USDT"], options, ws_url=USDM.ws_url, max_streams=200
        )
        return only

    assert plan("trade").url == "wss://fstream.binance.com/market/stream"
    assert plan("trade", "trade").url == "wss://fstream.binance.com/public/stream"
    assert plan("orderbook").url == "wss://fstream.binance.com/public/stream"
    assert plan("trade").streams == ("btcusdt@aggTrade", "牛来usdt@aggTrade")
    assert plan("orderbook").streams == ("btcusdt@depth@100ms", "牛来usdt@depth@100ms")


def test_spot_names_the_depth_stream_of_a_second_without_an_interval():
    for interval, name in ((100, "btcusdt@depth@100ms"), (1000, "btcusdt@depth")):
        options = StreamOptions("aggTrade", interval)
        (plan,) = SPOT.connections("orderbook", ["BTCUSDT"], options, ws_url="wss://h", max_streams=1024)
        assert plan.streams == (name,)
        assert plan.url == "wss://h/stream"


@BOTH
def test_streams_are_split_by_the_limit_and_every_one_is_subscribed_once(venue):
    symbols = [f"S{number}USDT" for number in range(451)]
    plans = venue.connections("trade", symbols, StreamOptions(), ws_url="wss://h", max_streams=200)
    assert [len(plan.streams) for plan in plans] == [200, 200, 51]
    assert [symbol for plan in plans for symbol in plan.symbols] == symbols
    for plan in plans:
        requests = [msgspec.json.decode(request) for request in venue.subscribe(plan.streams, 1)]
        assert [stream for request in requests for stream in request["params"]] == list(plan.streams)
        assert [request["id"] for request in requests] == list(range(1, len(requests) + 1))
        assert all(len(request["params"]) <= STREAMS_PER_REQUEST for request in requests)


@pytest.mark.parametrize(
    ("venue", "levels", "path", "weight"),
    [
        (USDM, 5, "/fapi/v1/depth?symbol=BTCUSDT&limit=5", 2),
        (USDM, 60, "/fapi/v1/depth?symbol=BTCUSDT&limit=100", 5),
        (USDM, 5000, "/fapi/v1/depth?symbol=BTCUSDT&limit=1000", 20),
        (SPOT, 100, "/api/v3/depth?symbol=BTCUSDT&limit=100", 5),
        (SPOT, 1000, "/api/v3/depth?symbol=BTCUSDT&limit=1000", 50),
        (SPOT, 9999, "/api/v3/depth?symbol=BTCUSDT&limit=5000", 250),
    ],
)
def test_snapshot_requests_cost_what_the_venue_charges(venue, levels, path, weight):
    request = venue.snapshot_request("BTCUSDT", levels)
    assert (request.path, request.weight) == (path, weight)


def test_a_symbol_beyond_ascii_is_encoded_in_the_query():
    assert "symbol=%E7%89%9B%E6%9D%A5USDT&" in USDM.snapshot_request("牛来USDT", 5).path


def test_instruments_say_whether_they_trade_and_whether_float_holds_them():
    btc, eth, cow = USDM.decode_instruments(payload("binance_usdm", "exchangeInfo"))
    assert (btc.symbol, btc.trading, btc.tick_size, btc.step_size, btc.float_exact) == (
        "BTCUSDT",
        True,
        0.1,
        0.001,
        True,
    )
    assert not eth.trading
    assert (cow.symbol, cow.float_exact) == ("牛来USDT", False)


def test_an_unknown_symbol_is_refused_with_what_was_probably_meant():
    instruments = decode_instruments("binance-usdm", payload("binance_usdm", "exchangeInfo"))
    with pytest.raises(UnknownSymbolError, match=r"BTCUSD \(did you mean BTCUSDT.*Take it out of --symbols"):
        check_symbols("binance-usdm", ["BTCUSD", "ETHUSDT"], instruments)
    warnings = check_symbols("binance-usdm", ["BTCUSDT", "ETHUSDT", "牛来USDT"], instruments)
    assert len(warnings) == 2
    assert "ETHUSDT is listed, but not trading now" in warnings[0]
    assert "牛来USDT" in warnings[1]
