"""The book of one instrument: in agreement, after a gap, and over midnight."""

from __future__ import annotations

import pytest

from harvest.book.flow import WINDOW
from harvest.pipeline.events import BreakFound, SnapshotWanted
from tests.pipeline.wire import DAY, MIDNIGHT_MS, T0_MS, Harness, diff, payload, snapshot, trade

BIDS, ASKS = [(99.0, 1.0), (98.0, 2.0)], [(101.0, 3.0), (102.0, 4.0)]


def usdm(numbers, **how):
    """Make USD-M diffs that follow each other: number n has the ids 10n-5 to 10n, and gives bid 99 the quantity n."""
    return [diff(10 * n - 5, 10 * n, 10 * n - 10, [(99.0, float(n))], **how) for n in numbers]


def in_sync(**how):
    """Return a harness whose book stands at the diff number 2."""
    harness = Harness(**how)
    harness.each(usdm([1, 2]))
    harness.body(snapshot(15, BIDS, ASKS, at_ms=T0_MS))
    return harness


def wanted(outcome):
    return [event.why for event in outcome.events if isinstance(event, SnapshotWanted)]


def test_captured_diff_becomes_a_row_with_its_levels_as_sent():
    harness = Harness()
    harness.frames(payload("binance-usdm", "depthUpdate"))
    (row,) = harness.rows("depth")
    assert (row["first_update_id"], row["last_update_id"], row["prev_update_id"]) == (
        4984034747463,
        4984034747467,
        4984033952967,
    )
    assert (row["bid_px"], row["bid_qty"]) == ([63335.1, 63462.6], [1.136, 0.0])
    assert (row["ask_px"], row["ask_qty"]) == ([64020.4], [0.0])
    assert (row["is_snapshot"], row["source"]) == (False, "ws")
    assert row["event_time"].isoformat() == "2024-07-19T00:00:01.585000+00:00"
    assert row["trade_time"].isoformat() == "2024-07-19T00:00:01.533000+00:00"


def test_spot_snapshot_has_neither_time_and_lands_in_the_date_of_its_receipt():
    harness = Harness("binance-spot")
    harness.body(payload("binance-spot", "snapshot"))
    (row,) = harness.rows("depth", day=DAY)
    assert row["event_time"] is row["trade_time"] is row["first_update_id"] is row["prev_update_id"] is None
    assert (row["is_snapshot"], row["source"], row["last_update_id"]) == (True, "rest", 50093239218)


def test_before_the_first_snapshot_there_are_depth_rows_only_and_one_snapshot_is_wanted():
    harness = Harness()
    outcomes = harness.each(usdm([1, 2, 3]))
    assert [wanted(outcome) for outcome in outcomes] == [["start"], [], []]
    assert len(harness.rows("depth")) == 3
    assert harness.rows("orderbook") == harness.rows("ofi") == []


def test_pending_diffs_are_applied_to_the_first_snapshot_without_rows():
    harness = in_sync()
    book = harness.pipeline.book("BTCUSDT")
    assert book.in_sync
    assert book.ladder.levels() == ([(99.0, 2.0), (98.0, 2.0)], ASKS)
    assert harness.rows("orderbook") == []
    harness.each(usdm([3]))
    (row,) = harness.rows("orderbook")
    assert (row["update_id"], row["suspect"]) == (30, False)
    assert (row["bid_px_0"], row["bid_qty_0"], row["ask_px_1"], row["ask_qty_1"]) == (99.0, 3.0, 102.0, 4.0)


def test_first_update_after_a_snapshot_has_no_ofi():
    harness = in_sync()
    harness.each(usdm([3, 4]))
    assert harness.column("orderbook", "update_id") == [30, 40]
    assert harness.column("ofi", "update_id") == [40]
    assert harness.column("ofi", "ofi_1") == [1.0]


def test_absent_levels_are_null_prices_of_quantity_zero():
    harness = in_sync(levels=3)
    harness.each(usdm([3]))
    (row,) = harness.rows("orderbook")
    assert (row["bid_px_2"], row["bid_qty_2"], row["ask_px_2"], row["ask_qty_2"]) == (None, 0.0, None, 0.0)


@pytest.mark.parametrize(
    ("first_diff", "snapshot_id"),
    [
        ((15, 20, 10), 17),
        ((15, 20, 10), 15),
        ((15, 20, 10), 20),
        ((15, 20, 10), 10),
        ((15, 20, 10), 12),
    ],
    ids=["within", "at U", "at u", "pu is its id", "between pu and U"],
)
@pytest.mark.parametrize("snapshot_first", [True, False])
def test_usdm_book_begins_with_either_of_the_first_events_that_are_seen(
    first_diff, snapshot_id, snapshot_first
):
    harness = Harness()
    messages = [
        lambda: harness.body(snapshot(snapshot_id, BIDS, ASKS, at_ms=T0_MS)),
        lambda: harness.frames(diff(*first_diff, [(99.0, 7.0)])),
    ]
    for message in messages if snapshot_first else messages[::-1]:
        message()
    harness.frames(diff(25, 30, 20))
    assert harness.pipeline.book("BTCUSDT").in_sync
    last = harness.rows("orderbook")[-1]
    assert (last["bid_qty_0"], last["suspect"]) == (7.0, False)


def test_spot_book_begins_with_the_diff_that_spans_the_snapshot():
    harness = Harness("binance-spot")
    harness.each([diff(1, 5, bids=[(99.0, 5.0)]), diff(6, 9, bids=[(99.0, 9.0)])])
    harness.body(snapshot(7, BIDS, ASKS))
    harness.frames(diff(10, 10))
    (row,) = harness.rows("orderbook")
    assert (row["update_id"], row["bid_qty_0"], row["suspect"]) == (10, 9.0, False)


def test_snapshot_older_than_the_first_diff_is_too_old_and_another_is_wanted():
    harness = Harness()
    harness.each(usdm([2, 3]))
    assert wanted(harness.body(snapshot(5, BIDS, ASKS, at_ms=T0_MS))) == ["too_old"]
    assert not harness.pipeline.book("BTCUSDT").in_sync
    harness.each(usdm([4]))
    assert harness.rows("orderbook") == []
    assert wanted(harness.body(snapshot(25, BIDS, ASKS, at_ms=T0_MS))) == []
    harness.each(usdm([5]))
    assert harness.column("orderbook", "bid_qty_0") == [5.0]
    # What was fetched is a row, of use or not.
    assert [row["last_update_id"] for row in harness.rows("depth") if row["source"] == "rest"] == [5, 25]


def test_snapshot_newer_than_all_diffs_waits_for_the_one_that_continues_it():
    harness = Harness()
    harness.each(usdm([1]))
    harness.body(snapshot(35, [(99.0, 3.5), (98.0, 2.0)], ASKS, at_ms=T0_MS))
    harness.each(usdm([2, 3]))
    assert harness.rows("orderbook") == []
    harness.each(usdm([4, 5]))
    assert harness.column("orderbook", "update_id") == [40, 50]
    assert harness.column("orderbook", "bid_qty_0") == [4.0, 5.0]
    assert harness.column("orderbook", "suspect") == [False, False]
    assert harness.column("depth", "last_update_id") == [10, 35, 20, 30, 40, 50]


def test_diff_that_does_not_continue_a_waiting_snapshot_makes_the_book_suspect():
    harness = Harness()
    harness.body(snapshot(5, BIDS, ASKS, at_ms=T0_MS))
    outcomes = harness.each(usdm([2, 3]))
    assert [wanted(outcome) for outcome in outcomes] == [["too_old"], []]
    assert harness.column("orderbook", "suspect") == [True, True]
    harness.body(snapshot(25, BIDS, ASKS, at_ms=T0_MS))
    harness.each(usdm([4]))
    assert harness.column("orderbook", "suspect") == [True, True, False]


def test_second_snapshot_while_the_first_still_waits_replaces_it():
    harness = Harness()
    harness.body(snapshot(15, BIDS, ASKS, at_ms=T0_MS))
    harness.body(snapshot(25, [(97.0, 9.0)], ASKS, at_ms=T0_MS))
    harness.each(usdm([2, 3]))
    (row,) = harness.rows("orderbook")
    assert (row["update_id"], row["bid_px_0"], row["bid_px_1"]) == (30, 99.0, 97.0)


def test_snapshot_of_a_book_in_agreement_is_a_row_and_changes_nothing():
    harness = in_sync()
    harness.each(usdm([3, 4]))
    harness.body(snapshot(35, [(50.0, 1.0)], [(60.0, 1.0)], at_ms=T0_MS))
    harness.each(usdm([5]))
    assert harness.column("orderbook", "bid_px_0") == [99.0] * 3
    assert harness.column("ofi", "update_id") == [40, 50]
    assert harness.metrics.feed("orderbook", "BTCUSDT").resyncs == 1


def test_gap_is_a_row_and_the_stale_book_goes_on_suspect_until_a_snapshot():
    harness = in_sync()
    harness.each(usdm([3]))
    before_ns = harness.recv_ns
    (outcome,) = harness.each(usdm([6]))
    gap_ns = harness.recv_ns
    harness.each(usdm([7]))
    assert wanted(outcome) == ["gap"]
    assert BreakFound("BTCUSDT", "orderbook", "gap", 30, 50) in outcome.events
    assert not harness.pipeline.book("BTCUSDT").in_sync
    harness.body(snapshot(62, [(99.0, 6.2), (98.5, 1.0)], ASKS, at_ms=T0_MS))
    assert harness.pipeline.book("BTCUSDT").in_sync
    harness.each(usdm([8, 9]))
    (row,) = harness.rows("breaks")
    assert row["feed"] == "orderbook"
    assert (row["reason"], row["from_id"], row["to_id"]) == ("gap", 30, 50)
    assert (row["from_ns"], row["to_ns"]) == (before_ns, gap_ns)
    # Diff 7 was applied again on top of the snapshot, and made no second row.
    assert harness.column("orderbook", "update_id") == [30, 60, 70, 80, 90]
    assert harness.column("orderbook", "suspect") == [False, True, True, False, False]
    assert harness.column("orderbook", "bid_qty_0") == [3.0, 6.0, 7.0, 8.0, 9.0]
    assert harness.column("orderbook", "bid_px_1") == [98.0, 98.0, 98.0, 98.5, 98.5]
    # No row for the first update after either snapshot.
    assert harness.column("ofi", "update_id") == [60, 70, 90]
    assert harness.column("ofi", "suspect") == [True, True, False]
    stats = harness.metrics.feed("orderbook", "BTCUSDT")
    assert (stats.gaps, stats.suspect_rows, stats.resyncs) == (1, 2, 2)


def test_gap_while_a_snapshot_is_awaited_makes_the_one_on_its_way_too_old():
    harness = in_sync()
    harness.each(usdm([3, 6, 9]))
    assert wanted(harness.body(snapshot(62, BIDS, ASKS, at_ms=T0_MS))) == ["too_old"]
    harness.each(usdm([10]))
    harness.body(snapshot(95, BIDS, ASKS, at_ms=T0_MS))
    harness.each(usdm([11]))
    assert harness.column("orderbook", "suspect") == [False, True, True, True, False]
    assert harness.column("breaks", "from_id") == [30, 60]


def test_gap_before_the_first_snapshot_is_a_row_too():
    harness = Harness()
    assert [wanted(outcome) for outcome in harness.each(usdm([1, 3]))] == [["start"], ["gap"]]
    assert harness.column("breaks", "to_id") == [20]


def test_gap_while_a_snapshot_waits_for_its_diff():
    harness = Harness()
    harness.each(usdm([1]))
    harness.body(snapshot(35, BIDS, ASKS, at_ms=T0_MS))
    (outcome,) = harness.each(usdm([6]))
    assert wanted(outcome) == ["gap"]
    assert harness.column("orderbook", "suspect") == [True]
    harness.body(snapshot(60, BIDS, ASKS, at_ms=T0_MS))
    harness.each(usdm([7]))
    assert harness.column("orderbook", "suspect") == [True, False]


def test_spot_gap_has_both_ends_exclusive_and_its_ids_are_counted():
    harness = Harness("binance-spot")
    harness.each([diff(1, 5), diff(9, 12)])
    (row,) = harness.rows("breaks")
    assert (row["from_id"], row["to_id"]) == (5, 9)
    assert harness.metrics.feed("orderbook", "BTCUSDT").missing_ids == 3


def test_usdm_gap_has_no_count_of_ids_which_are_sparse():
    harness = Harness()
    harness.each(usdm([1, 3]))
    stats = harness.metrics.feed("orderbook", "BTCUSDT")
    assert (stats.gaps, stats.missing_ids) == (1, 0)


@pytest.mark.parametrize(
    ("reason", "recorded"),
    [
        ("stall", "stall"),
        ("own_stall", "own_stall"),
        ("disconnect", "disconnect"),
        ("shutdown", "downtime"),
        ("overload", "overload"),
    ],
)
def test_interruption_is_the_reason_of_the_gap_that_follows_it_and_of_no_other(reason, recorded):
    harness = in_sync()
    if reason == "overload":
        harness.overload("orderbook")
    else:
        harness.closed("orderbook", reason)
    harness.each(usdm([4, 6]))
    assert harness.column("breaks", "reason") == [recorded, "gap"]


def test_reconnect_without_a_gap_keeps_the_book():
    harness = in_sync()
    harness.each(usdm([3]))
    harness.closed("orderbook", "disconnect")
    harness.each(usdm([3, 4]))
    assert harness.rows("breaks") == []
    assert harness.column("orderbook", "suspect") == [False, False]
    assert harness.metrics.feed("orderbook", "BTCUSDT").duplicates == 1


def test_duplicate_diffs_make_no_rows():
    harness = in_sync()
    harness.each(usdm([3, 3, 2, 4]))
    assert harness.column("depth", "last_update_id") == [10, 20, 15, 30, 40]
    assert harness.column("orderbook", "update_id") == [30, 40]


def test_more_pending_diffs_than_may_wait_make_the_snapshot_too_old():
    harness = Harness(max_pending_diffs=2)
    harness.each(usdm([1, 2, 3, 4]))
    assert wanted(harness.body(snapshot(12, BIDS, ASKS, at_ms=T0_MS))) == ["too_old"]
    harness.body(snapshot(32, BIDS, ASKS, at_ms=T0_MS))
    harness.each(usdm([5]))
    assert harness.column("orderbook", "bid_qty_0") == [5.0]


def test_gap_of_one_instrument_leaves_the_other_in_agreement():
    harness = Harness(symbols=["BTCUSDT", "ETHUSDT"])
    for symbol in ("BTCUSDT", "ETHUSDT"):
        harness.each(usdm([1, 2], symbol=symbol))
        harness.body(snapshot(15, BIDS, ASKS, at_ms=T0_MS), symbol)
    harness.each([*usdm([4]), *usdm([3], symbol="ETHUSDT")])
    assert not harness.pipeline.book("BTCUSDT").in_sync
    assert harness.pipeline.book("ETHUSDT").in_sync
    assert harness.column("orderbook", "suspect", symbol="ETHUSDT") == [False]


def test_z_score_begins_anew_with_the_snapshot():
    harness = in_sync()
    harness.frames(*usdm(range(3, WINDOW + 5)))
    scores = harness.column("ofi", "ofi_z")
    assert len(scores) == WINDOW + 1
    # ofi_1 is 1 at each of them: it does not vary.
    assert set(scores) == {None}
    last = WINDOW + 5
    harness.each([diff(10 * last - 5, 10 * last, 10 * last - 10, [(99.0, 1.0)])])
    assert harness.column("ofi", "ofi_z")[-1] is not None
    harness.each(usdm([last + 3]))
    harness.body(snapshot(10 * last + 30, BIDS, ASKS, at_ms=T0_MS))
    harness.frames(*usdm(range(last + 4, last + 4 + WINDOW)))
    assert set(harness.column("ofi", "ofi_z")[-WINDOW + 1 :]) == {None}


def test_crossed_book_is_counted():
    harness = in_sync()
    harness.frames(diff(25, 30, 20, [(101.0, 1.0)]))
    assert harness.metrics.feed("orderbook", "BTCUSDT").crossed == 1


@pytest.mark.parametrize("levels", [1, 10, 11, 50])
def test_any_number_of_levels_that_may_be_set_is_recorded_and_leaves_the_flow_as_it_is(levels):
    bids = [(90.0 - level, 1.0 + level) for level in range(60)]
    asks = [(91.0 + level, 2.0 + level) for level in range(60)]
    rows = []
    for recorded in (2, levels):
        harness = Harness(levels=recorded)
        harness.body(snapshot(15, bids, asks, at_ms=T0_MS))
        moved = [(90.0 - level, 7.0) for level in range(0, 60, 3)]
        harness.each([diff(15, 20, 10), diff(25, 30, 20, moved), diff(35, 40, 30, bids, asks)])
        rows.append(harness.rows("ofi"))
        last = harness.rows("orderbook")[-1]
        for level in range(recorded):
            assert (last[f"bid_px_{level}"], last[f"bid_qty_{level}"]) == bids[level]
            assert (last[f"ask_px_{level}"], last[f"ask_qty_{level}"]) == asks[level]
        assert f"bid_px_{recorded}" not in last
    assert rows[0] == rows[1]


# Midnight.


def sources(harness, day):
    return [(row["source"], row["last_update_id"]) for row in harness.rows("depth", day=day)]


def test_depth_of_a_date_begins_with_the_whole_book():
    harness = in_sync()
    harness.each(usdm([3], at_ms=MIDNIGHT_MS - 1))
    harness.each(usdm([4, 5], at_ms=MIDNIGHT_MS))
    assert sources(harness, DAY + 1) == [("book", 30), ("ws", 40), ("ws", 50)]
    book, first = harness.rows("depth", day=DAY + 1)[:2]
    assert (book["bid_px"], book["bid_qty"]) == ([99.0, 98.0], [3.0, 2.0])
    assert (book["ask_px"], book["ask_qty"]) == ([101.0, 102.0], [3.0, 4.0])
    assert (book["is_snapshot"], book["first_update_id"], book["trade_time"]) == (True, None, None)
    assert [book[name] for name in ("seq", "event_time", "recv_ns")] == [
        first[name] for name in ("seq", "event_time", "recv_ns")
    ]
    assert harness.column("orderbook", "update_id", day=DAY + 1) == [40, 50]


def test_late_diff_of_the_day_before_lands_in_its_own_date_and_does_not_begin_the_day_twice():
    harness = in_sync()
    harness.each(usdm([3], at_ms=MIDNIGHT_MS - 1))
    harness.each(usdm([4], at_ms=MIDNIGHT_MS))
    harness.each(usdm([5], at_ms=MIDNIGHT_MS - 1))
    harness.each(usdm([6], at_ms=MIDNIGHT_MS + 1))
    assert sources(harness, DAY)[-2:] == [("ws", 30), ("ws", 50)]
    assert sources(harness, DAY + 1) == [("book", 30), ("ws", 40), ("ws", 60)]


def test_forgotten_tables_do_not_begin_the_day_twice():
    harness = in_sync()
    harness.each(usdm([3], at_ms=MIDNIGHT_MS))
    harness.rows("depth")
    harness.pipeline.forget_before(DAY + 5)
    harness.each(usdm([4], at_ms=MIDNIGHT_MS))
    assert sources(harness, DAY + 1) == [("book", 20), ("ws", 30), ("ws", 40)]


def test_first_date_of_a_run_begins_with_the_venues_snapshot_alone():
    harness = Harness()
    harness.body(snapshot(15, BIDS, ASKS, at_ms=T0_MS))
    harness.each(usdm([2, 3]))
    assert sources(harness, DAY) == [("rest", 15), ("ws", 20), ("ws", 30)]


def test_date_that_begins_while_a_snapshot_waits_for_its_diff_has_the_book_too():
    harness = Harness()
    harness.body(snapshot(25, BIDS, ASKS, at_ms=MIDNIGHT_MS - 1))
    harness.each(usdm([2, 3, 4], at_ms=MIDNIGHT_MS + 1))
    assert sources(harness, DAY) == [("rest", 25)]
    assert sources(harness, DAY + 1) == [("book", 25), ("ws", 20), ("ws", 30), ("ws", 40)]


def test_spot_snapshot_that_our_slow_clock_puts_into_the_day_before_is_made_up_for():
    """Its only time is that of our clock, which may be behind the venue's."""
    harness = Harness("binance-spot")
    harness.each([diff(1, 5, bids=[(99.0, 5.0)], at_ms=MIDNIGHT_MS + 100)])
    harness.body(snapshot(5, BIDS, ASKS))
    harness.each([diff(6, 6, at_ms=MIDNIGHT_MS + 200), diff(7, 7, at_ms=MIDNIGHT_MS + 300)])
    assert sources(harness, DAY) == [("rest", 5)]
    assert sources(harness, DAY + 1) == [("ws", 5), ("book", 5), ("ws", 6), ("ws", 7)]


def test_snapshot_that_is_to_be_continued_by_diffs_of_the_day_before_is_made_up_for():
    harness = Harness()
    harness.each(usdm([1, 2], at_ms=MIDNIGHT_MS - 1))
    harness.body(snapshot(15, BIDS, ASKS, at_ms=MIDNIGHT_MS))
    harness.each(usdm([3], at_ms=MIDNIGHT_MS + 1))
    assert sources(harness, DAY + 1) == [("rest", 15), ("book", 20), ("ws", 30)]
    assert harness.rows("depth", day=DAY + 1)[1]["bid_qty"] == [2.0, 2.0]


def test_date_that_begins_suspect_begins_with_diffs_and_the_snapshot_that_comes_later():
    harness = in_sync()
    harness.each(usdm([3], at_ms=MIDNIGHT_MS - 2) + usdm([5], at_ms=MIDNIGHT_MS - 1))
    harness.each(usdm([6], at_ms=MIDNIGHT_MS))
    harness.body(snapshot(60, BIDS, ASKS, at_ms=MIDNIGHT_MS + 1))
    harness.each(usdm([7], at_ms=MIDNIGHT_MS + 2))
    assert sources(harness, DAY + 1)[:2] == [("ws", 60), ("rest", 60)]
    assert harness.column("orderbook", "suspect", day=DAY + 1) == [True, False]


def test_book_and_diff_of_one_record_are_never_parted_by_a_full_buffer():
    harness = in_sync(max_rows=2)
    harness.frames(*usdm([3, 4], at_ms=MIDNIGHT_MS - 1), *usdm([5, 6, 7], at_ms=MIDNIGHT_MS), trade(1))
    harness.each(usdm([8], at_ms=MIDNIGHT_MS + 1))
    assert sources(harness, DAY + 1) == [("book", 40), ("ws", 50), ("ws", 60), ("ws", 70), ("ws", 80)]
    parts = [(part.first_seq, part.last_seq) for part in harness.sealed if part.kind.name == "depth"]
    assert sorted(parts) == [(1, 2), (3, 4), (4, 4), (5, 5)]
