"""The levels and the order flow of one instrument, by one diff after the other, or by many at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harvest.book.bulk import BulkBook
from harvest.book.flow import OrderFlow
from harvest.book.ladder import Ladder

if TYPE_CHECKING:
    from harvest.book.bulk import Followed
    from harvest.book.levels import LevelLists

#: After diffs that could not be followed, so many times those that come are not looked at: what hinders tends to stay.
TIMES_PASSED = 32


class Book:
    """A ladder and a flow. Where many diffs come at once it is kept in another form, until one of the two is asked for."""

    __slots__ = ("_bulk", "_flow", "_ladder", "_to_pass")

    def __init__(self) -> None:
        self._ladder = Ladder()
        self._flow = OrderFlow()
        #: Newer than the two, where it is there.
        self._bulk: BulkBook | None = None
        self._to_pass = 0

    @property
    def ladder(self) -> Ladder:
        """The levels."""
        if self._bulk is not None:
            self._leave(self._bulk)
        return self._ladder

    @property
    def flow(self) -> OrderFlow:
        """The order flow."""
        if self._bulk is not None:
            self._leave(self._bulk)
        return self._flow

    def follow(self, bids: LevelLists, asks: LevelLists, levels: int) -> Followed | None:
        """Take many diffs, as ``BulkBook.follow`` does; None, and nothing is taken, where that cannot say, or lately could not."""
        if self._to_pass:
            self._to_pass -= 1
            return None
        bulk = self._bulk or BulkBook(*self._ladder.pack(), self._flow.state())
        followed = bulk.follow(bids, asks, levels) if bulk.is_fit else None
        if followed is None:
            self._to_pass = TIMES_PASSED
        else:
            self._bulk = bulk
        return followed

    def _leave(self, bulk: BulkBook) -> None:
        bids, asks, flow = bulk.state()
        self._ladder.unpack(bids, asks)
        self._flow.restore(flow)
        self._bulk = None
