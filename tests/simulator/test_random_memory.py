"""The random market is a function of the time: what it keeps of the past is bounded."""

from __future__ import annotations

import tracemalloc

from harvest.simulator.listing import list_symbols
from harvest.simulator.random_feed import RandomFeed
from harvest.simulator.random_market import RandomMarket
from harvest.simulator.rules import USDM
from harvest.simulator.streams import parse_stream

SYMBOLS = ("BTCUSDT", "SOLUSDT")
#: The second part is two minutes and a half later.
STEPS = (0, 3000)
MOST_BYTES_A_SYMBOL = 700_000


def test_the_market_keeps_little_of_its_past_however_long_it_runs():
    market = RandomMarket(list_symbols(USDM, SYMBOLS), 1, rate=1.0, futures=True)
    feed = RandomFeed(market, futures=True)
    keys = [
        parse_stream(f"{symbol.lower()}@{kind}", USDM)
        for symbol in SYMBOLS
        for kind in ("aggTrade", "depth@100ms")
    ]
    tracemalloc.start()
    try:
        sizes = []
        for first in STEPS:
            sent = sum(
                1
                for step in range(20_000_000 + first, 20_000_000 + first + 80)
                for key in keys
                if key is not None
                for _ in feed.messages(key, step)
            )
            assert sent > 100
            sizes.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    assert max(sizes) < MOST_BYTES_A_SYMBOL * len(SYMBOLS)
    assert sizes[-1] < 1.5 * sizes[0]


def test_rest_is_answered_for_any_time_after_the_streams_have_gone_on():
    market = RandomMarket(list_symbols(USDM, ("BTCUSDT",)), 1, rate=1.0, futures=True)
    trades = market.instruments["BTCUSDT"].trades
    early = trades.orders_in(1000)
    for block in range(2000, 2100):
        trades.orders_in(block)
    assert list(trades.orders_in(1000)) == list(early)
