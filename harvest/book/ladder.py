"""Both sides of one order book: absolute quantities by price, and the best levels of each side."""

from __future__ import annotations

from bisect import bisect_left, insort
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harvest.market import Level

#: The price of a level that is not there.
ABSENT = float("nan")


class Ladder:
    """The levels of one book.

    A side is a dict from price to quantity, and a sorted list of its prices with the touch at the end: most changes are
    near the touch, and there they move little memory. Ask prices are kept negated for that.
    """

    __slots__ = ("_ask_keys", "_ask_qty", "_bid_keys", "_bid_qty")

    def __init__(self) -> None:
        self._bid_qty: dict[float, float] = {}
        self._ask_qty: dict[float, float] = {}
        self._bid_keys: list[float] = []
        self._ask_keys: list[float] = []

    def replace(self, bids: Sequence[Level], asks: Sequence[Level]) -> None:
        """Take the levels of a snapshot in place of all that is here; levels of quantity 0 are left out."""
        self._bid_qty = {price: qty for price, qty in bids if qty}
        self._ask_qty = {price: qty for price, qty in asks if qty}
        self._bid_keys = sorted(self._bid_qty)
        self._ask_keys = sorted(-price for price in self._ask_qty)

    def apply(self, bids: Sequence[Level], asks: Sequence[Level]) -> None:
        """Set changed levels to their absolute quantities; 0 removes one, and removing an unknown one is normal."""
        quantities, keys = self._bid_qty, self._bid_keys
        for price, qty in bids:
            if qty:
                if price not in quantities:
                    insort(keys, price)
                quantities[price] = qty
            elif price in quantities:
                del quantities[price]
                del keys[bisect_left(keys, price)]
        quantities, keys = self._ask_qty, self._ask_keys
        for price, qty in asks:
            if qty:
                if price not in quantities:
                    insort(keys, -price)
                quantities[price] = qty
            elif price in quantities:
                del quantities[price]
                del keys[bisect_left(keys, -price)]

    def top(self, levels: int) -> tuple[list[float], list[float], list[float], list[float]]:
        """Return bid prices, bid quantities, ask prices, ask quantities of the best ``levels``, best first.

        Each list has ``levels`` entries; a level that is not there has the price NaN and the quantity 0.
        """
        bid_px = self._bid_keys[: -levels - 1 : -1]
        ask_px = [-key for key in self._ask_keys[: -levels - 1 : -1]]
        bid_qty = [self._bid_qty[price] for price in bid_px]
        ask_qty = [self._ask_qty[price] for price in ask_px]
        for prices, quantities in ((bid_px, bid_qty), (ask_px, ask_qty)):
            if len(prices) < levels:
                quantities += [0.0] * (levels - len(prices))
                prices += [ABSENT] * (levels - len(prices))
        return bid_px, bid_qty, ask_px, ask_qty

    def levels(self) -> tuple[list[Level], list[Level]]:
        """Return all bids and all asks, best first."""
        bids = [(price, self._bid_qty[price]) for price in reversed(self._bid_keys)]
        asks = [(-key, self._ask_qty[-key]) for key in reversed(self._ask_keys)]
        return bids, asks

    def __len__(self) -> int:
        return len(self._bid_keys) + len(self._ask_keys)
