"""The audit of a book: held against a fresh snapshot at the same update id, level by level. Pure.

Each side of a snapshot reaches down to its deepest level, and says nothing of what lies beyond. So a book that began with
one knows all levels within that reach from there on, and beyond it those alone that a diff has named since: a level that it
lacks there is unknown to it, and no drift.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from harvest.book.ladder import Ladder
    from harvest.market import Level


@attrs.frozen
class Reach:
    """The prices that a snapshot speaks of: bids from ``lowest_bid`` up, asks up to ``highest_ask``."""

    lowest_bid: float
    highest_ask: float


#: That of a book of which nobody knows what it began with.
NO_REACH = Reach(inf, -inf)


def reach_of(bids: Sequence[Level], asks: Sequence[Level]) -> Reach:
    """Return the reach of a snapshot; one that has no level on a side says that there is none at all."""
    return Reach(
        min((price for price, _ in bids), default=-inf), max((price for price, _ in asks), default=inf)
    )


@attrs.frozen
class SideAudit:
    """What was found on one side; counts are levels (prices).

    ``compared`` are those that book or snapshot have where both must know them, ``differing`` those of them whose
    quantities are not the same, ``unknown`` those of the snapshot that the book could not know, ``beyond`` those of the
    book that the snapshot does not reach. ``max_drift`` is the greatest difference of a quantity.
    """

    compared: int
    differing: int
    unknown: int
    beyond: int
    max_drift: float


@attrs.frozen
class BookAudit:
    """What an audit found."""

    bids: SideAudit
    asks: SideAudit
    #: Whether the best price of a side is another one.
    best_differs: bool

    @property
    def differing(self) -> int:
        """Levels of both sides that differ."""
        return self.bids.differing + self.asks.differing

    @property
    def max_drift(self) -> float:
        """The greatest difference of a quantity, 0 where none differs."""
        return max(self.bids.max_drift, self.asks.max_drift)

    @property
    def drifted(self) -> bool:
        """Whether the book is not the venue's: levels differ, or the best ones do, be it for what it could not know."""
        return self.differing > 0 or self.best_differs

    @property
    def partial(self) -> bool:
        """Whether there were levels that only one of the two could know."""
        return any(side.unknown or side.beyond for side in (self.bids, self.asks))


def audit(book: Ladder, venue: Ladder, *, known: Reach, covered: Reach) -> BookAudit:
    """Hold ``book`` against ``venue``, a snapshot brought to the same update id.

    ``known`` is the reach of the snapshot that the book began with, ``covered`` that of the one it is held against.
    """
    (bids, asks), (venue_bids, venue_asks) = book.levels(), venue.levels()
    return BookAudit(
        # Ask prices are negated, so that higher is better on both sides.
        _audit_side(dict(bids), dict(venue_bids), known.lowest_bid, covered.lowest_bid),
        _audit_side(_negated(asks), _negated(venue_asks), -known.highest_ask, -covered.highest_ask),
        best_differs=(book.best_bid, book.best_ask) != (venue.best_bid, venue.best_ask),
    )


def _negated(levels: Sequence[Level]) -> dict[float, float]:
    return {-price: qty for price, qty in levels}


def _audit_side(
    book: Mapping[float, float], venue: Mapping[float, float], known: float, covered: float
) -> SideAudit:
    compared = differing = unknown = 0
    max_drift = 0.0
    for price in book.keys() | venue.keys():
        if price < covered:
            continue
        if price < known and price not in book:
            unknown += 1
            continue
        compared += 1
        drift = abs(book.get(price, 0.0) - venue.get(price, 0.0))
        if drift:
            differing += 1
            max_drift = max(max_drift, drift)
    return SideAudit(compared, differing, unknown, sum(price < covered for price in book), max_drift)
