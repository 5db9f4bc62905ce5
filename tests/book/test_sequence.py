"""The gap rules against sets of ids, and case by case against the venue's procedures."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from harvest.book.sequence import (
    MAX_HOLES,
    BridgeVerdict,
    ChainVerdict,
    DepthChain,
    TradeSequence,
    TradeVerdict,
    judge_bridge,
)

NEW = {TradeVerdict.FIRST, TradeVerdict.IN_ORDER, TradeVerdict.GAP, TradeVerdict.LATE, TradeVerdict.EARLY}


@st.composite
def arrivals(draw):
    """Draw a stream of ids as it might arrive: some lost, some twice, some out of order."""
    first = draw(st.sampled_from([0, 1, 7, 10**15]))
    chaos = random.Random(draw(st.integers(0, 2**32)))
    ids = list(range(first, first + draw(st.integers(1, 60))))
    kept = [trade_id for trade_id in ids if chaos.random() < 0.7] or ids[:1]
    mixed = kept + chaos.sample(kept, len(kept) // 4)
    # Each id is late by up to so many places: 0 leaves all but the duplicates in order.
    disorder = draw(st.sampled_from([0, 2, 10, 100]))
    late = [place + chaos.random() * disorder for place in range(len(mixed))]
    return [trade_id for _, trade_id in sorted(zip(late, mixed, strict=True))]


@settings(deadline=None, max_examples=300)
@given(arrivals())
@example([5, 4, 3, 2, 1, 0])
@example([0, 2, 1, 1, 0])
def test_stored_are_the_unique_ids_and_gaps_less_late_fills_are_exactly_the_missing(ids):
    sequence = TradeSequence()
    stored, declared, filled = [], [], []
    for trade_id in ids:
        expected = sequence.next_id
        if trade_id == expected and trade_id % 2:
            # The caller's shortcut, which must mean the same as a call.
            sequence.next_id += 1
            stored.append(trade_id)
            continue
        verdict = sequence.accept(trade_id)
        if verdict in NEW:
            stored.append(trade_id)
        if verdict is TradeVerdict.GAP:
            declared += range(expected, trade_id)
        if verdict is TradeVerdict.LATE:
            filled.append(trade_id)
    assert sorted(stored) == sorted(set(ids))
    assert len(set(declared)) == len(declared)
    assert set(filled) <= set(declared)
    missing = set(range(ids[0], max(ids) + 1)) - set(ids)
    assert set(declared) - set(filled) == missing
    found = sequence.missing()
    assert [trade_id for low, high in found for trade_id in range(low, high + 1)] == sorted(missing)
    # Merged as far as they go: no two of the intervals touch.
    assert all(before[1] + 1 < after[0] for before, after in pairwise(found))
    assert sequence.next_id == max(ids) + 1


@settings(deadline=None, max_examples=200)
@given(arrivals())
def test_each_verdict_says_what_the_id_is_to_those_before(ids):
    sequence, seen = TradeSequence(), []
    for trade_id in ids:
        verdict = sequence.accept(trade_id)
        if not seen:
            assert verdict is TradeVerdict.FIRST
        elif trade_id in seen:
            assert verdict is TradeVerdict.DUPLICATE
        elif trade_id < seen[0]:
            assert verdict is TradeVerdict.EARLY
        elif trade_id < max(seen):
            assert verdict is TradeVerdict.LATE
        else:
            in_order = trade_id == max(seen) + 1
            assert verdict is (TradeVerdict.IN_ORDER if in_order else TradeVerdict.GAP)
        seen.append(trade_id)


def test_ids_older_than_the_first_are_not_missing_until_they_come():
    sequence = TradeSequence()
    sequence.accept(100)
    assert sequence.missing() == []
    assert sequence.accept(50) is TradeVerdict.EARLY
    assert sequence.accept(50) is TradeVerdict.DUPLICATE
    assert sequence.accept(51) is TradeVerdict.EARLY
    assert sequence.missing() == []


def test_a_hole_is_filled_from_either_end_and_from_its_middle():
    sequence = TradeSequence()
    sequence.accept(10)
    assert sequence.accept(20) is TradeVerdict.GAP
    assert sequence.missing() == [(11, 19)]
    for trade_id in (11, 19, 15):
        assert sequence.accept(trade_id) is TradeVerdict.LATE
    assert sequence.missing() == [(12, 14), (16, 18)]
    for trade_id in (14, 12, 13, 17, 16, 18):
        assert sequence.accept(trade_id) is TradeVerdict.LATE
    assert sequence.missing() == []


def test_holes_are_bounded_and_an_id_of_a_forgotten_one_is_taken_for_seen():
    sequence = TradeSequence()
    for trade_id in range(0, 2 * (MAX_HOLES + 5), 2):
        sequence.accept(trade_id)
    assert len(sequence.missing()) == MAX_HOLES
    assert sequence.accept(1) is TradeVerdict.DUPLICATE
    assert sequence.accept(2 * MAX_HOLES + 1) is TradeVerdict.LATE


# Depth: the chain of diffs.


def stream_of(rule, chaos, count):
    """Make diffs as the venue does: contiguous on spot; on USD-M sparse, each naming the last id of its predecessor."""
    last, diffs = chaos.choice([0, 5, 10**13]), []
    for _ in range(count):
        first = last + 1 + (chaos.randrange(50) if rule == "usdm" else 0)
        final = first + chaos.choice([0, 1, 50])
        diffs.append((first, final, last if rule == "usdm" else None))
        last = final
    return diffs


CHAOS = st.integers(0, 2**32).map(random.Random)
COUNTS = st.integers(2, 30)


@pytest.mark.parametrize("rule", ["spot", "usdm"])
@settings(deadline=None)
@given(chaos=CHAOS, count=COUNTS)
def test_lost_diffs_are_gaps_with_exactly_their_intervals(rule, chaos, count):
    diffs = stream_of(rule, chaos, count)
    kept = [index for index in range(len(diffs)) if chaos.random() < 0.6] or [0]
    twice = chaos.sample(kept, len(kept) // 3)
    chain, last_kept, gaps, expected = DepthChain(rule), None, [], []
    for index in kept:
        verdict = chain.accept(*diffs[index])
        if last_kept is None:
            assert verdict is ChainVerdict.FIRST
        elif index == last_kept + 1:
            assert verdict is ChainVerdict.IN_ORDER
        else:
            assert verdict is ChainVerdict.GAP
            gaps.append(chain.gap)
            before, after = diffs[last_kept], diffs[index]
            expected.append((before[1], after[0] if rule == "spot" else after[2]))
        if index in twice:
            assert chain.accept(*diffs[index]) is ChainVerdict.DUPLICATE
        last_kept = index
    assert gaps == expected
    assert chain.last_update_id == diffs[kept[-1]][1]
    if rule == "spot":
        # Both ends exclusive: exactly the ids of the lost diffs lie between them.
        lost = {update_id for low, high in gaps for update_id in range(low + 1, high)}
        inner = [diff for index, diff in enumerate(diffs) if kept[0] < index < kept[-1] and index not in kept]
        assert lost == {update_id for first, final, _ in inner for update_id in range(first, final + 1)}


@pytest.mark.parametrize("rule", ["spot", "usdm"])
@settings(deadline=None)
@given(chaos=CHAOS, count=COUNTS)
def test_diffs_that_another_connection_brings_late_are_duplicates_and_break_nothing(rule, chaos, count):
    diffs = stream_of(rule, chaos, count)
    lag = chaos.randint(1, 5)
    chain, verdicts = DepthChain(rule), []
    for index in range(len(diffs) + lag):
        if index < len(diffs):
            verdicts.append(chain.accept(*diffs[index]))
        if index >= lag:
            assert chain.accept(*diffs[index - lag]) is ChainVerdict.DUPLICATE
    assert verdicts == [ChainVerdict.FIRST] + [ChainVerdict.IN_ORDER] * (len(diffs) - 1)


@pytest.mark.parametrize(
    ("rule", "diff", "verdict", "gap"),
    [
        ("spot", (101, 105, None), ChainVerdict.IN_ORDER, None),
        ("spot", (100, 105, None), ChainVerdict.IN_ORDER, None),
        ("spot", (102, 105, None), ChainVerdict.GAP, (100, 102)),
        ("spot", (90, 100, None), ChainVerdict.DUPLICATE, None),
        ("usdm", (500, 600, 100), ChainVerdict.IN_ORDER, None),
        ("usdm", (101, 105, 101), ChainVerdict.GAP, (100, 101)),
        ("usdm", (150, 160, 120), ChainVerdict.GAP, (100, 120)),
        ("usdm", (95, 105, 90), ChainVerdict.IN_ORDER, None),
        ("usdm", (90, 100, 80), ChainVerdict.DUPLICATE, None),
    ],
)
def test_chain_after_a_diff_that_ended_at_100(rule, diff, verdict, gap):
    chain = DepthChain(rule)
    chain.accept(90, 100, 80)
    assert chain.accept(*diff) is verdict
    if gap:
        assert chain.gap == gap
    assert chain.last_update_id == max(100, diff[1])


def test_chain_goes_on_from_the_diff_after_a_gap():
    chain = DepthChain("usdm")
    chain.accept(1, 10, 0)
    assert chain.accept(30, 40, 25) is ChainVerdict.GAP
    assert chain.accept(41, 50, 40) is ChainVerdict.IN_ORDER


# Depth: the first diff after a snapshot.


@pytest.mark.parametrize(
    ("rule", "diff", "verdict"),
    [
        # Spot: u <= lastUpdateId is dropped, the first left must have U <= lastUpdateId + 1 <= u.
        ("spot", (90, 100, None), BridgeVerdict.STALE),
        ("spot", (90, 99, None), BridgeVerdict.STALE),
        ("spot", (101, 110, None), BridgeVerdict.BRIDGES),
        ("spot", (101, 101, None), BridgeVerdict.BRIDGES),
        ("spot", (95, 101, None), BridgeVerdict.BRIDGES),
        ("spot", (102, 110, None), BridgeVerdict.SNAPSHOT_TOO_OLD),
        # USD-M: u < lastUpdateId is dropped, the first left must have U <= lastUpdateId <= u …
        ("usdm", (90, 99, 80), BridgeVerdict.STALE),
        ("usdm", (90, 100, 80), BridgeVerdict.BRIDGES),
        ("usdm", (100, 110, 80), BridgeVerdict.BRIDGES),
        ("usdm", (100, 100, 80), BridgeVerdict.BRIDGES),
        # … or, as live streams have been seen to start, pu == lastUpdateId.
        ("usdm", (101, 110, 100), BridgeVerdict.BRIDGES),
        ("usdm", (500, 600, 100), BridgeVerdict.BRIDGES),
        # Sparse ids: nothing lies between its predecessor, which the snapshot holds, and it.
        ("usdm", (105, 110, 98), BridgeVerdict.BRIDGES),
        ("usdm", (105, 110, 101), BridgeVerdict.SNAPSHOT_TOO_OLD),
        ("usdm", (105, 110, 104), BridgeVerdict.SNAPSHOT_TOO_OLD),
    ],
)
def test_bridge_from_a_snapshot_at_100(rule, diff, verdict):
    assert judge_bridge(rule, 100, *diff) is verdict


@pytest.mark.parametrize("rule", ["spot", "usdm"])
@settings(deadline=None)
@given(chaos=CHAOS, count=COUNTS)
def test_some_diff_bridges_any_snapshot_within_a_whole_stream(rule, chaos, count):
    """The verdicts over a stream are: stale, then one that bridges, and never too old before that."""
    diffs = stream_of(rule, chaos, count)
    snapshot_id = chaos.randint(diffs[0][0], diffs[-1][1])
    verdicts = [judge_bridge(rule, snapshot_id, *diff) for diff in diffs]
    fresh = [index for index, verdict in enumerate(verdicts) if verdict is not BridgeVerdict.STALE]
    assert verdicts[: len(diffs) - len(fresh)] == [BridgeVerdict.STALE] * (len(diffs) - len(fresh))
    if fresh:
        assert verdicts[fresh[0]] is BridgeVerdict.BRIDGES
        # Nothing that the snapshot does not hold was dropped.
        assert all(final <= snapshot_id for _, final, _ in diffs[: fresh[0]])
    else:
        assert rule == "spot"
        assert snapshot_id == diffs[-1][1]


@pytest.mark.parametrize("rule", ["spot", "usdm"])
@settings(deadline=None)
@given(chaos=CHAOS, count=COUNTS)
def test_a_snapshot_from_before_the_stream_began_is_too_old_if_anything_lies_between(rule, chaos, count):
    diffs = stream_of(rule, chaos, count)
    lost, first = diffs[0], diffs[1]
    assert judge_bridge(rule, lost[1] - 1, *first) is BridgeVerdict.SNAPSHOT_TOO_OLD


@given(st.sets(st.integers(20, 40), min_size=1), st.integers(0, 19))
def test_what_is_stored_may_be_known_only_after_ids_have_come(ids, last_id):
    begun, late = TradeSequence(), TradeSequence()
    begun.resume(last_id)
    assert late.begins_alone
    for trade_id in ids:
        begun.accept(trade_id)
        late.accept(trade_id)
    assert late.begins_alone
    late.resume(last_id)
    assert not late.begins_alone
    assert late.state() == begun.state()
