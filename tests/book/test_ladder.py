"""The ladder against the simplest thing that could be right: a dict a side."""

from __future__ import annotations

import math
import random

from hypothesis import given, settings
from hypothesis import strategies as st

from harvest.book.ladder import Ladder

#: Few prices, so that levels meet; quantities that are 0 a third of the time.
PRICES = st.integers(1, 40).map(lambda tick: tick / 10)
QUANTITIES = st.one_of(st.just(0.0), st.floats(1e-8, 1e9), st.sampled_from([0.001, 1.0]))
LEVELS = st.lists(st.tuples(PRICES, QUANTITIES), max_size=12)
DIFFS = st.lists(st.tuples(LEVELS, LEVELS), max_size=10)
#: A snapshot names each price once.
SNAPSHOT = st.dictionaries(PRICES, QUANTITIES, max_size=12).map(lambda book: list(book.items()))


def apply_naively(book, levels):
    for price, qty in levels:
        if qty:
            book[price] = qty
        else:
            book.pop(price, None)


def best_first(bids, asks):
    return sorted(bids.items(), reverse=True), sorted(asks.items())


@settings(deadline=None, max_examples=50)
@given(SNAPSHOT, SNAPSHOT, DIFFS, st.integers(1, 15))
def test_ladder_is_a_dict_a_side_under_any_diffs(bids, asks, diffs, levels):
    ladder, bid_model, ask_model = Ladder(), {}, {}
    ladder.replace(bids, asks)
    apply_naively(bid_model, bids)
    apply_naively(ask_model, asks)
    for bid_diff, ask_diff in diffs:
        ladder.apply(bid_diff, ask_diff)
        apply_naively(bid_model, bid_diff)
        apply_naively(ask_model, ask_diff)
        expected = best_first(bid_model, ask_model)
        assert ladder.levels() == expected
        assert len(ladder) == len(bid_model) + len(ask_model)
        for side, (prices, quantities) in zip(
            expected, zip(*[iter(ladder.top(levels))] * 2, strict=True), strict=True
        ):
            assert len(prices) == len(quantities) == levels
            there = side[:levels]
            assert list(zip(prices, quantities, strict=True))[: len(there)] == there
            assert all(math.isnan(price) for price in prices[len(there) :])
            assert quantities[len(there) :] == [0.0] * (levels - len(there))


@settings(deadline=None, max_examples=50)
@given(DIFFS, st.integers(0, 10))
def test_replaying_the_diffs_on_a_snapshot_gives_the_same_book(diffs, taken_after):
    ladder, replayed = Ladder(), Ladder()
    for bids, asks in diffs[:taken_after]:
        ladder.apply(bids, asks)
    replayed.replace(*ladder.levels())
    for bids, asks in diffs[taken_after:]:
        ladder.apply(bids, asks)
        replayed.apply(bids, asks)
    assert replayed.levels() == ladder.levels()
    assert replayed.top(10)[1] == ladder.top(10)[1]


@settings(deadline=None, max_examples=50)
@given(DIFFS, st.integers(0, 9))
def test_applying_an_overlapping_diff_again_before_those_that_follow_changes_nothing(diffs, again):
    """Quantities are absolute: this is why a snapshot that is older than its first diffs does no harm."""
    once, twice = Ladder(), Ladder()
    for bids, asks in diffs:
        once.apply(bids, asks)
        twice.apply(bids, asks)
    for bids, asks in diffs[again:]:
        twice.apply(bids, asks)
    assert twice.levels() == once.levels()


def test_top_of_an_empty_book_is_all_absent():
    bid_px, bid_qty, ask_px, ask_qty = Ladder().top(3)
    assert all(math.isnan(price) for price in bid_px + ask_px)
    assert bid_qty == ask_qty == [0.0, 0.0, 0.0]


def test_top_of_one_sided_book_fills_the_other_side():
    ladder = Ladder()
    ladder.replace([(99.0, 1.0), (98.0, 2.0)], [])
    bid_px, bid_qty, ask_px, ask_qty = ladder.top(2)
    assert (bid_px, bid_qty) == ([99.0, 98.0], [1.0, 2.0])
    assert all(math.isnan(price) for price in ask_px)
    assert ask_qty == [0.0, 0.0]


def test_removing_what_is_not_there_and_levels_of_zero_in_a_snapshot_leave_no_trace():
    ladder = Ladder()
    ladder.replace([(99.0, 0.0), (98.0, 2.0)], [(101.0, 0.0)])
    ladder.apply([(97.0, 0.0)], [(102.0, 0.0)])
    assert ladder.levels() == ([(98.0, 2.0)], [])


def test_a_price_named_twice_in_one_diff_keeps_the_last_quantity():
    ladder = Ladder()
    ladder.apply([(99.0, 1.0), (99.0, 3.0)], [(101.0, 1.0), (101.0, 0.0), (101.0, 4.0)])
    assert ladder.levels() == ([(99.0, 3.0)], [(101.0, 4.0)])


def test_levels_are_the_callers_and_a_top_stays_as_it_was_while_the_book_goes_on():
    ladder = Ladder()
    ladder.replace([(99.0, 1.0)], [(101.0, 1.0)])
    for side in ladder.levels():
        side.clear()
    top = ladder.top(1)
    ladder.apply([(99.0, 2.0)], [(101.0, 0.0)])
    assert top == ([99.0], [1.0], [101.0], [1.0])
    assert ladder.levels() == ([(99.0, 2.0)], [])


def test_replace_forgets_all_that_was_there():
    ladder = Ladder()
    ladder.replace([(99.0, 1.0)], [(101.0, 1.0)])
    ladder.replace([(89.0, 2.0)], [(91.0, 2.0)])
    assert ladder.levels() == ([(89.0, 2.0)], [(91.0, 2.0)])


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32).map(random.Random), st.sampled_from([1, 5, 10, 30]))
def test_a_deep_book_whose_price_wanders_is_still_a_dict_a_side(chaos, levels):
    """Hundreds of levels, of which the near ones run out, come back, and change places with the far ones."""
    ladder, bid_model, ask_model = Ladder(), {}, {}
    middle = 5000
    for _ in range(60):
        middle += chaos.choice([-300, -40, -1, 0, 0, 1, 40, 300])
        sides = []
        for model, sign in ((bid_model, -1), (ask_model, 1)):
            gone = [price for price in model if (price - middle) * sign < 0]
            spread = chaos.choice([5, 80, 600])
            come = [middle + sign * chaos.randrange(spread) for _ in range(chaos.randrange(60))]
            diff = [(price, 0.0) for price in gone] + [
                (price, chaos.choice([0.0, 1.0, 2.5])) for price in come
            ]
            chaos.shuffle(diff)
            apply_naively(model, diff)
            sides.append(diff)
        if chaos.random() < 0.05:
            ladder.replace(list(bid_model.items()), list(ask_model.items()))
        else:
            ladder.apply(*sides)
        bids, asks = best_first(bid_model, ask_model)
        found = ladder.top(levels)
        for prices, quantities, expected in ((*found[:2], bids), (*found[2:], asks)):
            there = expected[:levels]
            assert list(zip(prices, quantities, strict=True))[: len(there)] == there
            assert quantities[len(there) :] == [0.0] * (levels - len(there))
    assert ladder.levels() == (bids, asks)
    assert len(ladder) == len(bids) + len(asks)
