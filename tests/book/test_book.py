"""A book that takes many diffs at once is the ladder and the flow that took them one by one, bit by bit, from there on too."""

from __future__ import annotations

import math
import random
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np
import pytest

from harvest.book import book, tops
from harvest.book.book import TIMES_PASSED, Book
from harvest.book.flow import EXACT_UNITS, LEVELS, UNITS, WINDOW, OrderFlow
from harvest.book.ladder import Ladder
from harvest.book.levels import FlatLevels, LevelLists

if TYPE_CHECKING:
    from harvest.book.bulk import Followed
    from harvest.market import Level

Diff = tuple["list[Level]", "list[Level]"]
#: The least quantity that is not exact in units any more, and the greatest that is.
BEYOND = EXACT_UNITS / UNITS
WITHIN = (EXACT_UNITS - 1) / UNITS


@pytest.fixture(autouse=True)
def _eager(monkeypatch):
    """Let diffs be followed wherever that can be."""
    monkeypatch.setattr(book, "TIMES_PASSED", 0)


class Both:
    """A book, and a ladder and a flow beside it that take all diffs one by one."""

    def __init__(self, bids: list[Level], asks: list[Level], *, levels: int = 10) -> None:
        self.levels, self.book = levels, Book()
        self.ladder, self.flow = Ladder(), OrderFlow()
        self.book.ladder.replace(bids, asks)
        self.ladder.replace(bids, asks)

    def one_by_one(self, diffs: list[Diff]) -> None:
        """Let the book take diffs one by one."""
        for diff in diffs:
            expected = self._expected(diff)
            self.book.ladder.apply(*diff)
            found = self.book.ladder.top(self.levels)
            assert repr((found, self.book.flow.update(*self.book.ladder.top(LEVELS)))) == repr(expected)

    def at_once(self, diffs: list[Diff]) -> bool:
        """Let the book take diffs at once, if it can; returns whether it can."""
        followed = self.book.follow(
            *(_lists([diff[side] for diff in diffs]) for side in range(2)), self.levels
        )
        if followed is None:
            return False
        assert _rows(followed) == [repr(self._expected(diff)) for diff in diffs]
        return True

    def agree(self) -> None:
        """See that the state is the same."""
        assert self.book.ladder.levels() == self.ladder.levels()
        assert repr(self.book.flow.state()) == repr(self.flow.state())

    def _expected(self, diff: Diff) -> object:
        self.ladder.apply(*diff)
        return self.ladder.top(self.levels), self.flow.update(*self.ladder.top(LEVELS))


def _lists(lists: list[list[Level]]) -> LevelLists:
    levels = np.array(list(chain(*lists)), np.float64).reshape(-1, 2)
    offsets = np.cumsum([0, *map(len, lists)])
    return LevelLists.of(FlatLevels(offsets, levels[:, 0].copy(), levels[:, 1].copy()))


def _rows(followed: Followed) -> list[str]:
    sides = (followed.bid_px, followed.bid_qty, followed.ask_px, followed.ask_qty)
    return [
        repr((tuple(column[row].tolist() for column in sides), (*flows, None if math.isnan(z) else z)))
        for row, (flows, z) in enumerate(zip(followed.flows.tolist(), followed.scores.tolist(), strict=True))
    ]


def level(sign: int, number: int, qty: float) -> Level:
    """Make the level so many ticks from the touch: below 1000 for bids, above it for asks."""
    return 1000.0 + sign * (number + 0.5) / 8, qty


def some(chaos: random.Random, count: int, reach: int) -> list[Diff]:
    """Make diffs of every size; levels come twice, are removed unknown, and cross the touch."""

    def side(sign: int) -> list[Level]:
        if chaos.random() < 0.02:
            return [level(sign, number, 0.0) for number in range(-2, reach)]
        return [
            level(
                sign,
                chaos.randrange(-2, reach),
                chaos.choice((0.0, 0.0, 1.5, chaos.randrange(1, 10**9) / 1e8)),
            )
            for _ in range(chaos.choice((0, 1, 4, 30)))
        ]

    return [(side(-1), side(1)) for _ in range(count)]


def full(sign: int, count: int) -> list[Level]:
    """Make a whole side."""
    return [level(sign, number, 1.0) for number in range(count)]


@pytest.mark.parametrize("levels", [1, 5, 10, 20, 25])
@pytest.mark.parametrize("depth", [0, 3, 12, 60, 700])
def test_at_once_or_one_by_one_is_the_same_in_any_order(monkeypatch, levels, depth):
    monkeypatch.setattr(tops, "ROWS_AT_ONCE", 16)
    chaos = random.Random(f"{levels} {depth}")
    both = Both(full(-1, depth), full(1, depth), levels=max(levels, LEVELS))
    both.one_by_one(some(chaos, 1, depth + 3))
    for _ in range(60):
        diffs = some(chaos, chaos.choice((1, 5, 40)), chaos.choice((4, depth + 3)))
        if chaos.random() < 0.7:
            assert both.at_once(diffs)
        else:
            both.one_by_one(diffs)
        if chaos.random() < 0.2:
            both.agree()
    both.agree()
    assert len(both.flow.state().window.split(",")) == WINDOW


def test_scores_begin_with_the_last_of_a_window_wherever_it_is_cut():
    for cut in (1, 298, 299, 300, 301, 302, 400):
        chaos = random.Random(cut)
        both = Both(full(-1, 20), full(1, 20))
        both.one_by_one(some(chaos, 1, 10))
        for count in (cut, 1, 2, 310):
            assert both.at_once(some(chaos, count, 10))
        both.agree()


def test_nothing_that_ever_changes_has_no_score():
    both = Both(full(-1, 20), full(1, 20))
    both.one_by_one([([], [])])
    assert both.at_once([([], [])] * 700)
    assert both.at_once([([level(-1, 0, 2.0)], [])] * 310)
    both.agree()


@pytest.mark.parametrize("sign", [-1, 1])
def test_quantities_that_are_not_exact_are_left_and_those_before_are_not(sign):
    def diff(number: int, qty: float) -> Diff:
        changed = [level(sign, number, qty)]
        return (changed, []) if sign < 0 else ([], changed)

    both = Both(full(-1, 30), full(1, 30), levels=20)
    both.one_by_one([([], [])])
    # Where the flow does not look, any quantity will do.
    assert both.at_once([diff(0, WITHIN), diff(0, 1.0), diff(15, 1e60), diff(16, BEYOND)])
    assert not both.at_once([diff(0, 2.0), diff(1, BEYOND), diff(1, 1.0)])
    both.agree()
    both.one_by_one([diff(0, 2.0), diff(1, BEYOND)])
    # What was there before the first is looked at, too.
    assert not both.at_once([diff(1, 1.0)])
    both.one_by_one([diff(1, 1.0)])
    assert both.at_once([diff(1, 3.0)])
    # An imbalance of ten levels may be beyond where each of them is not.
    big = ([level(-1, number, WITHIN) for number in range(10)], [level(1, n, 0.0) for n in range(10)])
    assert not both.at_once([big])
    both.agree()


def test_imbalances_that_were_not_exact_are_waited_for_to_leave_the_window():
    both = Both(full(-1, 20), full(1, 20))
    both.one_by_one([([], []), ([level(-1, 0, 1e9)], []), ([level(-1, 0, 1.0)], [])])
    chaos = random.Random(5)
    both.one_by_one(some(chaos, WINDOW - 1, 15))
    assert not both.at_once(some(chaos, 3, 15))
    both.one_by_one(some(chaos, 1, 15))
    assert both.at_once(some(chaos, 3, 15))
    both.agree()


@pytest.mark.parametrize("price", [0.0, -0.0])
def test_a_book_with_a_price_of_0_is_not_followed(price):
    for bids, asks in (([(price, 1.0)], []), ([], [(price, 1.0)])):
        both = Both(bids + full(-1, 3), asks + full(1, 3))
        both.one_by_one([([], [])])
        assert not both.at_once([([level(-1, 1, 2.0)], [])])
        both.agree()
        both.one_by_one([([(price, 0.0)], [(price, 0.0)])])
        assert both.at_once([([level(-1, 1, 2.0)], [])])
        both.agree()


def test_a_flow_that_knows_no_diff_yet_is_not_followed():
    both = Both(full(-1, 3), full(1, 3))
    assert not both.at_once([([level(-1, 1, 2.0)], [])])
    both.one_by_one([([], [])])
    assert both.at_once([([level(-1, 1, 2.0)], [])])
    # A snapshot comes between.
    for flow in (both.book.flow, both.flow):
        flow.reset()
    for ladder in (both.book.ladder, both.ladder):
        ladder.replace(full(-1, 5), full(1, 5))
    assert not both.at_once([([level(-1, 1, 2.0)], [])])
    both.one_by_one([([], []), ([level(-1, 1, 2.0)], [])])
    assert both.at_once([([level(-1, 1, 3.0)], [])])
    both.agree()


def test_a_book_that_is_nearly_empty_is_followed_through_very_many_levels():
    both = Both(full(-1, 2), full(1, 2))
    both.one_by_one([([], [])])
    # More levels in one matrix of diffs by levels than 16 bits can number.
    diffs: list[Diff] = [([level(-1, 600 * n + m, 1.0) for m in range(600)], []) for n in range(120)]
    assert both.at_once(diffs)
    both.agree()


def test_the_ladder_and_the_flow_that_are_given_out_are_always_the_same_two():
    both = Both(full(-1, 20), full(1, 20))
    ladder, flow = both.book.ladder, both.book.flow
    both.one_by_one([([], [])])
    assert both.at_once(some(random.Random(1), 5, 10))
    assert both.book.ladder is ladder
    assert both.book.flow is flow
    both.agree()


def test_a_book_that_could_not_be_followed_is_left_alone_for_a_while(monkeypatch):
    monkeypatch.setattr(book, "TIMES_PASSED", TIMES_PASSED)
    both = Both(full(-1, 3), full(1, 3))
    diff: Diff = ([level(-1, 1, 2.0)], [])
    assert not both.at_once([diff])
    passed = 0
    both.one_by_one([diff])
    while not both.at_once([diff]):
        passed += 1
    assert passed == TIMES_PASSED
    assert both.at_once([diff])
    both.agree()
