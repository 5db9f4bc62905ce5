"""The messages of the other channels, and the connections that carry them."""

from __future__ import annotations

from pathlib import Path

import pytest

from harvest.errors import MalformedMessageError
from harvest.market import CHANNEL, CHANNELS, DIFF
from harvest.settings.channel_checks import SERVED
from harvest.venues import VENUES
from harvest.venues.protocol import StreamOptions

PAYLOADS = Path(__file__).parents[1] / "payloads"
USDM, SPOT = VENUES["binance-usdm"], VENUES["binance-spot"]
#: What holds a number in each message, as the wire has it.
NUMBERS = [
    (USDM, "bookTicker", b'"b":"63943.90"'),
    (USDM, "bookTicker", b'"A":"0.095"'),
    (USDM, "bookTicker", b'"u":4984028370881'),
    (USDM, "bookTicker", b'"E":1721347022508'),
    (USDM, "markPrice", b'"p":"84551.10762319"'),
    (USDM, "markPrice", b'"ap":"84551.10762320"'),
    (USDM, "forceOrder", b'"q":"1147"'),
    (USDM, "forceOrder", b'"T":1790526560090'),
    (USDM, "partialDepth", b'["63943.80","0.007"]'),
    (SPOT, "bookTicker", b'"b":"61837.63000000"'),
    (SPOT, "bookTicker", b'"u":50093239212'),
    (SPOT, "partialDepth", b'"lastUpdateId":50093239212'),
    (SPOT, "partialDepth", b'["61837.62000000","0.00100000"]'),
]


def payload(venue, name):
    return (PAYLOADS / venue.name.replace("-", "_") / f"{name}.json").read_bytes().strip()


def test_usdm_best_quote_has_both_times():
    quote = USDM.decode(payload(USDM, "bookTicker"))
    assert (quote.shape, quote.feed, quote.symbol, quote.update_id) == (
        CHANNEL,
        "bbo",
        "BTCUSDT",
        4984028370881,
    )
    assert (quote.bid_px, quote.bid_qty, quote.ask_px, quote.ask_qty) == (63943.9, 46.371, 63944.0, 0.095)
    assert (quote.trade_time, quote.event_time) == (1721347022507, 1721347022508)


def test_spot_best_quote_is_told_by_its_stream_and_has_no_time():
    quote = SPOT.decode(payload(SPOT, "bookTicker"))
    assert (quote.shape, quote.feed, quote.symbol, quote.update_id) == (
        CHANNEL,
        "bbo",
        "BTCUSDT",
        50093239212,
    )
    assert (quote.bid_px, quote.ask_qty) == (61837.63, 1.54698)
    assert (quote.trade_time, quote.event_time) == (None, None)


def test_mark_price_brings_its_funding():
    mark = USDM.decode(payload(USDM, "markPrice"))
    assert (mark.shape, mark.feed, mark.symbol, mark.event_time) == (
        CHANNEL,
        "mark",
        "BTCUSDT",
        1790526539000,
    )
    assert (mark.mark_price, mark.index_price) == (84551.10762319, 84590.87304348)
    assert (mark.settle_price, mark.average_price) == (84559.0909093, 84551.1076232)
    assert (mark.funding_rate, mark.next_funding_time) == (8.01e-06, 1790553600000)


def test_a_contract_that_pays_no_funding_has_none_and_the_average_may_be_left_out():
    frame = payload(USDM, "markPrice").replace(b'"r":"0.00000801","T":1790553600000', b'"r":"","T":0')
    mark = USDM.decode(frame.replace(b'"ap":"84551.10762320",', b""))
    assert (mark.funding_rate, mark.next_funding_time, mark.average_price) == (None, None, None)
    negative = payload(USDM, "markPrice").replace(b'"r":"', b'"r":"-')
    assert USDM.decode(negative).funding_rate == -8.01e-06


def test_a_liquidation_is_an_order_and_equal_orders_are_equal():
    liquidation = USDM.decode(payload(USDM, "forceOrder"))
    assert (liquidation.shape, liquidation.feed, liquidation.symbol) == (CHANNEL, "liquidations", "DOGEUSDT")
    order = liquidation.order
    assert (order.side, order.order_type, order.time_in_force, order.status) == (
        "SELL",
        "LIMIT",
        "IOC",
        "FILLED",
    )
    assert (order.price, order.average_price) == (0.09634, 0.09696)
    assert (order.qty, order.last_qty, order.filled_qty) == (1147.0, 147.0, 1147.0)
    assert (liquidation.event_time, order.trade_time) == (1790526561105, 1790526560090)
    later = USDM.decode(payload(USDM, "forceOrder").replace(b"1790526561105", b"1790526561106"))
    assert later.order == order


@pytest.mark.parametrize("venue", [USDM, SPOT], ids=lambda venue: venue.name)
def test_partial_depth_is_told_from_diffs_by_its_stream_alone(venue):
    book = venue.decode(payload(venue, "partialDepth"))
    assert (book.shape, book.feed, book.symbol) == (CHANNEL, "partial_depth", "BTCUSDT")
    assert (len(book.bids), len(book.asks)) == (2, 1)
    for stream in (b"@depth@100ms", b"@depth"):
        diff = payload(venue, "depthUpdate").replace(b"@depth@100ms", stream)
        assert venue.decode(diff).shape == DIFF
    whole_second = payload(venue, "partialDepth").replace(b"@depth5@100ms", b"@depth20")
    assert venue.decode(whole_second).feed == "partial_depth"


def test_partial_depth_of_spot_gets_the_symbol_of_its_stream():
    frame = payload(SPOT, "partialDepth").replace(b"btcusdt@", "牛来usdt@".encode())
    assert SPOT.decode(frame).symbol == "牛来USDT"
    assert USDM.decode(payload(USDM, "partialDepth")).update_id == 4984028370881


def test_open_interest_is_asked_for_and_decoded_where_the_venue_has_it():
    request = USDM.open_interest_request("牛来USDT")
    assert (request.path, request.weight) == ("/fapi/v1/openInterest?symbol=%E7%89%9B%E6%9D%A5USDT", 1)
    found = USDM.decode_open_interest(payload(USDM, "openInterest"))
    assert (found.symbol, found.open_interest, found.event_time) == ("BTCUSDT", 10659.509, 1589437530011)
    with pytest.raises(MalformedMessageError):
        USDM.decode_open_interest(b'{"openInterest":"NaN","symbol":"BTCUSDT","time":1}')
    assert SPOT.open_interest_request("BTCUSDT") is None


@pytest.mark.parametrize(("venue", "name", "number"), NUMBERS)
@pytest.mark.parametrize("bad", [b"-1", b"NaN", b"inf", b"1e999", b"x"])
def test_numbers_that_are_none_are_malformed(venue, name, number, bad):
    frame = payload(venue, name)
    assert number in frame
    if number.startswith(b"["):
        broken = number.split(b",")[0] + b',"' + bad + b'"]'
    else:
        broken = number.split(b":")[0] + b':"' + bad + b'"'
    with pytest.raises(MalformedMessageError) as caught:
        venue.decode(frame.replace(number, broken, 1))
    assert caught.value.why


@pytest.mark.parametrize("bad", [b"NaN", b"inf", b"1e9", b"x", b"--1", b"9999999999"])
def test_a_funding_rate_that_is_no_plain_number_is_malformed(bad):
    with pytest.raises(MalformedMessageError):
        USDM.decode(payload(USDM, "markPrice").replace(b"0.00000801", bad))


def test_the_settings_know_what_the_venues_serve():
    assert {name: venue.channels for name, venue in VENUES.items()} == SERVED


def plans(venue, feed, symbols=("BTCUSDT", "ETHUSDT"), max_streams=200, **options):
    return venue.connections(
        feed, symbols, StreamOptions(**options), ws_url="wss://v", max_streams=max_streams
    )


def test_each_channel_is_on_the_route_that_carries_it():
    found = {feed: plans(USDM, feed)[0] for feed in CHANNELS if feed != "open_interest"}
    assert {feed: plan.url for feed, plan in found.items()} == {
        "bbo": "wss://v/public/stream",
        "partial_depth": "wss://v/public/stream",
        "mark": "wss://v/market/stream",
        "liquidations": "wss://v/market/stream",
    }
    assert found["bbo"].streams == ("btcusdt@bookTicker", "ethusdt@bookTicker")
    assert found["mark"].streams == ("btcusdt@markPrice@1s", "ethusdt@markPrice@1s")
    assert found["partial_depth"].streams[0] == "btcusdt@depth20@100ms"


def test_liquidations_are_carried_with_a_pulse_within_the_limit():
    (plan,) = plans(USDM, "liquidations")
    assert plan.streams == ("btcusdt@forceOrder", "ethusdt@forceOrder", "btcusdt@markPrice@1s")
    one_each = plans(USDM, "liquidations", max_streams=2)
    assert [one.streams for one in one_each] == [
        ("btcusdt@forceOrder", "btcusdt@markPrice@1s"),
        ("ethusdt@forceOrder", "ethusdt@markPrice@1s"),
    ]


def test_partial_depth_of_one_second_names_no_interval_on_spot():
    options = {"partial_levels": 5, "partial_interval_ms": 1000}
    assert plans(SPOT, "partial_depth", **options)[0].streams[0] == "btcusdt@depth5"
    assert plans(SPOT, "partial_depth")[0].streams[0] == "btcusdt@depth20@100ms"
    assert plans(SPOT, "bbo")[0].streams[0] == "btcusdt@bookTicker"
