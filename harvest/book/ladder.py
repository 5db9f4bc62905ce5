"""Both sides of one order book: absolute quantities by price, and the best levels of each side.

Most changed levels lie far from the touch, where nobody looks at their order: they only go into a dict. Prices are kept
sorted near the touch alone, as far as the best levels are asked for.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from heapq import nlargest, nsmallest
from math import inf
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harvest.market import Level

#: The price of a level that is not there. One object, so that equal tops compare equal in spite of it.
ABSENT = float("nan")
#: Prices that are sorted anew when those near the touch run out; twice as many are kept before the far ones are let go.
NEAR_LEVELS = 128
#: Removed levels stay as zeros until they outnumber the others by this.
SPARE_ZEROS = 1024


class Ladder:
    """The levels of one book. The sides know nothing of each other: a crossed book is kept as it is."""

    __slots__ = ("_asks", "_bids")

    def __init__(self) -> None:
        self._bids = _LadderSide(best_is_highest=True)
        self._asks = _LadderSide(best_is_highest=False)

    def replace(self, bids: Sequence[Level], asks: Sequence[Level]) -> None:
        """Take the levels of a snapshot in place of all that is here; levels of quantity 0 are left out."""
        self._bids.replace(bids)
        self._asks.replace(asks)

    def apply(self, bids: Sequence[Level], asks: Sequence[Level]) -> None:
        """Set changed levels to their absolute quantities; 0 removes one, and removing an unknown one is normal.

        Of a price that is named twice, the last quantity holds.
        """
        self._bids.apply(bids)
        self._asks.apply(asks)

    def top(self, levels: int) -> tuple[list[float], list[float], list[float], list[float]]:
        """Return bid prices, bid quantities, ask prices, ask quantities of the best ``levels``, best first.

        Each list has ``levels`` entries; a level that is not there has the price NaN and the quantity 0. The lists are
        not to be changed: where a side's best levels are untouched, the next call returns the same ones.
        """
        return *self._bids.top(levels), *self._asks.top(levels)

    def levels(self) -> tuple[list[Level], list[Level]]:
        """Return all bids and all asks, best first. It sorts them, which is for once a day."""
        return self._bids.levels(), self._asks.levels()

    @property
    def best_bid(self) -> float | None:
        """The highest price bid, None without bids."""
        return self._bids.best()

    @property
    def best_ask(self) -> float | None:
        """The lowest price asked, None without asks."""
        return self._asks.best()

    @property
    def crossed(self) -> bool:
        """Whether the best bid reaches the best ask, which a book in agreement with its venue's never does."""
        bid, ask = self._bids.best(), self._asks.best()
        return bid is not None and ask is not None and bid >= ask

    def __len__(self) -> int:
        return len(self._bids) + len(self._asks)


class _LadderSide:
    """One side: quantities by price (0 where removed), and the sorted prices between ``_low`` and ``_high``."""

    __slots__ = (
        "_best_is_highest",
        "_high",
        "_low",
        "_max_entries",
        "_near_levels",
        "_prices",
        "_quantities",
        "_top_high",
        "_top_is_stale",
        "_top_low",
        "_top_prices",
        "_top_quantities",
    )

    def __init__(self, *, best_is_highest: bool) -> None:
        self._best_is_highest = best_is_highest
        self._near_levels = NEAR_LEVELS
        self.replace(())

    def replace(self, levels: Sequence[Level]) -> None:
        self._quantities = dict(levels)
        self._forget_removed()
        self._top_prices: list[float] = []
        self._top_quantities: list[float] = []
        self._top_low, self._top_high, self._top_is_stale = -inf, inf, True
        self._sort_near()

    def apply(self, levels: Sequence[Level]) -> None:
        quantities, prices = self._quantities, self._prices
        known = quantities.get
        low, high, top_low, top_high = self._low, self._high, self._top_low, self._top_high
        for price, qty in levels:
            if low <= price <= high:
                if qty:
                    if not known(price):
                        insort(prices, price)
                elif known(price):
                    del prices[bisect_left(prices, price)]
                if top_low <= price <= top_high:
                    self._top_is_stale = True
            quantities[price] = qty
        if len(prices) > 2 * self._near_levels:
            self._let_far_ones_go()
        if len(quantities) > self._max_entries:
            self._forget_removed()

    def top(self, levels: int) -> tuple[list[float], list[float]]:
        if self._top_is_stale or len(self._top_prices) != levels:
            self._find_top(levels)
        return self._top_prices, self._top_quantities

    def best(self) -> float | None:
        self._sort_at_least(1)
        prices = self._prices
        return prices[-1 if self._best_is_highest else 0] if prices else None

    def levels(self) -> list[Level]:
        return sorted(
            (level for level in self._quantities.items() if level[1]), reverse=self._best_is_highest
        )

    def __len__(self) -> int:
        return len(self._quantities) - list(self._quantities.values()).count(0.0)

    def _find_top(self, levels: int) -> None:
        self._sort_at_least(levels)
        highest = self._best_is_highest
        prices = self._prices[: -levels - 1 : -1] if highest else self._prices[:levels]
        known = self._quantities
        quantities = [known[price] for price in prices]
        self._top_low, self._top_high, self._top_is_stale = -inf, inf, False
        if len(prices) < levels:
            quantities += [0.0] * (levels - len(prices))
            prices += [ABSENT] * (levels - len(prices))
        elif highest:
            self._top_low = prices[-1]
        else:
            self._top_high = prices[-1]
        self._top_prices, self._top_quantities = prices, quantities

    def _sort_at_least(self, levels: int) -> None:
        """Have as many prices sorted, if there are so many."""
        if len(self._prices) < levels and (self._low != -inf or self._high != inf):
            self._near_levels = max(NEAR_LEVELS, 2 * levels)
            self._sort_near()

    def _sort_near(self) -> None:
        """Find the best levels among all, and sort their prices."""
        near = self._near_levels
        present = [price for price, qty in self._quantities.items() if qty]
        self._low, self._high = -inf, inf
        if len(present) <= near:
            self._prices = sorted(present)
        elif self._best_is_highest:
            self._prices = nlargest(near, present)[::-1]
            self._low = self._prices[0]
        else:
            self._prices = nsmallest(near, present)
            self._high = self._prices[-1]

    def _let_far_ones_go(self) -> None:
        if self._best_is_highest:
            del self._prices[: -self._near_levels]
            self._low = self._prices[0]
        else:
            del self._prices[self._near_levels :]
            self._high = self._prices[-1]

    def _forget_removed(self) -> None:
        self._quantities = {price: qty for price, qty in self._quantities.items() if qty}
        self._max_entries = 2 * len(self._quantities) + SPARE_ZEROS
