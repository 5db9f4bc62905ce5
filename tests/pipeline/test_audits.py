"""Audits of books: at the same update id, whatever came first, and exactly what differs."""

from __future__ import annotations

import random

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harvest.pipeline.events import AuditAbandoned, Audited, Malformed, SnapshotWanted
from tests.pipeline.stored import Run, damage, files, verified
from tests.pipeline.wire import Harness, diff, snapshot

VENUES = {"usdm": "binance-usdm", "spot": "binance-spot"}


class Market:
    """A venue's diffs, and its whole book after each."""

    def __init__(self, rule, chaos, count):
        self.rule = rule
        sides = [
            {best + sign * n: 1.0 for n in range(chaos.randrange(12))}
            for best, sign in ((99.0, -1), (101.0, 1))
        ]
        self.changes, self.ids, self.states = [], [], []
        last = 1000
        for _ in range(count):
            first = last + 1 + (chaos.randrange(3) if rule == "usdm" else 0)
            final = first + chaos.randrange(3)
            changes = []
            for side, best, sign in zip(sides, (99.0, 101.0), (-1, 1), strict=True):
                prices = chaos.sample(range(14), chaos.randrange(4))
                levels = [(best + sign * n, chaos.choice([0.0, 0.5, 1.0, 2.5])) for n in prices]
                changes.append(levels)
                apply(side, levels)
            self.changes.append(changes)
            self.ids.append((first, final, last))
            self.states.append([dict(side) for side in sides])
            last = final

    def diff(self, number, without=None):
        first, final, last = self.ids[number]
        return diff(first, final, last if self.rule == "usdm" else None, *self.delivered(number, without))

    def delivered(self, number, without):
        return [[one for one in side if (number, one[0]) != without] for side in self.changes[number]]

    def levels(self, number, depth):
        """The best levels of both sides after a diff."""
        bids, asks = self.states[number]
        return sorted(bids.items(), reverse=True)[:depth], sorted(asks.items())[:depth]

    def snapshot(self, number, depth):
        return snapshot(self.ids[number][1], *self.levels(number, depth))


def apply(side, levels):
    for price, qty in levels:
        side[price] = qty
        if not qty:
            del side[price]


def deliver(sides, changes):
    for side, levels in zip(sides, changes, strict=True):
        apply(side, levels)


def events(outcomes, kind):
    return [event for outcome in outcomes for event in outcome.events if isinstance(event, kind)]


def expected(market, at, book, *, seed, seed_depth, audited, depth, lost=None):
    """What an audit at the diff ``at`` must find of ``book``, level by level, from the definitions alone.

    A level that is lost after the snapshot was taken is lost to both, and left to the next audit.
    """
    found = {}
    truths = [dict(side) for side in market.states[audited]]
    for number in range(audited + 1, at + 1):
        deliver(truths, market.delivered(number, lost))
    for index, (name, sign) in enumerate((("bid", -1), ("ask", 1))):
        known, covered = (
            max((sign * price for price, _ in market.levels(number, limit)[index]), default=float("inf"))
            for number, limit in ((seed, seed_depth), (audited, depth))
        )
        side, truth = book[index], truths[index]
        names = {f"{name}_{what}": 0 for what in ("compared", "differing", "unknown", "beyond")}
        names[f"{name}_beyond"] = sum(sign * price > covered for price in side)
        for price in {*side, *truth}:
            if sign * price > covered:
                continue
            if price not in side and sign * price > known:
                names[f"{name}_unknown"] += 1
            else:
                names[f"{name}_compared"] += 1
                names[f"{name}_differing"] += side.get(price, 0.0) != truth.get(price, 0.0)
        found |= names
    return found


def reaches(market, number, depth, price):
    """Whether a snapshot speaks of a price, which is that of a bid or of an ask."""
    bids, asks = market.levels(number, depth)
    return (
        price >= min((bid for bid, _ in bids), default=0)
        if price < 100
        else price <= max((ask for ask, _ in asks), default=999)
    )


@st.composite
def audits(draw, corrupted):
    """A market, when its book and its audit begin, which snapshot comes when, and which level of which diff is lost."""
    rule = draw(st.sampled_from(["usdm", "spot"]))
    market = Market(rule, draw(st.integers(0, 2**32).map(random.Random)), draw(st.integers(4, 40)))
    newest = len(market.ids) - 1
    seed = draw(st.integers(0, newest - 2))
    begin = draw(st.integers(seed + 1, newest - 1))
    taken = draw(st.integers(begin, newest))
    comes = draw(st.integers(begin, newest))
    depths = draw(st.tuples(st.integers(1, 14), st.integers(1, 14)) | st.just((100, 100)))
    changes = [
        (number, price)
        for number in range(seed + 1, newest + 1)
        for side in market.changes[number]
        for price, _ in side
    ]
    lost = draw(st.sampled_from(changes)) if corrupted and changes else None
    return market, seed, begin, taken, comes, depths, lost


def run_audit(market, seed, begin, taken, comes, depths, lost):
    """Feed it as a run would; returns the harness, what it said, the diff at which it was audited, and the book there."""
    harness = Harness(VENUES[market.rule])
    outcomes = []
    for number in range(seed + 1):
        harness.frames(market.diff(number))
    harness.body(market.snapshot(seed, depths[0]))
    book = [dict(side) for side in market.levels(seed, depths[0])]
    at, at_audit = max(taken, comes), None
    if market.rule == "usdm":
        # The diff that ends at the snapshot bridges to it there, and may name levels that it has not.
        deliver(book, market.changes[seed])
    for number in range(seed + 1, len(market.ids)):
        outcomes.append(harness.frames(market.diff(number, lost)))
        deliver(book, market.delivered(number, lost))
        if number == begin:
            outcomes.append(harness.begin_audit())
        if number == comes:
            outcomes.append(harness.audit(market.snapshot(taken, depths[1])))
        if number == at:
            at_audit = [dict(side) for side in book]
    return harness, outcomes, at, at_audit


@settings(deadline=None, max_examples=60)
@given(case=audits(corrupted=False))
def test_an_honest_stream_never_drifts_whichever_comes_first(case):
    market, seed, _, taken, _, depths, _ = case
    harness, _, at, book = run_audit(*case)
    (row,) = harness.rows("audits")
    assert (row["update_id"], row["snapshot_id"]) == (market.ids[at][1], market.ids[taken][1])
    assert (row["bid_differing"], row["ask_differing"], row["max_drift"]) == (0, 0, 0.0)
    if depths == (100, 100):
        assert not row["drifted"]
        assert row["bid_unknown"] == row["ask_unknown"] == 0
    wanted = expected(market, at, book, seed=seed, seed_depth=depths[0], audited=taken, depth=depths[1])
    assert {name: row[name] for name in wanted} == wanted
    assert row["partial"] == any(
        wanted[f"{side}_{what}"] for side in ("bid", "ask") for what in ("unknown", "beyond")
    )
    # Not even the best level is another, unless the book could not know it.
    assert not row["best_differs"] or row["partial"]
    assert harness.metrics.feed("orderbook", "BTCUSDT").in_sync == (not row["drifted"])


@settings(deadline=None, max_examples=120)
@given(case=audits(corrupted=True))
def test_a_level_that_was_lost_is_found_exactly_as_long_as_it_differs(case):
    market, seed, _, taken, _, depths, lost = case
    harness, outcomes, at, book = run_audit(*case)
    (row,) = harness.rows("audits")
    wanted = expected(
        market, at, book, seed=seed, seed_depth=depths[0], audited=taken, depth=depths[1], lost=lost
    )
    assert {name: row[name] for name in wanted} == wanted
    drifted = wanted["bid_differing"] + wanted["ask_differing"] > 0
    if (
        lost is not None
        and taken == at
        and all(reaches(market, *one, lost[1]) for one in ((seed, depths[0]), (taken, depths[1])))
    ):
        # Both must know that level, and no diff came after the snapshot: what it is off by cannot have been missed.
        off = [
            abs(one.get(lost[1], 0.0) - other.get(lost[1], 0.0))
            for one, other in zip(book, market.states[at], strict=True)
        ]
        assert row["max_drift"] == max(off)
        assert drifted == (max(off) > 0)
    assert row["drifted"] == (drifted or row["best_differs"])
    (said,) = events(outcomes, Audited)
    assert said.drifted == row["drifted"]
    assert [one.why for one in events(outcomes, SnapshotWanted)] == ["drift"] * row["drifted"]
    assert harness.metrics.audits == {"drift" if row["drifted"] else "in_sync": 1}
    # From the next diff on the book is suspect.
    suspect = {one["update_id"] for one in harness.rows("orderbook") if one["suspect"]}
    after = {market.ids[number][1] for number in range(at + 1, len(market.ids))}
    assert suspect == (after if row["drifted"] else set())


def standing(rule="usdm", **options):
    """A book in agreement, at update 20."""
    harness = Harness(VENUES[rule], **options)
    harness.frames(diff(1, 10, 0 if rule == "usdm" else None, [(99.0, 1.0)]))
    harness.body(snapshot(10, [(99.0, 1.0), (98.0, 2.0)], [(101.0, 1.0)], at_ms=None))
    harness.frames(diff(11, 20, 10 if rule == "usdm" else None, [(99.0, 2.0)]))
    return harness


TRUE = [(99.0, 2.0), (98.0, 2.0)], [(101.0, 1.0)]
WRONG = [(99.0, 2.0), (98.0, 3.0)], [(101.0, 1.0)]


def abandoned(outcome):
    return [event.why for event in events([outcome], AuditAbandoned)]


def test_a_book_without_a_diff_since_the_audit_began_is_compared_at_the_id_it_stands_at():
    harness = standing()
    harness.begin_audit()
    harness.audit(snapshot(20, *TRUE))
    (row,) = harness.rows("audits")
    assert (row["update_id"], row["event_time"], row["drifted"]) == (20, None, False)
    assert row["seq"] == harness.seq
    assert row["recv_ns"] == harness.recv_ns


def test_the_snapshot_of_an_audit_is_no_row_of_depth():
    harness = standing()
    before = len(harness.rows("depth"))
    harness.begin_audit()
    harness.audit(snapshot(20, *WRONG))
    assert len(harness.rows("depth")) == before


def test_a_snapshot_older_than_the_audit_cannot_be_joined_and_is_given_up():
    harness = standing()
    harness.begin_audit()
    assert abandoned(harness.audit(snapshot(15, *WRONG))) == ["too_old"]
    harness.begin_audit()
    harness.frames(diff(21, 30, 20, [(97.0, 1.0)]))
    assert abandoned(harness.audit(snapshot(15, *WRONG))) == ["too_old"]
    assert harness.rows("audits") == []
    assert harness.metrics.audits == {"abandoned": 2}


def test_a_gap_ends_an_audit_without_a_row():
    harness = standing()
    harness.begin_audit()
    outcome = harness.frames(diff(31, 40, 30))
    assert abandoned(outcome) == ["gap"]
    assert abandoned(harness.audit(snapshot(35, *WRONG))) == []
    assert harness.rows("audits") == []


@pytest.mark.parametrize("where", ["before the snapshot", "before the first diff after it", "after a gap"])
def test_a_book_that_is_not_in_agreement_is_not_audited(where):
    harness = Harness()
    harness.frames(diff(1, 10, 0))
    if where != "before the snapshot":
        harness.body(snapshot(12, *TRUE))
    if where == "after a gap":
        harness.frames(diff(11, 20, 10))
        harness.frames(diff(31, 40, 30))
    assert abandoned(harness.begin_audit()) == ["not_in_sync"]
    assert abandoned(harness.audit(snapshot(10, *WRONG))) == []


def test_no_answer_and_a_malformed_one_end_an_audit():
    harness = standing()
    harness.begin_audit()
    assert abandoned(harness.audit(None)) == ["no_answer"]
    assert abandoned(harness.audit(None)) == []
    harness.begin_audit()
    outcome = harness.audit(b"<html>")
    assert abandoned(outcome) == ["malformed"]
    assert [event.connection for event in events([outcome], Malformed)] == ["rest"]
    assert harness.metrics.malformed == 1
    assert harness.metrics.feed("orderbook", "BTCUSDT").in_sync


def test_audits_of_unknown_symbols_are_nothing():
    harness = Harness()
    assert harness.begin_audit("NONE").events == []
    assert harness.audit(snapshot(1, *TRUE), "NONE").events == []


def test_a_drift_is_healed_by_a_snapshot_and_the_next_audit_agrees():
    harness = standing()
    harness.begin_audit()
    harness.audit(snapshot(20, *WRONG))
    stats = harness.metrics.feed("orderbook", "BTCUSDT")
    assert not stats.in_sync
    harness.frames(diff(21, 30, 20, [(97.0, 1.0)]))
    harness.body(snapshot(25, *WRONG))
    assert (stats.in_sync, stats.resyncs, stats.gaps) == (True, 2, 0)
    harness.begin_audit()
    harness.audit(snapshot(30, [*WRONG[0], (97.0, 1.0)], WRONG[1]))
    assert harness.column("audits", "drifted") == [True, False]
    assert harness.column("orderbook", "suspect") == [False, True]


def stored_drift(root, *, with_snapshot_between):
    """Store a run whose audit found a drift: at a diff amid a block, or with the snapshot itself, after one of the book's."""
    run = Run(root)
    run.frames(diff(1, 10, 0, [(99.0, 1.0)]))
    run.body(snapshot(10, [(99.0, 1.0), (98.0, 2.0)], [(101.0, 1.0)]))
    run.frames(diff(11, 20, 10, [(99.0, 2.0)]))
    run.begin_audit()
    if with_snapshot_between:
        # The book is in agreement: this one is of no use to it, and must not be to whoever replays.
        run.body(snapshot(20, [(99.0, 9.0)], [(101.0, 9.0)]))
        run.audit(snapshot(20, *WRONG))
        run.frames(diff(21, 30, 20, [(97.0, 1.0)]), diff(31, 40, 30, [(97.0, 2.0)]))
    else:
        run.audit(snapshot(30, [*WRONG[0], (97.0, 1.0)], WRONG[1]))
        run.frames(diff(21, 30, 20, [(97.0, 1.0)]), diff(31, 40, 30, [(97.0, 2.0)]))
    run.frames(diff(41, 50, 40, [(97.0, 3.0)]))
    run.body(snapshot(45, [*WRONG[0], (97.0, 2.0)], WRONG[1]))
    run.frames(diff(51, 60, 50, [(99.0, 4.0)]))
    run.publish()


@pytest.mark.parametrize("with_snapshot_between", [False, True])
def test_verify_replays_a_drift_where_it_was_found_and_warns_of_it(with_snapshot_between, tmp_path):
    stored_drift(tmp_path, with_snapshot_between=with_snapshot_between)
    suspect = [False, True, True, True, False] if with_snapshot_between else [False, False, True, True, False]
    (path,) = files(tmp_path, "orderbook")
    assert pq.read_table(path)["suspect"].to_pylist() == suspect
    report = verified(tmp_path)
    assert damage(report) == []
    assert report.exit_code == 0
    (warning,) = report.warnings
    assert "an audit found that the book had drifted at update" in warning
    assert "1 levels differed, by 1 at most" in warning
    # Without the audit, nobody knows why the book began anew.
    (path,) = files(tmp_path, "audits")
    path.unlink()
    assert ("differs", "orderbook") in {found[:2] for found in damage(verified(tmp_path))}
