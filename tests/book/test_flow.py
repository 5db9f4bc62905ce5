"""Order flow and exact quantities, against the formulas in fractions."""

from __future__ import annotations

import math
import random
import statistics
from decimal import Decimal
from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from harvest.book.flow import WINDOW, OrderFlow, sum_from_float, to_units
from harvest.book.ladder import Ladder
from tests.book.reference import exact, order_flow, z_scores

NAN = float("nan")


def tops_of(chaos, count):
    """Walk a small book at random, in which levels and whole sides come and go; returns its tops, nothing shared."""
    ladder, tops = Ladder(), []
    for _ in range(count):
        sides = []
        for first in (90, 101):
            ticks = [first + chaos.randrange(12) for _ in range(chaos.randrange(5))]
            sides.append([(tick / 10, chaos.choice([0.0, 0.0, 0.1, 0.3, 2.0, 1e-8])) for tick in ticks])
        if chaos.random() < 0.05:
            # All of one side goes at once.
            ladder.replace(*chaos.choice([([], ladder.levels()[1]), (ladder.levels()[0], [])]))
        ladder.apply(*sides)
        tops.append(ladder.top(10))
    return tops


def copied(top):
    return tuple(list(part) for part in top)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32).map(random.Random), st.integers(2, 60))
def test_imbalance_is_that_of_the_papers_level_by_level(chaos, count):
    tops, flow = tops_of(chaos, count), OrderFlow()
    assert flow.update(*copied(tops[0])) is None
    for top, expected in zip(tops[1:], order_flow(tops), strict=True):
        found = flow.update(*copied(top))
        assert found is not None
        assert found[:3] == tuple(float(value) for value in expected)


@pytest.mark.parametrize(
    ("now", "before", "bid", "ask"),
    [
        ((100.0, 5.0), (100.0, 3.0), 2, 2),
        ((100.0, 3.0), (100.0, 3.0), 0, 0),
        ((101.0, 5.0), (100.0, 3.0), 5, -3),
        ((99.0, 5.0), (100.0, 3.0), -3, 5),
        ((NAN, 0.0), (100.0, 3.0), -3, -3),
        ((100.0, 3.0), (NAN, 0.0), 3, 3),
        ((NAN, 0.0), (NAN, 0.0), 0, 0),
    ],
    ids=["more", "the same", "higher", "lower", "gone", "new", "absent"],
)
def test_flow_of_one_level(now, before, bid, ask):
    nothing = [NAN] * 10, [0.0] * 10
    for side, expected in ((0, bid), (2, -ask)):
        flow = OrderFlow()
        for price, qty in (before, now):
            level = [price] + [NAN] * 9, [qty] + [0.0] * 9
            found = flow.update(*(level + nothing if side == 0 else nothing + level))
        assert found == (expected, expected, expected, None)


def touch(bid_qty):
    return [99.0] + [NAN] * 9, [bid_qty] + [0.0] * 9, [101.0] + [NAN] * 9, [1.0] + [0.0] * 9


@pytest.mark.parametrize("seed", [1, 2])
def test_z_is_null_until_the_window_is_full_and_then_exact(seed):
    chaos, flow = random.Random(seed), OrderFlow()
    quantities = [chaos.randrange(1, 10**6) / 10**3 for _ in range(2 * WINDOW + 50)]
    flow.update(*touch(quantities[0]))
    found = [flow.update(*touch(qty)) for qty in quantities[1:]]
    values = [exact(now) - exact(before) for before, now in pairwise(quantities)]
    assert [row[0] for row in found] == [float(value) for value in values]
    scores = [row[3] for row in found]
    assert scores == z_scores(values, WINDOW)
    assert scores[: WINDOW - 1] == [None] * (WINDOW - 1)
    assert None not in scores[WINDOW - 1 :]
    for end in (WINDOW, WINDOW + 1, len(values)):
        last = [float(value) for value in values[end - WINDOW : end]]
        plain = (last[-1] - statistics.fmean(last)) / statistics.pstdev(last)
        assert math.isclose(scores[end - 1], plain, rel_tol=1e-9)


def test_z_is_null_where_nothing_varies_and_comes_back_when_it_does():
    flow = OrderFlow()
    flow.update(*touch(1.0))
    still = [flow.update(*touch(1.0)) for _ in range(WINDOW + 10)]
    assert {row[3] for row in still} == {None}
    moved = flow.update(*touch(2.0))
    # One in 300 differs: (1 - 1/300) / sqrt(1/300 - 1/300²) = sqrt(299).
    assert math.isclose(moved[3], math.sqrt(WINDOW - 1))
    flow.update(*touch(1.0))
    gone = [flow.update(*touch(1.0)) for _ in range(WINDOW)]
    assert gone[-2][3] is not None or gone[-3][3] is not None
    assert gone[-1][3] is None


def test_reset_forgets_the_book_before_and_the_window():
    flow = OrderFlow()
    for qty in range(WINDOW + 2):
        flow.update(*touch(float(1 + qty % 3)))
    assert flow.update(*touch(5.0))[3] is not None
    flow.reset()
    assert flow.update(*touch(7.0)) is None
    assert flow.update(*touch(8.0)) == (1.0, 1.0, 1.0, None)
    later = [flow.update(*touch(float(qty % 5))) for qty in range(WINDOW - 1)]
    assert [row[3] for row in later[:-1]] == [None] * (WINDOW - 2)
    assert later[-1][3] is not None


def test_quantities_beyond_all_reason_end_nothing():
    flow = OrderFlow()
    flow.update(*touch(1.0))
    rows = [flow.update(*touch(1e300 if number % 7 == 0 else 1.0)) for number in range(WINDOW + 5)]
    assert rows[-1][3] is None
    assert {abs(row[0]) for row in rows} <= {0.0, 1e300}


@settings(deadline=None, max_examples=500)
@given(st.integers(0, 6 * 10**15))
@example(2**51 - 1)
@example(2**51 + 1)
@example(4174716571858075)  # 41747165.71858075 * 1e8 is half a unit off
@example(2**52 - 1)
@example(2**52 + 1)
@example(2**53 + 2)
def test_units_of_a_quantity_with_eight_decimals_are_exact(units):
    qty = float(Decimal(units).scaleb(-8))
    if units < 2**26 * 10**8:
        # Float64 tells neighbours 1e-8 apart up to here.
        assert to_units(qty) == units
        assert to_units(-qty) == -units
        assert sum_from_float(qty) == units
    else:
        assert Fraction(to_units(qty), 10**8) == exact(qty)


@settings(deadline=None, max_examples=300)
@given(st.integers(0, 2**53), st.integers(0, 7))
def test_units_are_those_of_the_shortest_decimal_form_at_any_size(digits, decimals):
    """A venue with larger quantities writes fewer decimals: what is written in 15 digits is held exactly."""
    digits %= 10**15
    qty = float(Decimal(digits).scaleb(-decimals))
    assert to_units(qty) == digits * 10 ** (8 - decimals)


@settings(deadline=None, max_examples=300)
@given(st.integers(-(10**15) + 1, 10**15 - 1))
def test_a_stored_sum_is_recovered_exactly_up_to_fifteen_digits(units):
    assert sum_from_float(units / 10**8) == units
