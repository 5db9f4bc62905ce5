"""Several connections bring the same streams: the first arrival wins, and a gap is one when none of them fills it."""

from __future__ import annotations

import itertools
import json
from typing import TYPE_CHECKING

from hypothesis import given, settings
from hypothesis import strategies as st

from harvest.pipeline.events import TradesWanted
from harvest.pipeline.records import Opened, TradesBody, Unserved
from tests.pipeline.wire import Harness, diff, snapshot, trade

if TYPE_CHECKING:
    import random

PATIENCE_MS = 200


def two_sockets(harness: Harness, feed: str) -> None:
    for name in ("a", "b"):
        harness.seq += 1
        record = Opened(harness.seq, harness.recv_ns, harness.seq, f"{feed}-1{name}", feed, ("BTCUSDT",))
        harness.pipeline.feed(record)


def wait(harness: Harness, ms: int) -> None:
    harness.recv_ns += ms * 10**6


def chain(count: int) -> list[bytes]:
    """Make USD-M diffs 10, 20, 30, …, each naming its predecessor."""
    return [diff(n * 10 - 3, n * 10, (n - 1) * 10, bids=[(100.0, float(n))]) for n in range(1, count + 1)]


def test_a_trade_that_the_other_socket_brings_in_time_is_no_gap():
    harness = Harness()
    two_sockets(harness, "trade")
    harness.each([trade(1), trade(3), trade(2), trade(4), trade(3)])
    wait(harness, PATIENCE_MS)
    harness.frames(trade(5))
    assert harness.column("prices", "trade_id") == [1, 3, 2, 4, 5]
    assert harness.rows("breaks") == []
    assert harness.metrics.feed("trade", "BTCUSDT").missing_ids == 0


def test_a_trade_that_no_socket_brings_in_time_is_a_gap_of_exactly_what_is_missing():
    harness = Harness()
    two_sockets(harness, "trade")
    harness.each([trade(1), trade(6), trade(4)])
    wait(harness, PATIENCE_MS)
    outcome = harness.frames(trade(7))
    wanted = [(event.from_id, event.to_id) for event in outcome.events if isinstance(event, TradesWanted)]
    assert wanted == [(2, 3), (5, 5)]
    breaks = [(row["from_id"], row["to_id"], row["reason"]) for row in harness.rows("breaks")]
    assert breaks == [(2, 3, "gap"), (5, 5, "gap")]


def test_with_one_socket_left_a_gap_is_believed_at_once():
    harness = Harness()
    two_sockets(harness, "trade")
    harness.frames(trade(1))
    harness.closed("trade", "disconnect")
    harness.frames(trade(3))
    assert [(row["from_id"], row["to_id"]) for row in harness.rows("breaks")] == [(2, 2)]


def test_a_diff_beyond_a_gap_waits_for_the_other_socket_and_rows_stay_in_the_order_of_the_chain():
    harness = Harness()
    one, two, three, four = chain(4)
    two_sockets(harness, "orderbook")
    harness.frames(one)
    harness.body(snapshot(10, bids=[(100.0, 1.0)], asks=[(101.0, 1.0)], at_ms=1))
    harness.each([three, four, two, three])
    assert harness.rows("breaks") == []
    stored = [row for row in harness.rows("depth") if row["source"] == "ws"]
    assert [row["last_update_id"] for row in stored] == [10, 20, 30, 40]
    assert [row["update_id"] for row in harness.rows("orderbook")] == [20, 30, 40]
    assert not any(harness.column("orderbook", "suspect"))
    # Each has the receive time that is its own, though it was stored later.
    received = [row["recv_ns"] for row in stored]
    assert received[2] < received[3] < received[1]


def test_a_diff_that_waited_in_vain_is_stored_with_its_gap():
    harness = Harness()
    one, _, three, four = chain(4)
    two_sockets(harness, "orderbook")
    harness.frames(one)
    harness.frames(three)
    assert harness.rows("breaks") == []
    wait(harness, PATIENCE_MS)
    harness.frames(four)
    assert [(row["from_id"], row["to_id"]) for row in harness.rows("breaks")] == [(10, 20)]
    assert harness.column("depth", "last_update_id") == [10, 30, 40]


def test_a_gap_beyond_which_a_diff_waited_ends_when_that_came_and_does_not_begin_later():
    harness = Harness()
    two_sockets(harness, "orderbook")
    diffs = chain(6)
    harness.frames(diffs[0])
    # The new socket is ahead; the old one's backlog comes later, and lacks two.
    harness.frames(diffs[5])
    ahead_ns = harness.recv_ns
    wait(harness, 50)
    harness.each(diffs[1:3])
    wait(harness, PATIENCE_MS + 1)
    harness.frames(diffs[5])
    (found,) = harness.rows("breaks")
    assert (found["from_id"], found["to_id"]) == (30, 50)
    assert found["from_ns"] == found["to_ns"] == ahead_ns


@settings(max_examples=150, deadline=None)
@given(st.randoms(use_true_random=False), st.integers(1, 40))
def test_of_two_sockets_that_lose_and_delay_only_what_both_lost_is_missing(chaos: random.Random, count: int):
    frames = chain(count)
    arrivals = []
    lost: list[set[int]] = []
    for _ in range(2):
        missing = {n for n in range(1, count) if chaos.random() < 0.2}
        lost.append(missing)
        delay = 0.0
        for n, frame in enumerate(frames):
            # A socket keeps its order, and lags by less than the patience.
            delay = max(delay - 50, chaos.uniform(0, PATIENCE_MS / 2 - 60))
            if n not in missing:
                arrivals.append((n * 50 + delay, len(arrivals), frame))
    harness = Harness()
    two_sockets(harness, "orderbook")
    began = harness.recv_ns
    for at_ms, _, frame in sorted(arrivals):
        harness.recv_ns = max(began + round(at_ms * 1e6), harness.recv_ns)
        harness.frames(frame)
    wait(harness, PATIENCE_MS + 1)
    harness.frames(diff(count * 10 + 5, count * 10 + 10, count * 10))
    for _ in range(2):
        harness.closed("orderbook", "shutdown")
    expected = [(n + 1) * 10 for n in range(count) if not (n in lost[0] and n in lost[1])] + [count * 10 + 10]
    assert harness.column("depth", "last_update_id") == expected
    holes = [(a, b - 10) for a, b in itertools.pairwise(expected) if b - a != 10]
    assert [(row["from_id"], row["to_id"]) for row in harness.rows("breaks")] == holes


def page(*ids: int) -> bytes:
    rows = [
        {"id": n, "price": "100.5", "qty": "0.25", "time": 1721300000000 + n, "isBuyerMaker": True}
        for n in ids
    ]
    return json.dumps(rows).encode()


def fetch(harness: Harness, from_id: int, to_id: int, body: bytes):
    harness.seq += 1
    record = TradesBody(harness.seq, harness.recv_ns, harness.seq, "BTCUSDT", from_id, to_id, body)
    return harness.pipeline.feed(record)


def test_fetched_trades_fill_the_gap_and_nothing_else():
    harness = Harness()
    outcome = harness.each([trade(10), trade(15)])[-1]
    assert TradesWanted("BTCUSDT", 11, 14) in outcome.events
    outcome = fetch(harness, 11, 14, page(9, 10, 11, 12, 13, 15, 16))
    assert (outcome.data_messages, outcome.fetched_to) == (3, 16)
    rows = [row for row in harness.rows("prices") if row["source"] == "rest"]
    assert [row["trade_id"] for row in rows] == [11, 12, 13]
    assert {(row["price"], row["qty"], row["side"], row["trade_type"]) for row in rows} == {
        (100.5, 0.25, "sell", "MARKET")
    }
    assert [row["event_time"] for row in rows] == [None] * 3
    assert harness.pipeline.missing_trades("BTCUSDT", 0, 99) == [(14, 14)]
    assert fetch(harness, 11, 14, page(11, 12)).data_messages == 0


def test_what_rest_does_not_have_is_a_break_with_its_reason():
    harness = Harness()
    harness.each([trade(10), trade(15)])
    fetch(harness, 11, 14, page(13))
    harness.seq += 1
    harness.pipeline.feed(
        Unserved(harness.seq, harness.recv_ns, harness.seq, "BTCUSDT", 11, 14, "not_served")
    )
    breaks = [(row["reason"], row["from_id"], row["to_id"]) for row in harness.rows("breaks")]
    assert breaks == [("gap", 11, 14), ("not_served", 11, 12), ("not_served", 14, 14)]


def test_a_page_that_is_none_is_malformed_and_stores_nothing():
    harness = Harness()
    harness.each([trade(10), trade(15)])
    outcome = fetch(harness, 11, 14, b"<html>")
    assert (outcome.data_messages, outcome.fetched_to) == (0, None)
    assert harness.metrics.malformed == 1


def test_a_run_goes_on_after_the_last_stored_id_and_what_lies_between_is_downtime():
    harness = Harness()
    harness.pipeline.resume_trades("BTCUSDT", 10)
    outcome = harness.frames(trade(10), trade(14))
    assert harness.column("prices", "trade_id") == [14]
    assert [(row["reason"], row["from_id"], row["to_id"]) for row in harness.rows("breaks")] == [
        ("downtime", 11, 13)
    ]
    assert TradesWanted("BTCUSDT", 11, 13) in outcome.events
    assert harness.pipeline.last_trade_id("BTCUSDT") == 14
