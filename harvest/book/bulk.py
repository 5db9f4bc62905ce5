"""A book through many diffs at once: what ``Ladder`` and ``OrderFlow`` would give one by one, bit by bit.

It takes what nearly all is: prices above 0, quantities that float64 holds exactly in units. What is anything else is for those two.
"""

from __future__ import annotations

from itertools import accumulate
from operator import mul, sub
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from harvest.book.flow import EXACT_UNITS, LEVELS, UNITS, WINDOW, OrderFlowState
from harvest.book.tops import Side, Tops

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from harvest.book.levels import LevelLists

    Floats = NDArray[np.float64]
    Integers = NDArray[np.int64]

#: Integers below this are exact as float64.
_EXACT_FLOAT = 2**53


class Followed(NamedTuple):
    """What follows from some diffs, a row a diff: prices (NaN for a level that is not there) and quantities of the best levels, best first.

    ``flows`` are ofi_1, ofi_5 and ofi_10, ``scores`` the z-scores of the first, NaN where there is none.
    """

    bid_px: Floats
    bid_qty: Floats
    ask_px: Floats
    ask_qty: Floats
    flows: Floats
    scores: Floats


class BulkBook:
    """The levels and the flow of a book, as ``Ladder.pack`` and ``OrderFlow.state`` give them, to be followed from there on."""

    def __init__(self, bids: bytes, asks: bytes, flow: OrderFlowState) -> None:
        self._bids, self._asks = Side.unpack(bids, -1), Side.unpack(asks, 1)
        bid_px, bid_qty, ask_px, ask_qty = (np.array([side]) for side in flow.tops)
        #: Of the best levels after the last diff.
        self._tops = Tops(_far(bid_px, -1), bid_qty), Tops(_far(ask_px, 1), ask_qty)
        self._window = list(map(int, flow.window.split(",") if flow.window else ()))
        #: Whether it is such that it can be followed.
        self.is_fit = (
            flow.known
            and self._bids.is_fit
            and self._asks.is_fit
            and all(abs(one) < _EXACT_FLOAT for one in self._window)
        )

    def state(self) -> tuple[bytes, bytes, OrderFlowState]:
        """Return bids, asks and flow, for ``Ladder`` and ``OrderFlow`` to go on from here."""
        bids, asks = self._tops
        tops = [one[-1].tolist() for one in (_px(bids.far, -1), bids.qty, _px(asks.far, 1), asks.qty)]
        flow = OrderFlowState(True, (tops[0], tops[1], tops[2], tops[3]), ",".join(map(str, self._window)))
        return self._bids.pack(), self._asks.pack(), flow

    def follow(self, bids: LevelLists, asks: LevelLists, levels: int) -> Followed | None:
        """Take diffs; returns what follows, with so many levels. None, and nothing is taken, where it cannot say.

        All their prices have to be above 0.
        """
        wanted = max(levels, LEVELS)
        new_bids, bid_tops = self._bids.follow(bids, wanted)
        new_asks, ask_tops = self._asks.follow(asks, wanted)
        flows = [
            side_flows(before.above(after, LEVELS))
            for before, after in zip(self._tops, (bid_tops, ask_tops), strict=True)
        ]
        if flows[0] is None or flows[1] is None:
            return None
        imbalances = np.cumsum(flows[0] - flows[1], axis=1)[:, [0, 4, 9]]
        if (np.abs(imbalances) >= _EXACT_FLOAT).any():
            return None
        scores, self._window = _scores(self._window, imbalances[:, 0])
        self._bids, self._asks = new_bids, new_asks
        self._tops = bid_tops.last(LEVELS), ask_tops.last(LEVELS)
        return Followed(
            _px(bid_tops.far[:, :levels], -1),
            bid_tops.qty[:, :levels],
            _px(ask_tops.far[:, :levels], 1),
            ask_tops.qty[:, :levels],
            imbalances / UNITS,
            scores,
        )


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
