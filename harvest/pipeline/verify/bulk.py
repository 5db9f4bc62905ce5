"""A book through many diffs at once: the rows that the state machine would make of them one by one, bit by bit.

It takes what nearly all of a recording is: diffs that follow each other, for a book that is in sync. What is anything else,
and numbers that only Python's integers hold, are for the state machine.
"""

from __future__ import annotations

from itertools import accumulate
from operator import mul, sub
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from harvest.book.flow import EXACT_UNITS, UNITS, WINDOW, OrderFlowState
from harvest.book.flow import LEVELS as FLOW_LEVELS
from harvest.pipeline.checkpoint import BookState, book_state, restore_book
from harvest.pipeline.times import MICROSECONDS_FROM
from harvest.pipeline.verify.rows import count
from harvest.pipeline.verify.tops import Side, Tops
from harvest.storage.tables import DAY_US

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from harvest.pipeline.orderbook import BookSeries
    from harvest.pipeline.verify.rows import Rows
    from harvest.venues.protocol import DepthRule

    Floats = NDArray[np.float64]
    Integers = NDArray[np.int64]

#: Integers below this are exact as float64.
_EXACT_FLOAT = 2**53


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
        found: NDArray[np.bool_] = (self._last[where] > before) & (self._prev[where] <= before)
        return found


class BulkBook:
    """What a ``BookSeries`` has come to, to be followed from there on; ``levels`` are those of ``orderbook``."""

    @classmethod
    def of(cls, series: BookSeries, levels: int) -> BulkBook | None:
        """Begin where a series is; None where that is not in sync, or waits for something, or holds what is not fit."""
        if not series.is_settled:
            return None
        state = book_state(series)
        if state.pending or state.held or state.audit or not state.flow.known:
            return None
        book = cls(state, levels)
        return book if book._is_fit else None

    def __init__(self, state: BookState, levels: int) -> None:
        self._state, self._levels = state, levels
        self._bids, self._asks = Side.unpack(state.bids, -1), Side.unpack(state.asks, 1)
        bid_px, bid_qty, ask_px, ask_qty = (np.array([side]) for side in state.flow.tops)
        #: Of the best levels after the last diff.
        self._tops = Tops(_far(bid_px, -1), bid_qty), Tops(_far(ask_px, 1), ask_qty)
        text = state.flow.window
        self._window = list(map(int, text.split(",") if text else ()))
        self.last_update_id = state.last_update_id
        self._last_recv_ns = state.last_recv_ns

    @property
    def _is_fit(self) -> bool:
        return (
            self._bids.is_fit and self._asks.is_fit and all(abs(one) < _EXACT_FLOAT for one in self._window)
        )

    @property
    def days(self) -> list[int]:
        """The dates that have begun."""
        return self._state.book_days

    def leave(self, series: BookSeries) -> None:
        """Let a series go on from here."""
        bids, asks = self._tops
        tops = [one[-1].tolist() for one in (_px(bids.far, -1), bids.qty, _px(asks.far, 1), asks.qty)]
        update_id = self.last_update_id
        assert update_id is not None
        state = msgspec.structs.replace(
            self._state,
            bids=self._bids.pack(),
            asks=self._asks.pack(),
            last_update_id=update_id,
            book_id=update_id,
            flow=OrderFlowState(True, (tops[0], tops[1], tops[2], tops[3]), ",".join(map(str, self._window))),
            last_recv_ns=self._last_recv_ns,
        )
        restore_book(series, state)

    def follow(self, rows: Rows) -> dict[str, Rows] | None:
        """Take rows that are plain; returns those that follow, by kind. None, and nothing is taken, where it cannot say."""
        wanted = max(self._levels, FLOW_LEVELS)
        bids, bid_tops = self._bids.follow(rows["bids"], wanted)
        asks, ask_tops = self._asks.follow(rows["asks"], wanted)
        flows = [
            side_flows(before.above(after, FLOW_LEVELS))
            for before, after in zip(self._tops, (bid_tops, ask_tops), strict=True)
        ]
        if flows[0] is None or flows[1] is None:
            return None
        imbalances = np.cumsum(flows[0] - flows[1], axis=1)[:, [0, 4, 9]]
        if (np.abs(imbalances) >= _EXACT_FLOAT).any():
            return None
        scores, self._window = _scores(self._window, imbalances[:, 0])
        self._bids, self._asks = bids, asks
        self._tops = bid_tops.last(FLOW_LEVELS), ask_tops.last(FLOW_LEVELS)
        self.last_update_id, self._last_recv_ns = int(rows["last_update_id"][-1]), int(rows["recv_ns"][-1])
        first = {"event_time": rows["event_time"], "update_id": rows["last_update_id"]}
        last = {
            "suspect": np.zeros(count(rows), np.bool_),
            "seq": rows["seq"],
            "recv_ns": rows["recv_ns"],
        }
        levels = {
            f"{side}_{what}_{level}": column[:, level]
            for side, tops, sign in (("bid", bid_tops, -1), ("ask", ask_tops, 1))
            for what, column in (("px", _px(tops.far, sign)), ("qty", tops.qty))
            for level in range(self._levels)
        }
        ofi = dict(zip(("ofi_1", "ofi_5", "ofi_10"), (imbalances / UNITS).T, strict=True))
        return {"orderbook": first | levels | last, "ofi": first | ofi | {"ofi_z": scores} | last}


def _far(px: Floats, sign: int) -> Floats:
    return np.where(np.isnan(px), np.inf, sign * px)


def _px(far: Floats, sign: int) -> Floats:
    return np.where(np.isinf(far), np.nan, sign * far)


def side_flows(tops: Tops) -> Integers | None:
    """Return what ``book.flow.side_flow`` gives of each level and each row but the first; None where units are not exact."""
    units = np.rint(tops.qty * 1e8)
    if (units >= EXACT_UNITS).any():
        return None
    after, before = units[1:].astype(np.int64), units[:-1].astype(np.int64)
    far, far_before = tops.far[1:], tops.far[:-1]
    moved = np.where(far < far_before, after, -before)
    return np.where(far == far_before, after - before, moved)


def _scores(window: list[int], imbalances: Integers) -> tuple[Floats, list[int]]:
    """Return the z-score of each, and the window after the last, as ``OrderFlow`` does it."""
    values = window + imbalances.tolist()
    scores = np.full(len(imbalances), np.nan)
    if len(values) >= WINDOW:
        # Squares and their sums take more than 64 bits.
        squares = list(accumulate(map(mul, values, values), initial=0))
        sums = np.cumsum([0, *values])
        sums = sums[WINDOW:] - sums[:-WINDOW]
        spreads = [
            WINDOW * of_squares - of_values * of_values
            for of_squares, of_values in zip(map(sub, squares[WINDOW:], squares), sums.tolist(), strict=False)
        ]
        spread = np.fromiter(map(float, spreads), np.float64, len(spreads))
        spread[spread == 0] = np.nan
        scored = (WINDOW * np.array(values[WINDOW - 1 :]) - sums) / np.sqrt(spread)
        scores[max(len(scores) - len(scored), 0) :] = scored[-len(scores) :]
    return scores, values[-WINDOW:]
