from __future__ import annotations

from math import inf

import pytest

from harvest.book.audit import NO_REACH, BookAudit, Reach, SideAudit, audit, reach_of
from harvest.book.ladder import Ladder

BIDS = [(100.0, 1.0), (99.0, 2.0), (98.0, 3.0)]
ASKS = [(101.0, 1.0), (102.0, 2.0), (103.0, 3.0)]
WHOLE = reach_of(BIDS, ASKS)


def ladder(bids=BIDS, asks=ASKS):
    made = Ladder()
    made.replace(bids, asks)
    return made


def audited(book=None, venue=None, known=WHOLE, covered=WHOLE) -> BookAudit:
    return audit(book or ladder(), venue or ladder(), known=known, covered=covered)


def test_a_snapshot_reaches_from_its_deepest_bid_to_its_highest_ask_and_an_empty_side_is_empty_for_good():
    assert reach_of(BIDS[::-1], ASKS) == Reach(98.0, 103.0)
    assert reach_of([], []) == Reach(-inf, inf)


def test_equal_books_agree():
    found = audited()
    assert found == BookAudit(SideAudit(3, 0, 0, 0, 0.0), SideAudit(3, 0, 0, 0, 0.0), best_differs=False)
    assert (found.drifted, found.partial, found.differing, found.max_drift) == (False, False, 0, 0.0)


@pytest.mark.parametrize(
    ("bids", "drift"),
    [
        ([(100.0, 1.0), (99.0, 2.5), (98.0, 3.0)], 0.5),
        ([(100.0, 1.0), (98.0, 3.0)], 2.0),
        ([*BIDS, (99.5, 7.0)], 7.0),
        ([(100.0, 1.0), (99.0, 2.0), (98.0, 2.75)], 0.25),
    ],
)
def test_another_quantity_a_missing_level_and_one_too_many_are_drifts(bids, drift):
    found = audited(ladder(bids))
    assert (found.bids.differing, found.asks.differing, found.max_drift) == (1, 0, drift)
    assert found.drifted
    assert not found.best_differs
    mirrored = audited(
        ladder(BIDS, [(201 - price, qty) for price, qty in bids]),
    )
    assert (mirrored.bids.differing, mirrored.asks.differing, mirrored.max_drift) == (0, 1, drift)


def test_levels_of_the_book_that_the_snapshot_does_not_reach_are_counted_and_not_compared():
    book = ladder([*BIDS, (90.0, 5.0)], [*ASKS, (110.0, 5.0), (111.0, 6.0)])
    found = audited(book)
    assert (found.bids.beyond, found.asks.beyond, found.differing) == (1, 2, 0)
    assert found.partial
    assert not found.drifted


def test_levels_that_the_book_could_not_know_are_unknown_and_no_drift():
    venue = ladder([*BIDS, (97.0, 5.0)], [*ASKS, (104.0, 5.0), (105.0, 6.0)])
    found = audited(venue=venue, covered=Reach(97.0, 105.0))
    assert (found.bids.unknown, found.asks.unknown, found.differing) == (1, 2, 0)
    assert (found.bids.compared, found.asks.compared) == (3, 3)
    assert found.partial
    assert not found.drifted


def test_a_level_that_the_book_has_is_compared_wherever_it_lies():
    venue = ladder([*BIDS, (97.0, 5.0)])
    found = audited(ladder([*BIDS, (97.0, 4.0)]), venue, covered=Reach(97.0, 103.0))
    assert (found.bids.differing, found.bids.max_drift) == (1, 1.0)


def test_nothing_is_known_of_a_book_whose_beginning_nobody_knows_but_what_it_has():
    found = audited(ladder(BIDS[:2]), known=NO_REACH)
    assert (found.bids.compared, found.bids.unknown, found.bids.differing) == (2, 1, 0)


def test_a_book_that_does_not_know_the_best_level_has_drifted():
    found = audited(ladder(BIDS[1:]), known=NO_REACH)
    assert (found.differing, found.bids.unknown) == (0, 1)
    assert found.best_differs
    assert found.drifted
