from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harvest.simulator.clock import EPOCH_NS
from harvest.simulator.listing import list_symbols
from harvest.simulator.noise import ValueNoise, key_of, mix, mix_array
from harvest.simulator.random_book import RandomBook
from harvest.simulator.random_market import RandomInstrument
from harvest.simulator.random_trades import RandomTrades
from harvest.simulator.rules import RULES

EPOCH_MS = EPOCH_NS // 1_000_000
VENUES = pytest.mark.parametrize("venue", sorted(RULES))
steps = st.integers(1, 2_000_000_000)
symbols = st.sampled_from(["BTCUSDT", "ETHUSDT", "ADAUSDT", "LTCUSDT", "NEVERHEARDUSDT", "牛来USDT"])


def book_of(venue: str, symbol: str, seed: int = 1) -> RandomBook:
    rules = RULES[venue]
    return RandomBook(list_symbols(rules, (symbol,))[symbol], seed, futures=rules.futures)


def trades_of(venue: str, symbol: str, seed: int = 1, rate: float = 1.0) -> RandomTrades:
    rules = RULES[venue]
    listed = list_symbols(rules, (symbol,))[symbol]
    book = RandomBook(listed, seed, futures=rules.futures)
    return RandomTrades(listed, book, seed, rate=rate, futures=rules.futures)


def apply(side: dict[int, int], changes: dict[int, int]) -> None:
    for tick, qty in changes.items():
        if qty:
            side[tick] = qty
        else:
            side.pop(tick, None)


@given(key=st.integers(0, 2**64 - 1), value=st.integers(-(2**62), 2**62))
def test_the_hash_of_an_array_is_that_of_its_elements(key: int, value: int) -> None:
    import numpy as np

    assert int(mix_array(key, np.array([value], dtype=np.int64))[0]) == mix(key, value)


@given(x=st.integers(-(10**12), 10**12))
def test_noise_needs_no_history(x: int) -> None:
    octaves = ((16, 1.0), (1024, 2.0))
    walked = ValueNoise(7, octaves)
    for near in range(x - 40, x):
        walked.at(near)
    assert walked.at(x) == ValueNoise(7, octaves).at(x)


def test_keys_do_not_confuse_their_words() -> None:
    assert key_of(1, "ab", "c") != key_of(1, "a", "bc") != key_of(2, "a", "bc")


@VENUES
@settings(max_examples=15, deadline=None)
@given(symbol=symbols, start=steps, seed=st.integers(0, 9), data=st.data())
def test_diffs_applied_to_a_snapshot_give_every_later_book(
    venue: str, symbol: str, start: int, seed: int, data: st.DataObject
) -> None:
    book = book_of(venue, symbol, seed)
    bids, asks = (dict(side) for side in book.levels(start))
    step, last_id = start, book.last_id(start)
    for window in data.draw(st.lists(st.integers(1, 20), min_size=3, max_size=8)):
        change = book.change(step, step + window)
        step += window
        if change is not None:
            assert change.prev_id == last_id < change.first_id <= change.last_id
            last_id = change.last_id
            apply(bids, change.bids)
            apply(asks, change.asks)
        assert (bids, asks) == book.levels(step)
        assert last_id == book.last_id(step)


@VENUES
@settings(max_examples=15, deadline=None)
@given(symbol=symbols, start=steps, cut=st.integers(1, 19))
def test_a_diff_may_be_applied_to_a_snapshot_from_inside_of_it(
    venue: str, symbol: str, start: int, cut: int
) -> None:
    book = book_of(venue, symbol)
    change = book.change(start, start + 20)
    bids, asks = (dict(side) for side in book.levels(start + cut))
    assert change is not None
    apply(bids, change.bids)
    apply(asks, change.asks)
    assert (bids, asks) == book.levels(start + 20)
    snapshot_id = book.last_id(start + cut)
    if snapshot_id != change.prev_id:
        spans = change.first_id <= snapshot_id <= change.last_id
        assert spans if RULES[venue].futures else change.first_id <= snapshot_id + 1 <= change.last_id + 1


@VENUES
@settings(max_examples=30, deadline=None)
@given(symbol=symbols, step=steps)
def test_the_book_is_never_crossed_and_best_comes_first(venue: str, symbol: str, step: int) -> None:
    book = book_of(venue, symbol)
    bids, asks = book.levels(step)
    assert list(bids) == sorted(bids, reverse=True)
    assert list(asks) == sorted(asks)
    assert next(iter(bids)) < next(iter(asks))
    assert (next(iter(bids)), next(iter(asks))) == book.touch(step)
    assert min(bids) > 0
    assert min(*bids.values(), *asks.values()) > 0
    assert 20 < len(bids) < 1000
    assert 20 < len(asks) < 1000


def test_update_ids_are_contiguous_on_spot_and_sparse_on_futures() -> None:
    spot, futures = book_of("binance-spot", "BTCUSDT"), book_of("binance-usdm", "BTCUSDT")
    for step in range(5000, 5100):
        change, sparse = spot.change(step - 1, step), futures.change(step - 1, step)
        assert change is not None
        assert change.first_id == change.prev_id + 1
        assert sparse is not None
        assert sparse.prev_id < sparse.first_id <= sparse.last_id
    assert any(
        (one := futures.change(step - 1, step)) and one.first_id > one.prev_id + 1 for step in range(50)
    )


def test_the_same_seed_gives_the_same_market_and_another_seed_another() -> None:
    assert book_of("binance-usdm", "BTCUSDT").levels(10**9) == book_of("binance-usdm", "BTCUSDT").levels(
        10**9
    )
    assert book_of("binance-usdm", "BTCUSDT", 2).levels(10**9) != book_of("binance-usdm", "BTCUSDT").levels(
        10**9
    )
    assert trades_of("binance-usdm", "BTCUSDT").orders_in(10**7) == trades_of(
        "binance-usdm", "BTCUSDT"
    ).orders_in(10**7)


@VENUES
@settings(max_examples=20, deadline=None)
@given(symbol=symbols, block=st.integers(1, 10**8), rate=st.sampled_from([0.3, 1.0, 40.0]))
def test_order_ids_are_contiguous_and_cover_the_raw_ids(
    venue: str, symbol: str, block: int, rate: float
) -> None:
    trades = trades_of(venue, symbol, rate=rate)
    orders = [order for near in range(block, block + 6) for order in trades.orders_in(near)]
    fills = [fill for order in orders for fill in trades.fills_of(order)]
    if not orders:
        return
    first, last = orders[0], orders[-1]
    assert [order.order_id for order in orders] == list(range(first.order_id, last.order_id + 1))
    assert [fill.trade_id for fill in fills] == list(range(fills[0].trade_id, fills[-1].trade_id + 1))
    assert [order.time_ms for order in orders] == sorted(order.time_ms for order in orders)
    for order in orders:
        market = [fill for fill in trades.fills_of(order) if fill.trade_type == "MARKET"]
        assert (market[0].trade_id, market[-1].trade_id) == (order.first_trade_id, order.last_trade_id)
        assert sum(fill.qty for fill in market) == order.qty
        assert all(fill.tick == order.tick for fill in market)
        assert all(trades.order_of(fill.trade_id) == order.order_id for fill in trades.fills_of(order))


@settings(max_examples=20, deadline=None)
@given(symbol=symbols, after_ms=st.integers(10**6, 10**11), back=st.integers(0, 40))
def test_orders_are_found_by_id_and_by_time_alike(symbol: str, after_ms: int, back: int) -> None:
    trades = trades_of("binance-usdm", symbol)
    end_ms = EPOCH_MS + after_ms
    newest = trades.newest_order_id(end_ms)
    by_id = list(trades.orders_from(newest - back, end_ms))
    assert [order.order_id for order in by_id] == list(range(max(1, newest - back), newest + 1))
    if by_id:
        by_time = [o for o in trades.orders_between(by_id[0].time_ms, end_ms) if o.order_id >= newest - back]
        assert by_time == by_id
    assert trades.last_orders(3, end_ms) == by_id[-3:] or back < 2


def test_rates_are_what_the_listing_says_and_scale() -> None:
    trades, tenfold = trades_of("binance-usdm", "BTCUSDT"), trades_of("binance-usdm", "BTCUSDT", rate=10.0)
    per_s = trades.orders_before(10**6) / 10**6
    assert 9.5 < per_s < 10.5
    assert tenfold.orders_before(10**6) == pytest.approx(10 * trades.orders_before(10**6), rel=1e-5)


def test_odd_trades_are_rare_and_in_no_aggregate() -> None:
    trades = trades_of("binance-usdm", "BTCUSDT", rate=100.0)
    orders = [order for block in range(1000, 1020) for order in trades.orders_in(block)]
    odd = [order for order in orders if order.odd_type is not None]
    assert 0 < len(odd) < len(orders) / 100
    spot = trades_of("binance-spot", "BTCUSDT", rate=100.0)
    assert not any(order.odd_type for block in range(1000, 1020) for order in spot.orders_in(block))


def test_prices_and_quantities_are_written_with_the_venues_digits() -> None:
    futures = list_symbols(RULES["binance-usdm"], ("BTCUSDT", "DOGEUSDT"))
    spot = list_symbols(RULES["binance-spot"], ("BTCUSDT",))
    assert (futures["BTCUSDT"].price(845004), futures["BTCUSDT"].qty(1)) == ("84500.40", "0.001")
    assert (spot["BTCUSDT"].price(8450001), spot["BTCUSDT"].qty(12)) == ("84500.01000000", "0.00012000")
    assert (futures["DOGEUSDT"].price(7), futures["DOGEUSDT"].qty(12)) == ("0.00007", "12")


def test_marks_and_liquidations_are_plausible() -> None:
    listed = list_symbols(RULES["binance-usdm"], ("BTCUSDT",))["BTCUSDT"]
    instrument = RandomInstrument(listed, 1, rate=1.0, futures=True)
    mark = instrument.mark_price(10**8)
    assert float(mark.mark) == pytest.approx(float(mark.index), rel=0.01)
    assert len(mark.funding_rate.lstrip("-")) == 10
    found = [one for second in range(1000) if (one := instrument.liquidation(second))]
    assert 3 < len(found) < 40
