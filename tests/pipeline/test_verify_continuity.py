"""Which ids are stored and why others are not: properties against sets of ids, one by one."""

from __future__ import annotations

import itertools

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st

from harvest.pipeline.verify import continuity
from harvest.pipeline.verify.continuity import Hole, StoredIds
from harvest.pipeline.verify.coverage import between, merged, percent, seconds, seconds_by_day
from harvest.pipeline.verify.explain import Break, explain_depth, explain_trades
from harvest.storage.kinds import UNKNOWN
from harvest.storage.spans import diff_links, trade_links

IDS = st.lists(st.integers(1, 60), max_size=40)
PARTS = st.lists(IDS, min_size=1, max_size=5)


def stored(parts, run=0):
    ids = StoredIds(may_overlap=False)
    for part in parts:
        array = np.array(part, np.int64)
        ids.add(trade_links(array), array * 10, np.full(len(part), run))
    return ids


def in_holes(holes):
    return [at for hole in holes for at in range(hole.after + 1, hole.to + 1)]


@settings(deadline=None)
@given(PARTS)
def test_stored_and_missing_are_all_ids_between_the_first_and_the_last(parts):
    ids, there = stored(parts), {at for part in parts for at in part}
    holes = ids.holes()
    if not there:
        assert (holes, ids.bounds) == ([], None)
        return
    assert ids.bounds == (min(there) - 1, max(there))
    assert in_holes(holes) == sorted(set(range(min(there), max(there))) - there)
    # expected - stored - missing = 0
    assert max(there) - min(there) + 1 - len(there) - len(in_holes(holes)) == 0
    assert all(hole.from_ns == hole.after * 10 and hole.to_ns == (hole.to + 1) * 10 for hole in holes)


@settings(deadline=None)
@given(PARTS)
@example([[1, 2, 3], [2, 2, 3], [3]])
def test_every_time_beyond_the_first_is_a_duplicate(parts):
    ids = stored(parts)
    ids.holes()
    again = sum((high - low + 1) for low, high in ids.duplicates)
    every = [at for part in parts for at in part]
    assert again == len(every) - len(set(every))
    named = {at for low, high in ids.duplicates for at in range(low, high + 1)}
    assert named == {at for at in every if every.count(at) > 1}


def test_memory_is_that_of_the_holes(monkeypatch):
    monkeypatch.setattr(continuity, "MAX_LOOSE", 10)
    ids = StoredIds(may_overlap=False)
    for start in range(0, 10_000, 100):
        array = np.arange(start, start + 100)
        ids.add(trade_links(array), array, array * 0)
        assert len(ids._loose) + len(ids._spans) <= 12
    assert ids.holes() == []


def test_times_are_those_of_the_stream_where_rest_filled_the_edge_of_a_hole():
    ids = StoredIds(may_overlap=False)
    trades = np.array([1, 2, 3, 7, 8])
    recv_ns = np.array([10, 20, UNKNOWN, UNKNOWN, 80])
    ids.add(trade_links(trades), recv_ns, np.array([0, 0, 1, 1, 1]))
    assert ids.holes() == [Hole(3, 6, 20, 80, True)]


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 5)), min_size=1, max_size=30), st.booleans())
def test_depth_is_missing_where_links_are(steps, is_spot):
    first, last, prev, at, expected = [], [], [], 100, []
    for skipped, size in steps:
        start = at + skipped
        if skipped and first:
            expected.append((at, start))
        first.append(start + 1)
        prev.append(UNKNOWN if is_spot else start)
        at = start + size
        last.append(at)
    ids = StoredIds(may_overlap=True)
    links = diff_links(np.array(first), np.array(last), np.array(prev))
    ids.add(links, np.arange(len(first)), np.zeros(len(first), np.int64))
    assert [(hole.after, hole.to) for hole in ids.holes()] == expected
    held = ids.holds(np.arange(90, at + 10))
    inside = {
        one
        for link in zip(links.after.tolist(), last, strict=True)
        for one in range(link[0] + 1, link[1] + 1)
    }
    assert (np.flatnonzero(held) + 90).tolist() == sorted(inside)


def test_a_diff_that_overlaps_the_one_before_is_no_hole_and_no_duplicate():
    ids = StoredIds(may_overlap=True)
    links = diff_links(np.array([1, 4, 6]), np.array([5, 9, 12]), np.full(3, UNKNOWN))
    ids.add(links, np.arange(3), np.zeros(3, np.int64))
    assert ids.holes() == []
    assert ids.bounds == (0, 12)


BREAKS = st.lists(
    st.builds(
        lambda seq, low, size, reason: Break(seq, "trade", reason, low, low + size, seq * 10, seq * 10 + 1),
        *(st.integers(0, 99), st.integers(1, 60), st.integers(0, 20)),
        st.sampled_from(["gap", "stall", "not_served"]),
    ),
    max_size=6,
    unique_by=lambda one: one.seq,
)


@settings(deadline=None)
@given(st.sets(st.integers(2, 70), max_size=30), BREAKS, st.booleans())
def test_every_missing_id_has_the_reason_of_the_last_break_that_names_it(there, breaks, same_run):
    # Both ends are stored, or there is no hole.
    ids = sorted({1, *there, 71})
    holes = [
        Hole(low, high - 1, low, high, same_run) for low, high in itertools.pairwise(ids) if high > low + 1
    ]
    missing = explain_trades(holes, breaks)
    why = {at: one.why for one in missing for at in range(one.from_id, one.to_id + 1)}
    assert sum(one.to_id - one.from_id + 1 for one in missing) == len(why)
    assert sorted(why) == in_holes(holes)
    for at, reason in why.items():
        about = [one for one in breaks if one.from_id <= at <= one.to_id]
        expected = max(about, key=lambda one: one.seq).reason if about else None
        assert reason == (expected or ("unexplained" if same_run else "downtime"))


def test_a_break_of_depth_explains_its_own_ends_alone():
    hole = Hole(10, 14, 1, 2, True)
    for rule, to_id in (("usdm", 14), ("spot", 15)):
        known = Break(1, "orderbook", "stall", 10, to_id, None, 3)
        (found,) = explain_depth([hole], [known], rule)
        assert (found.from_id, found.to_id, found.why) == (10, to_id, "stall")
        assert (found.from_ns, found.to_ns) == (1, 3)
        other = Break(1, "orderbook", "stall", 10, to_id - 1, None, 3)
        (found,) = explain_depth([hole], [other], rule)
        assert (found.from_id, found.to_id, found.why) == (10, to_id, "unexplained")


INTERVALS = st.lists(
    st.tuples(st.integers(0, 50), st.integers(0, 10)).map(lambda one: (one[0], sum(one))), max_size=8
)


@given(INTERVALS)
def test_times_in_which_something_is_missing_and_the_others_are_all_time(intervals):
    lacking = between(intervals, (0, 60))
    inside = {at for low, high in intervals for at in range(low, high)}
    assert {at for low, high in lacking for at in range(low, high)} == set(range(60)) - inside
    assert seconds((0, 60), merged(intervals)) == percent(60 - len(inside), 60)


def test_dates_have_their_own_share_of_time():
    day = 86_400 * 10**9
    by_day = seconds_by_day((day // 2, 3 * day), [(day, day + day // 4), (2 * day - 10, 2 * day + day // 2)])
    assert by_day[0] == 100.0
    assert by_day[1] < 75
    assert by_day[2] == 50.0


def test_less_than_all_is_never_a_hundred_percent():
    assert percent(10**15 - 1, 10**15) < 100
    assert percent(0, 0) == 100
