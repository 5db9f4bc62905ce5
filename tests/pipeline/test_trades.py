"""The trades of one instrument: each id once, in its date, and every gap a row."""

from __future__ import annotations

import datetime
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harvest.pipeline.events import BreakFound
from tests.pipeline.wire import DAY, MIDNIGHT_MS, T0_MS, Harness, payload, trade

UTC = datetime.UTC


def test_captured_raw_trade_becomes_a_row():
    usdm = Harness()
    usdm.frames(payload("binance-usdm", "trade"))
    (row,) = usdm.rows("prices")
    assert row == {
        "seq": 1,
        "event_time": datetime.datetime(2024, 7, 18, 23, 57, 2, 956000, UTC),
        "trade_time": datetime.datetime(2024, 7, 18, 23, 57, 2, 955000, UTC),
        "recv_ns": usdm.recv_ns,
        "trade_id": 5182005737,
        "price": 63943.9,
        "qty": 0.003,
        "side": "sell",
        "source": "ws",
        "trade_type": "MARKET",
    }
    assert usdm.rows("cvd") == [
        {
            "seq": 1,
            "event_time": row["event_time"],
            "recv_ns": usdm.recv_ns,
            "trade_id": 5182005737,
            "delta": -0.003,
            "cvd": -0.003,
        }
    ]


@pytest.mark.parametrize("venue", ["binance-usdm", "binance-spot"])
def test_captured_aggregate_trade_has_no_type_and_counts(venue):
    harness = Harness(venue)
    harness.frames(payload(venue, "aggTrade"))
    (row,) = harness.rows("prices")
    assert row["trade_type"] is None
    assert len(harness.rows("cvd")) == 1


def test_side_is_the_aggressors_the_buyer_being_the_maker_means_that_it_sold():
    harness = Harness()
    harness.frames(trade(1, sold=False, qty=3.0), trade(2, sold=True, qty=1.25))
    assert harness.column("prices", "side") == ["buy", "sell"]
    assert harness.column("cvd", "delta") == [3.0, -1.25]
    assert harness.column("cvd", "cvd") == [3.0, 1.75]


def test_microseconds_and_milliseconds_of_the_wire_are_told_apart():
    harness = Harness("binance-spot")
    harness.frames(
        trade(1, at_ms=T0_MS, kind=None),
        trade(2, at_ms=T0_MS * 1000 + 7, event_ms=T0_MS * 1000 + 9, kind=None),
    )
    first, second = harness.rows("prices")
    assert second["trade_time"] - first["trade_time"] == datetime.timedelta(microseconds=7)
    assert second["event_time"] - first["event_time"] == datetime.timedelta(microseconds=9)


def test_gap_is_a_row_with_its_ids_and_the_times_around_it():
    harness = Harness()
    harness.frames(trade(10), trade(11))
    before_ns = harness.recv_ns
    outcome = harness.frames(trade(15), trade(16))
    (row,) = harness.rows("breaks")
    assert row == {
        "seq": 2,
        "recv_ns": harness.recv_ns,
        "feed": "trade",
        "reason": "gap",
        "from_id": 12,
        "to_id": 14,
        "from_ns": before_ns,
        "to_ns": harness.recv_ns,
    }
    assert [event for event in outcome.events if isinstance(event, BreakFound)] == [
        BreakFound("BTCUSDT", "trade", "gap", 12, 14)
    ]
    stats = harness.metrics.feed("trade", "BTCUSDT")
    assert (stats.stored, stats.gaps, stats.missing_ids) == (4, 1, 3)


def test_gap_within_one_block_begins_and_ends_at_its_receive_time():
    harness = Harness()
    harness.frames(trade(10), trade(12))
    (row,) = harness.rows("breaks")
    assert row["from_ns"] == row["to_ns"] == harness.recv_ns


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
    harness = Harness(symbols=["BTCUSDT", "ETHUSDT"])
    harness.frames(trade(10), trade(7, symbol="ETHUSDT"))
    if reason == "overload":
        harness.overload("trade")
    else:
        harness.closed("trade", reason)
    harness.frames(trade(13), trade(9, symbol="ETHUSDT"))
    harness.frames(trade(20))
    assert harness.column("breaks", "reason") == [recorded, "gap"]
    assert harness.column("breaks", "from_id") == [11, 14]
    assert harness.column("breaks", "reason", symbol="ETHUSDT") == ["gap"]


def test_interruption_after_which_nothing_was_missing_explains_nothing_later():
    harness = Harness()
    harness.frames(trade(10))
    harness.closed("trade", "stall")
    harness.frames(trade(11))
    harness.frames(trade(15))
    assert harness.column("breaks", "reason") == ["gap"]


def test_interruption_of_the_orderbook_does_not_explain_a_gap_of_trades():
    harness = Harness()
    harness.frames(trade(10))
    harness.closed("orderbook", "stall")
    harness.frames(trade(12))
    assert harness.column("breaks", "reason") == ["gap"]


def test_late_trade_is_stored_and_a_duplicate_is_not():
    harness = Harness()
    for trade_id in (10, 13, 11, 13, 11, 10, 12, 14):
        harness.frames(trade(trade_id))
    assert harness.column("prices", "trade_id") == [10, 13, 11, 12, 14]
    assert harness.column("prices", "seq") == [1, 2, 3, 7, 8]
    stats = harness.metrics.feed("trade", "BTCUSDT")
    assert (stats.stored, stats.duplicates, stats.late, stats.gaps, stats.missing_ids) == (5, 3, 2, 1, 0)


def test_duplicates_are_data_for_the_watchdog_but_no_coverage():
    harness = Harness()
    harness.frames(trade(10))
    brought_ns = harness.recv_ns
    assert harness.frames(trade(10)).data_messages == 1
    stats = harness.metrics.feed("trade", "BTCUSDT")
    assert stats.last_mono_ns == harness.seq
    assert stats.last_recv_ns == brought_ns


def test_trades_that_are_not_of_the_market_are_stored_with_their_type_and_stay_out_of_cvd():
    harness = Harness()
    types = ["MARKET", "INSURANCE_FUND", "ADL", "NA", "SOMETHING_NEW", None, "MARKET"]
    harness.frames(*(trade(number, qty=2.0**number, kind=kind) for number, kind in enumerate(types)))
    assert harness.column("prices", "trade_type") == [
        "MARKET",
        "INSURANCE_FUND",
        "ADL",
        "NA",
        "OTHER",
        None,
        "MARKET",
    ]
    assert harness.column("cvd", "trade_id") == [0, 5, 6]
    assert harness.column("cvd", "cvd") == [1.0, 33.0, 97.0]


def test_date_is_that_of_the_trade_time_and_cvd_begins_anew_at_midnight():
    harness = Harness()
    harness.frames(
        trade(1, at_ms=MIDNIGHT_MS - 1, event_ms=MIDNIGHT_MS + 5),
        trade(2, at_ms=MIDNIGHT_MS, event_ms=MIDNIGHT_MS + 6),
    )
    assert harness.column("prices", "trade_id", day=DAY) == [1]
    assert harness.column("prices", "trade_id", day=DAY + 1) == [2]
    assert harness.column("cvd", "cvd", day=DAY) == [1.0]
    assert harness.column("cvd", "cvd", day=DAY + 1) == [1.0]


def test_late_trade_of_the_day_before_lands_in_its_own_date_and_goes_on_with_its_sum():
    harness = Harness()
    harness.frames(trade(1, at_ms=MIDNIGHT_MS - 2), trade(3, at_ms=MIDNIGHT_MS, qty=4.0))
    harness.rows("prices")
    harness.frames(trade(4, at_ms=MIDNIGHT_MS, qty=4.0), trade(2, at_ms=MIDNIGHT_MS - 1, qty=2.0))
    harness.frames(trade(5, at_ms=MIDNIGHT_MS + 1, qty=4.0))
    assert harness.column("prices", "trade_id", day=DAY) == [1, 2]
    assert harness.column("cvd", "cvd", day=DAY) == [1.0, 3.0]
    assert harness.column("prices", "trade_id", day=DAY + 1) == [3, 4, 5]
    assert harness.column("cvd", "cvd", day=DAY + 1) == [4.0, 8.0, 12.0]


def test_late_trade_after_its_tables_were_forgotten_still_goes_on_with_its_sum():
    harness = Harness()
    harness.frames(trade(1, at_ms=MIDNIGHT_MS - 2))
    harness.rows("prices")
    harness.frames(trade(3, at_ms=MIDNIGHT_MS))
    harness.rows("prices")
    harness.pipeline.forget_before(DAY + 2)
    assert list(harness.pipeline.tables) == []
    harness.frames(trade(2, at_ms=MIDNIGHT_MS - 1, qty=2.0), trade(4, at_ms=MIDNIGHT_MS))
    assert harness.column("cvd", "cvd", day=DAY) == [1.0, 3.0]
    assert harness.column("cvd", "cvd", day=DAY + 1) == [1.0, 2.0]


def test_full_buffer_is_sealed_between_two_records_and_never_within_one():
    harness = Harness(max_rows=5)
    trade_id = 0
    for size in (3, 4, 1, 9, 1, 1):
        harness.frames(*(trade(trade_id + number) for number in range(size)))
        trade_id += size
    assert harness.column("prices", "trade_id") == list(range(19))
    parts = [part for part in harness.sealed if part.kind.name == "prices"]
    # 3 + 4 is over the bound, but was not when the second block came; so is 1 + 9.
    assert [(part.first_seq, part.last_seq, part.count) for part in parts] == [
        (1, 2, 7),
        (3, 4, 10),
        (5, 6, 2),
    ]
    of_cvd = [part for part in harness.sealed if part.kind.name == "cvd"]
    assert [(part.first_seq, part.last_seq, part.count) for part in of_cvd] == [
        (1, 2, 7),
        (3, 4, 10),
        (5, 6, 2),
    ]


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32).map(random.Random), st.integers(1, 80), st.integers(2, 20))
def test_rows_in_are_rows_stored_and_breaks_less_late_rows_are_exactly_what_is_missing(
    chaos, count, max_rows
):
    """Over two connections that lose, repeat and delay trades across midnight, with sealing at any time."""
    first = chaos.randrange(1, 10**12)
    sent = list(range(first, first + count))
    received = [trade_id for trade_id in sent if chaos.random() < 0.8] or sent[:1]
    received += chaos.sample(received, len(received) // 3)
    delays = [place + chaos.random() * chaos.choice([1, 12]) for place in range(len(received))]
    received = [trade_id for _, trade_id in sorted(zip(delays, received, strict=True))]
    harness, left = Harness(max_rows=max_rows), list(received)
    while left:
        size = chaos.choice([1, 1, 2, 7])
        harness.frames(
            *(
                trade(one, qty=(one % 97 + 1) / 1000, sold=one % 3 == 0, at_ms=MIDNIGHT_MS - first + one - 40)
                for one in left[:size]
            )
        )
        del left[:size]
        if chaos.random() < 0.1:
            harness.closed("trade", "disconnect")
        if chaos.random() < 0.2:
            harness.pipeline.tables.seal_all()
    stats = harness.metrics.feed("trade", "BTCUSDT")
    rows = harness.rows("prices")
    assert sorted(row["trade_id"] for row in rows) == sorted(set(received))
    assert stats.stored == len(rows)
    assert stats.stored + stats.duplicates == len(received)
    breaks = harness.rows("breaks")
    declared = [one for row in breaks for one in range(row["from_id"], row["to_id"] + 1)]
    missing = set(range(received[0], max(received) + 1)) - set(received)
    assert set(declared) - set(received) == missing
    assert len(declared) == len(set(declared))
    assert stats.missing_ids == len(missing)
    assert {row["reason"] for row in breaks} <= {"gap", "disconnect"}
    for day in (DAY, DAY + 1):
        total = 0
        cvd = harness.rows("cvd", day=day)
        for row, of_prices in zip(cvd, harness.rows("prices", day=day), strict=True):
            assert (row["seq"], row["recv_ns"], row["trade_id"]) == (
                of_prices["seq"],
                of_prices["recv_ns"],
                of_prices["trade_id"],
            )
            units = (of_prices["trade_id"] % 97 + 1) * 10**5 * (-1 if of_prices["trade_id"] % 3 == 0 else 1)
            total += units
            assert row["delta"] == units / 10**8
            assert row["cvd"] == total / 10**8
