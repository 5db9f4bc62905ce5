"""Order flow: the imbalance of the best levels, and exact quantities to sum.

Quantities are integers of 1e-8, so that sums are exact and everything can be recomputed bit by bit. Order flow imbalance
is that of Cont, Kukanov and Stoikov (2014), level by level as Xu, Gould and Howison (2018), not normalised.
"""

from __future__ import annotations

import math
from collections import deque
from decimal import Decimal

import msgspec

UNITS = 10**8
#: Below this ``qty * 1e8`` is less than half a unit off: at most 0.19 for the float64 that stands for the quantity, and 0.125
#: for the product. Up to 2**52 it is not: 41777655.77164713 would come out one unit high.
EXACT_UNITS = 2**51
WINDOW = 300
LEVELS = 10


def to_units(qty: float) -> int:
    """Return a quantity in 1e-8, exactly as its shortest decimal form says."""
    units = round(qty * 1e8)
    if abs(units) < EXACT_UNITS:
        return units
    return sum_from_float(qty)


class OrderFlowState(msgspec.Struct, array_like=True):
    """Everything that an ``OrderFlow`` goes on from. ``window`` is a text: its integers may have more than 64 bits."""

    known: bool
    tops: tuple[list[float], list[float], list[float], list[float]]
    window: str


class OrderFlow:
    """OFI of one book, over its best 1, 5 and 10 levels, and the z-score of the first."""

    __slots__ = ("_ask_px", "_ask_qty", "_bid_px", "_bid_qty", "_known", "_squares", "_sum", "_window")

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget the book before: a snapshot has replaced it."""
        self._known = False
        self._bid_px: list[float] = []
        self._bid_qty: list[float] = []
        self._ask_px: list[float] = []
        self._ask_qty: list[float] = []
        self._window: deque[int] = deque(maxlen=WINDOW)
        self._sum = 0
        self._squares = 0

    def update(
        self, bid_px: list[float], bid_qty: list[float], ask_px: list[float], ask_qty: list[float]
    ) -> tuple[float, float, float, float | None] | None:
        """Take the best ten levels after an update; returns ofi_1, ofi_5, ofi_10 and z, None for the first after a reset.

        The lists are as ``Ladder.top(10)`` gives them, and become ours. z is None until ``WINDOW`` values of ofi_1 are
        there, this one included, where they do not vary, and where float64 cannot express what follows. With x the last
        of n values in units, S their sum and Q the sum of their squares, it is
        ``float(n*x - S) / sqrt(float(n*Q - S*S))``: the population's z-score.
        """
        known = self._known
        imbalance = self._imbalance(bid_px, bid_qty, ask_px, ask_qty) if known else (0, 0, 0)
        self._known = True
        self._bid_px, self._bid_qty, self._ask_px, self._ask_qty = bid_px, bid_qty, ask_px, ask_qty
        if not known:
            return None
        ofi_1, ofi_5, ofi_10 = imbalance
        return ofi_1 / UNITS, ofi_5 / UNITS, ofi_10 / UNITS, self._score(ofi_1)

    def state(self) -> OrderFlowState:
        """Return what ``restore`` goes on from."""
        tops = (self._bid_px, self._bid_qty, self._ask_px, self._ask_qty)
        return OrderFlowState(self._known, tops, ",".join(map(str, self._window)))

    def restore(self, state: OrderFlowState) -> None:
        """Go on from what another flow came to. The state becomes ours."""
        self._known = state.known
        self._bid_px, self._bid_qty, self._ask_px, self._ask_qty = state.tops
        self._window = deque(map(int, state.window.split(",") if state.window else ()), maxlen=WINDOW)
        self._sum = sum(self._window)
        self._squares = sum(ofi_1 * ofi_1 for ofi_1 in self._window)

    def _imbalance(
        self, bid_px: list[float], bid_qty: list[float], ask_px: list[float], ask_qty: list[float]
    ) -> tuple[int, int, int]:
        if (
            bid_px == self._bid_px
            and bid_qty == self._bid_qty
            and ask_px == self._ask_px
            and ask_qty == self._ask_qty
        ):
            return 0, 0, 0
        flows = [0] * LEVELS
        for level in range(LEVELS):
            flows[level] = side_flow(
                bid_px[level], bid_qty[level], self._bid_px[level], self._bid_qty[level], is_bid=True
            ) - side_flow(
                ask_px[level], ask_qty[level], self._ask_px[level], self._ask_qty[level], is_bid=False
            )
        return flows[0], sum(flows[:5]), sum(flows)

    def _score(self, ofi_1: int) -> float | None:
        window = self._window
        if len(window) == WINDOW:
            oldest = window[0]
            self._sum -= oldest
            self._squares -= oldest * oldest
        window.append(ofi_1)
        self._sum += ofi_1
        self._squares += ofi_1 * ofi_1
        if len(window) < WINDOW:
            return None
        spread = WINDOW * self._squares - self._sum * self._sum
        if not spread:
            return None
        try:
            return float(WINDOW * ofi_1 - self._sum) / math.sqrt(float(spread))
        except OverflowError:
            # Only an absurd quantity gets here, and what a venue sends must not end the run.
            return None


def side_flow(px: float, qty: float, px_before: float, qty_before: float, *, is_bid: bool) -> int:
    """Return what one level's change brought to its side, in units: liquidity added, less what was taken.

    A better price brings its whole quantity, a worse one takes the whole quantity before; an absent level (price NaN) is
    worse than any, with quantity 0.
    """
    if px == px_before:
        return 0 if qty == qty_before else to_units(qty) - to_units(qty_before)
    if px != px:
        return -to_units(qty_before)
    if px_before != px_before:
        return to_units(qty)
    better = px > px_before if is_bid else px < px_before
    return to_units(qty) if better else -to_units(qty_before)


def sum_from_float(stored: float) -> int:
    """Recover an exact sum in units from its stored float64, by the shortest decimal form of that.

    Exact below 2**26 × 1e8, where neighbours are different floats, and wherever 15 significant digits are enough.
    """
    return round(Decimal(repr(stored)).scaleb(8))
