"""The whole of one book over a market made at random, with losses, repetitions, and snapshots that come late."""

from __future__ import annotations

import math
import random
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harvest.pipeline.events import SnapshotWanted
from tests.book.reference import order_flow
from tests.pipeline.replay import books, stored_tops, tops
from tests.pipeline.wire import DAY, MIDNIGHT_MS, Harness, diff, snapshot

LEVELS = 10


class Market:
    """A venue's diffs, of which the middle one is the first of a day, and its whole book after each."""

    def __init__(self, rule, chaos, count):
        self.rule = rule
        bids = {99.0 - level: 1.0 for level in range(chaos.randrange(15))}
        asks = {101.0 + level: 1.0 for level in range(chaos.randrange(15))}
        self.messages, self.ids, self.states = [], [], []
        last = 1000
        for number in range(count):
            first = last + 1 + (chaos.randrange(3) if rule == "usdm" else 0)
            final = first + chaos.randrange(3)
            changes = []
            for side, best, sign in ((bids, 99.0, -1), (asks, 101.0, 1)):
                levels = [
                    (best + sign * chaos.randrange(14), chaos.choice([0.0, 0.5, 1.0, 2.5]))
                    for _ in range(chaos.randrange(4))
                ]
                for price, qty in levels:
                    side[price] = qty
                    if not qty:
                        del side[price]
                changes.append(levels)
            at_ms = MIDNIGHT_MS + number - count // 2
            self.messages.append(diff(first, final, last if rule == "usdm" else None, *changes, at_ms=at_ms))
            self.ids.append((first, final, last))
            self.states.append((dict(bids), dict(asks), at_ms))
            last = final

    def snapshot_after(self, number):
        bids, asks, at_ms = self.states[number]
        has_time = self.rule == "usdm"
        last = self.ids[number][1]
        return snapshot(last, list(bids.items()), list(asks.items()), at_ms=at_ms if has_time else None)


def record(market, chaos):
    """Harvest the market as a run does, one request for a snapshot at a time; returns the numbers of the diffs that came."""
    venue = "binance-usdm" if market.rule == "usdm" else "binance-spot"
    harness = Harness(venue, levels=LEVELS, max_rows=chaos.choice([2, 10, 1000]))
    harness.recv_ns = market.states[0][2] * 10**6
    newest = len(market.messages) - 1
    arrived, is_wanted, due, taken = [], False, None, 0
    for number, message in enumerate(market.messages):
        if chaos.random() < 0.08 and number:
            continue
        arrived.append(number)
        outcomes = [harness.frames(message)]
        if chaos.random() < 0.1:
            outcomes.append(harness.frames(market.messages[chaos.choice(arrived)]))
        if due is not None and number >= due:
            # Whatever was wanted while it was on its way, the book itself asks again if this is of no use.
            due, is_wanted = None, False
            outcomes = [harness.body(market.snapshot_after(taken))]
        is_wanted |= any(
            isinstance(event, SnapshotWanted) for outcome in outcomes for event in outcome.events
        )
        if is_wanted and due is None:
            # It is of somewhere around now, comes somewhat later, and is never older than the one before.
            due = number + chaos.randrange(1, 6)
            taken = max(taken, min(max(number + chaos.randrange(-2, 4), 0), newest))
    return harness, arrived


@pytest.mark.parametrize("rule", ["usdm", "spot"])
@settings(deadline=None, max_examples=50)
@given(chaos=st.integers(0, 2**32).map(random.Random), count=st.integers(2, 60))
def test_every_row_of_a_book_in_agreement_is_the_venues_book_and_can_be_rebuilt(rule, chaos, count):
    market = Market(rule, chaos, count)
    harness, arrived = record(market, chaos)
    number_of = {ids[1]: number for number, ids in enumerate(market.ids)}
    by_day = {day: harness.rows("orderbook", day=day) for day in (DAY, DAY + 1)}
    every = sorted((row for rows in by_day.values() for row in rows), key=lambda row: row["seq"])

    # Each diff is stored once.
    depth = sorted(harness.rows("depth"), key=lambda row: row["seq"])
    stored = [row["last_update_id"] for row in depth if row["source"] == "ws"]
    assert stored == [market.ids[number][1] for number in arrived]

    # From the first snapshot on each makes a row of the book, but for those that a newer snapshot holds already.
    with_row = [row["update_id"] for row in every]
    without_row, snapshot_id = set(stored) - set(with_row), None
    assert with_row == [update_id for update_id in stored if update_id not in without_row]
    for row in depth:
        if row["source"] == "rest":
            snapshot_id = row["last_update_id"]
        elif row["source"] == "ws" and row["last_update_id"] in without_row:
            before_the_first = not with_row or row["last_update_id"] < with_row[0]
            assert before_the_first or row["last_update_id"] <= snapshot_id

    # The breaks are exactly the holes.
    holes = [
        (market.ids[before][1], market.ids[after][0 if rule == "spot" else 2])
        for before, after in pairwise(arrived)
        if after > before + 1
    ]
    assert [(row["from_id"], row["to_id"]) for row in harness.rows("breaks")] == holes

    # In agreement means: equal to the venue's own book.
    for row in every:
        if not row["suspect"]:
            bids, asks, _ = market.states[number_of[row["update_id"]]]
            assert stored_tops(row, LEVELS) == tops(bids, asks, LEVELS)

    # A date alone gives back its own rows, where they are not suspect.
    for day, rows in by_day.items():
        wanted = {row["update_id"]: stored_tops(row, LEVELS) for row in rows if not row["suspect"]}
        for row, bids, asks in books(harness.rows("depth", day=day)):
            if row["source"] == "ws":
                expected = wanted.pop(row["last_update_id"], None)
                assert expected is None or tops(bids, asks, LEVELS) == expected
        assert not wanted

    # Order flow follows from the rows of the book, bit by bit; it has no row for the first of each snapshot.
    flow = {row["update_id"]: row for day in by_day for row in harness.rows("ofi", day=day)}
    assert len(flow) == len(every) - _snapshots_followed(harness, every)
    for before, row in pairwise(every):
        found = flow.get(row["update_id"])
        if found is not None:
            (expected,) = order_flow([_lists(before), _lists(row)])
            assert (found["ofi_1"], found["ofi_5"], found["ofi_10"]) == tuple(map(float, expected))
            assert [found[name] for name in ("seq", "event_time", "recv_ns", "suspect")] == [
                row[name] for name in ("seq", "event_time", "recv_ns", "suspect")
            ]


def _snapshots_followed(harness, every):
    """Count the runs of rows that are parted by a snapshot: by the rows without flow, each of which must have one before."""
    with_flow = set(harness.column("ofi", "update_id"))
    without = [row["seq"] for row in every if row["update_id"] not in with_flow]
    of_snapshots = [row["seq"] for row in harness.rows("depth") if row["source"] == "rest"]
    before = [0, *without]
    assert all(any(low < seq < high for seq in of_snapshots) for low, high in pairwise(before))
    return len(without)


def _lists(row):
    def column(side, what):
        return [row[f"{side}_{what}_{level}"] for level in range(LEVELS)]

    prices = {side: [math.nan if px is None else px for px in column(side, "px")] for side in ("bid", "ask")}
    return prices["bid"], column("bid", "qty"), prices["ask"], column("ask", "qty")
