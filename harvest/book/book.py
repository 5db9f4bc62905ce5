"""The levels and the order flow of one instrument, by one diff after the other, or by many at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harvest.book.bulk import BulkBook
from harvest.book.flow import OrderFlow
from harvest.book.ladder import Ladder

if TYPE_CHECKING:
    from harvest.book.bulk import Followed
    from harvest.book.levels import LevelLists


class Book:
    """A ladder and a flow. Where many diffs come at once it is kept in another form, until one of the two is asked for."""

    __slots__ = ("_bulk", "_flow", "_ladder")

    def __init__(self) -> None:
        self._ladder = Ladder()
        self._flow = OrderFlow()
        #: Newer than the two, where it is there.
        self._bulk: BulkBook | None = None

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
        """Take many diffs, as ``BulkBook.follow`` does; None, and nothing is taken, where that cannot say."""
        bulk = self._bulk or BulkBook(*self._ladder.pack(), self._flow.state())
        followed = bulk.follow(bids, asks, levels) if bulk.is_fit else None
        if followed is not None:
            self._bulk = bulk
        return followed

    def _leave(self, bulk: BulkBook) -> None:
        bids, asks, flow = bulk.state()
        self._ladder.unpack(bids, asks)
        self._flow.restore(flow)
        self._bulk = None
