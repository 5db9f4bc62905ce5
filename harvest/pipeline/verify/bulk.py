"""A series through many rows of ``depth`` at once: the rows that the state machine would make of them one by one, bit by bit.

It takes what nearly all of a recording is: diffs that follow each other, for a book that is in sync. What is anything else,
and numbers that only Python's integers hold, are for the state machine.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import numpy as np

from harvest.book.bulk import BulkBook
from harvest.book.sequence import follow
from harvest.pipeline.book_rows import columns_of
from harvest.pipeline.checkpoint import BookState, book_state, restore_book
from harvest.pipeline.times import MICROSECONDS_FROM
from harvest.pipeline.verify.rows import count
from harvest.storage.tables import DAY_US

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from harvest.pipeline.orderbook import BookSeries
    from harvest.pipeline.verify.rows import Rows
    from harvest.venues.protocol import DepthRule

    Integers = NDArray[np.int64]


class Plain:
    """Which rows of ``depth`` are plain: diffs of the date of the row before, which they follow without a gap."""

    def __init__(self, rows: Rows, rule: DepthRule) -> None:
        event_us, last = rows["event_time"], rows["last_update_id"]
        self._prev = rows["prev_update_id"] if rule == "usdm" else rows["first_update_id"] - 1
        self._last, self.days = last, event_us // DAY_US
        sides = rows["bids"], rows["asks"]
        self._is_fit = ~rows["is_snapshot"] & (event_us >= MICROSECONDS_FROM)
        for side in sides:
            self._is_fit &= side.are_positive()
        follows = self._is_fit.copy()
        follows[1:] &= self._is_fit[:-1] & self._follow(last[:-1], slice(1, None))
        follows[1:] &= self.days[1:] == self.days[:-1]
        #: The first of each stretch of rows of which each follows the one before, but perhaps the first.
        self._starts = np.append(np.flatnonzero(~follows), len(last))

    def until(self, row: int, last_update_id: int | None) -> int:
        """Return the row before which all from ``row`` on are plain behind that update; ``row`` if it is not."""
        if last_update_id is None or not self._is_fit[row]:
            return row
        if not self._follow(np.array([last_update_id]), slice(row, row + 1))[0]:
            return row
        return int(self._starts[np.searchsorted(self._starts, row, side="right")])

    def _follow(self, before: Integers, where: slice) -> NDArray[np.bool_]:
        # A predecessor that is not named is UNKNOWN, and less than any.
        return follow(before, self._prev[where], self._last[where])


class BulkSeries:
    """What a ``BookSeries`` has come to, to be followed from there on; ``levels`` are those of ``orderbook``."""

    @classmethod
    def of(cls, series: BookSeries, levels: int) -> BulkSeries | None:
        """Begin where a series is; None where that is not in sync, or waits for something, or holds what is not fit."""
        if not series.is_settled:
            return None
        state = book_state(series)
        if state.pending or state.held or state.audit:
            return None
        found = cls(state, levels)
        return found if found._book.is_fit else None

    def __init__(self, state: BookState, levels: int) -> None:
        self._state, self._levels = state, levels
        self._book = BulkBook(state.bids, state.asks, state.flow)
        self.last_update_id = state.last_update_id
        self._last_recv_ns = state.last_recv_ns

    @property
    def days(self) -> list[int]:
        """The dates that have begun."""
        return self._state.book_days

    def leave(self, series: BookSeries) -> None:
        """Let a series go on from here."""
        update_id = self.last_update_id
        assert update_id is not None
        bids, asks, flow = self._book.state()
        state = msgspec.structs.replace(
            self._state,
            bids=bids,
            asks=asks,
            flow=flow,
            last_update_id=update_id,
            book_id=update_id,
            last_recv_ns=self._last_recv_ns,
        )
        restore_book(series, state)

    def follow(self, rows: Rows) -> dict[str, Rows] | None:
        """Take rows that are plain; returns those that follow, by kind. None, and nothing is taken, where it cannot say."""
        followed = self._book.follow(rows["bids"], rows["asks"], self._levels)
        if followed is None:
            return None
        self.last_update_id, self._last_recv_ns = int(rows["last_update_id"][-1]), int(rows["recv_ns"][-1])
        suspect = np.zeros(count(rows), np.bool_)
        last = {"suspect": suspect, "seq": rows["seq"], "recv_ns": rows["recv_ns"]}
        columns = columns_of(followed, rows["event_time"], rows["last_update_id"], self._levels)
        return {kind: of_kind | last for kind, of_kind in columns.items()}
