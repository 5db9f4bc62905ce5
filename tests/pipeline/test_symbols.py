"""Symbols that are added and removed while records go on: what becomes of their rows, and of what comes between."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harvest.pipeline.events import SnapshotWanted, TradesWanted
from harvest.pipeline.records import Opened, Symbols, TradesBody, Unserved
from tests.pipeline.wire import DAY, Harness, diff, snapshot, trade

if TYPE_CHECKING:
    from collections.abc import Iterable

    from harvest.pipeline.events import Outcome

BTC, ETH = "BTCUSDT", "ETHUSDT"


def change(harness: Harness, added: dict[str, int | None] | None = None, *removed: str) -> Outcome:
    """Feed a change of the symbols."""
    harness._tick()
    return harness.pipeline.feed(Symbols(harness.seq, harness.recv_ns, harness.seq, added or {}, removed))


def opened(harness: Harness, connection: str, symbols: Iterable[str] = (BTC,)) -> None:
    harness._tick()
    feed = "trade" if connection.startswith("trade") else "orderbook"
    harness.pipeline.feed(Opened(harness.seq, harness.recv_ns, harness.seq, connection, feed, tuple(symbols)))


def breaks(harness: Harness, symbol: str = BTC) -> list[tuple[str, str, int, int]]:
    names = ("feed", "reason", "from_id", "to_id")
    return [tuple(row[name] for name in names) for row in harness.rows("breaks", symbol)]


def test_an_added_symbol_is_recorded_from_then_on_and_what_came_before_is_counted():
    harness = Harness()
    harness.frames(trade(1, symbol=ETH), diff(1, 2, 0, symbol=ETH))
    change(harness, {ETH: None})
    outcome = harness.frames(trade(7, symbol=ETH), diff(3, 4, 2, symbol=ETH))
    assert outcome.data_messages == 2
    assert outcome.events == [SnapshotWanted(ETH, "start")]
    assert harness.column("prices", "trade_id", symbol=ETH) == [7]
    assert harness.metrics.unknown_symbols == {ETH: 2}
    assert breaks(harness, ETH) == []


def test_an_added_symbol_goes_on_after_what_earlier_runs_stored():
    harness = Harness(stored_cvd={(ETH, DAY): 1})
    change(harness, {ETH: 40})
    harness.pipeline.resume_cvd(ETH, DAY, 5 * 10**8)
    outcome = harness.frames(trade(44, symbol=ETH, qty=2.0))
    assert outcome.events[-1] == TradesWanted(ETH, 41, 43)
    assert breaks(harness, ETH) == [("trade", "downtime", 41, 43)]
    assert harness.column("cvd", "cvd", symbol=ETH) == [7.0]


def test_what_still_comes_of_a_removed_symbol_is_counted_and_is_no_gap_and_not_malformed():
    harness = Harness(symbols=(BTC, ETH))
    harness.frames(trade(1), diff(1, 2, 0), trade(1, symbol=ETH))
    change(harness, None, BTC)
    outcome = harness.frames(trade(2), diff(3, 4, 2), trade(2, symbol=ETH))
    harness.body(snapshot(4))
    assert outcome.data_messages == 1
    assert outcome.events == []
    assert harness.metrics.unknown_symbols == {BTC: 3}
    assert harness.metrics.malformed == 0
    assert harness.column("prices", "trade_id") == [1]
    assert harness.column("prices", "trade_id", symbol=ETH) == [1, 2]
    assert breaks(harness) == []
    assert {symbol for _, symbol in harness.metrics.feeds} == {ETH}
    # What it counted stays counted.
    assert harness.metrics.former["trade", BTC].stored == 1


def test_a_symbol_that_comes_again_has_what_lies_between_as_downtime():
    harness = Harness()
    harness.frames(trade(1), diff(1, 2, 0, [(10.0, 1.0)], [(11.0, 1.0)]))
    harness.body(snapshot(2, [(10.0, 1.0)], [(11.0, 1.0)]))
    harness.frames(diff(3, 4, 2, [(10.0, 2.0)]))
    change(harness, None, BTC)
    harness.frames(trade(2), diff(5, 6, 4))
    # The catalogue may lag behind what the run itself knows.
    change(harness, {BTC: None})
    outcome = harness.frames(trade(5), diff(9, 10, 8, [(10.0, 3.0)]))
    assert breaks(harness) == [("trade", "downtime", 2, 4), ("orderbook", "downtime", 4, 8)]
    assert TradesWanted(BTC, 2, 4) in outcome.events
    assert SnapshotWanted(BTC, "gap") in outcome.events
    assert harness.column("prices", "trade_id") == [1, 5]
    # As after any gap the stale book goes on, and says that it is not to be trusted.
    assert harness.column("orderbook", "suspect") == [False, True]
    harness.body(snapshot(10, [(10.0, 3.0)], [(11.0, 1.0)]))
    harness.frames(diff(11, 12, 10, [(10.0, 4.0)]))
    assert harness.column("orderbook", "suspect")[-1] is False


def test_one_that_comes_again_at_once_has_lost_nothing():
    harness = Harness()
    harness.frames(trade(1), diff(1, 2, 0))
    change(harness, None, BTC)
    change(harness, {BTC: 1})
    harness.frames(trade(2), diff(3, 4, 2))
    assert harness.column("prices", "trade_id") == [1, 2]
    assert harness.column("depth", "last_update_id") == [2, 4]
    assert breaks(harness) == []


def test_gaps_that_another_connection_might_have_filled_are_recorded_when_their_symbol_is_removed():
    harness = Harness()
    for connection in ("trade-1a", "trade-1b", "orderbook-1a", "orderbook-1b"):
        opened(harness, connection)
    harness.frames(trade(1), diff(1, 2, 0))
    harness.frames(trade(4), diff(7, 8, 6))
    assert breaks(harness) == []
    change(harness, None, BTC)
    assert breaks(harness) == [("trade", "gap", 2, 3), ("orderbook", "gap", 2, 6)]
    assert harness.column("depth", "last_update_id") == [2, 8]


def test_a_gap_from_before_the_removal_may_still_be_closed_over_rest():
    harness = Harness()
    harness.frames(trade(1), trade(5))
    change(harness, None, BTC)
    assert harness.pipeline.missing_trades(BTC, 2, 4) == [(2, 4)]
    page = b'[{"id":%d,"price":"1.0","qty":"1.0","time":1721343600000,"isBuyerMaker":false}]'
    for trade_id in (2, 3):
        harness._tick()
        body = TradesBody(harness.seq, harness.recv_ns, harness.seq, BTC, 2, 4, page % trade_id)
        assert harness.pipeline.feed(body).data_messages == 1
    harness._tick()
    unserved = Unserved(harness.seq, harness.recv_ns, harness.seq, BTC, 2, 4, "not_served")
    harness.pipeline.feed(unserved)
    assert sorted(harness.column("prices", "trade_id")) == [1, 2, 3, 5]
    assert breaks(harness)[-1] == ("trade", "not_served", 4, 4)
    # The tables of such rows are let go of like others.
    harness.pipeline.forget_before(DAY + 1)
    change(harness, {BTC: None})
    harness.frames(trade(6))
    assert harness.column("prices", "trade_id")[-1] == 6


def test_rows_of_a_removed_symbol_are_sealed_like_others_and_later_ones_find_a_table():
    harness = Harness()
    harness.frames(trade(1))
    change(harness, None, BTC)
    assert harness.column("prices", "trade_id") == [1]
    harness.pipeline.forget_before(DAY + 1)
    change(harness, {BTC: 1})
    harness.frames(trade(2))
    assert harness.column("prices", "trade_id") == [1, 2]


def test_an_end_of_a_connection_is_no_matter_of_symbols_that_it_carries_no_more():
    harness = Harness(symbols=(BTC, ETH))
    opened(harness, "trade-1", (BTC, ETH))
    harness.frames(trade(1))
    change(harness, None, BTC)
    harness.closed("trade", "disconnect", (BTC, ETH))
    change(harness, {BTC: 1})
    harness.frames(trade(3))
    assert breaks(harness) == [("trade", "downtime", 2, 2)]


@pytest.mark.parametrize("removed", [(BTC,), ("NEVER",)])
def test_where_every_symbol_is_taken_none_is_refused(removed):
    harness = Harness(symbols=None)
    harness.frames(trade(1))
    change(harness, None, *removed)
    harness.frames(trade(2))
    assert harness.metrics.unknown_symbols == {}


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from(["trade", "trade", "remove", "add"]), max_size=40))
def test_every_id_from_the_first_to_the_last_is_stored_once_or_in_a_break(steps):
    harness = Harness()
    recorded, ids = True, 0
    for step in steps:
        if step == "trade":
            ids += 1
            harness.frames(trade(ids))
        elif step == "remove":
            change(harness, None, BTC)
            recorded = False
        elif not recorded:
            change(harness, {BTC: None})
            recorded = True
    stored = harness.column("prices", "trade_id")
    missing = [
        one
        for _, reason, low, high in breaks(harness)
        for one in range(low, high + 1)
        if reason == "downtime"
    ]
    if stored:
        assert sorted(stored + missing) == list(range(min(stored), max(stored) + 1))
