"""Both sides of one order book: absolute quantities by price, and the best levels of each side.

Most changed levels lie far from the touch, where nobody asks for their order: they go into a dict and no further. Near
the touch alone prices are kept sorted.
"""

from __future__ import annotations

import struct
from bisect import bisect_left, insort
from heapq import nlargest, nsmallest
from math import inf
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harvest.market import Level

#: The price of a level that is not there. One object, so that equal tops compare equal in spite of it.
ABSENT = float("nan")
#: Levels beyond the top that are near again after the near ones ran out, or these became twice as many. With fewer the far
#: ones are searched too often; more cost more to keep sorted.
NEAR_LEVELS = 64


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

    def pack(self) -> tuple[bytes, bytes]:
        """Return all bids and all asks as bytes: float64, the prices of a side and then its quantities, in no order."""
        return self._bids.pack(), self._asks.pack()

    def unpack(self, bids: bytes, asks: bytes) -> None:
        """Take what ``pack`` gave in place of all that is here."""
        self._bids.unpack(bids)
        self._asks.unpack(asks)

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
    """One side: the levels from ``_low`` to ``_high`` are near, and their prices sorted; all others are far."""

    __slots__ = (
        "_best_is_highest",
        "_far",
        "_high",
        "_low",
        "_near",
        "_prices",
        "_top_high",
        "_top_is_stale",
        "_top_low",
        "_top_prices",
        "_top_quantities",
    )

    def __init__(self, *, best_is_highest: bool) -> None:
        self._best_is_highest = best_is_highest
        self.replace(())

    def replace(self, levels: Sequence[Level]) -> None:
        self._near: dict[float, float] = {}
        self._far = {price: qty for price, qty in levels if qty}
        self._low, self._high = -inf, inf
        #: Of the near levels, ascending.
        self._prices: list[float] = []
        self._top_prices: list[float] = []
        self._top_quantities: list[float] = []
        self._top_low, self._top_high, self._top_is_stale = -inf, inf, True
        self._bring_near(NEAR_LEVELS)

    def apply(self, levels: Sequence[Level]) -> None:
        near, far, prices = self._near, self._far, self._prices
        low, high, top_low, top_high = self._low, self._high, self._top_low, self._top_high
        for price, qty in levels:
            if low <= price <= high:
                if qty:
                    if price not in near:
                        insort(prices, price)
                    near[price] = qty
                elif price in near:
                    del near[price], prices[bisect_left(prices, price)]
                if top_low <= price <= top_high:
                    self._top_is_stale = True
            elif qty:
                far[price] = qty
            else:
                far.pop(price, None)
        spare = len(prices) - len(self._top_prices)
        if spare > 2 * NEAR_LEVELS:
            self._let_go(spare - NEAR_LEVELS)

    def top(self, levels: int) -> tuple[list[float], list[float]]:
        if self._top_is_stale or len(self._top_prices) != levels:
            self._find_top(levels)
        return self._top_prices, self._top_quantities

    def best(self) -> float | None:
        if not self._prices:
            self._bring_near(NEAR_LEVELS)
        return self._prices[-1 if self._best_is_highest else 0] if self._prices else None

    def levels(self) -> list[Level]:
        return sorted([*self._near.items(), *self._far.items()], reverse=self._best_is_highest)

    def pack(self) -> bytes:
        near, far = self._near, self._far
        # Four times as fast as an array of them.
        return struct.pack(f"<{2 * len(self)}d", *near, *far, *near.values(), *far.values())

    def unpack(self, packed: bytes) -> None:
        prices, quantities = np.frombuffer(packed, "<f8").reshape(2, -1).tolist()
        self.replace(list(zip(prices, quantities, strict=True)))

    def __len__(self) -> int:
        return len(self._near) + len(self._far)

    def _find_top(self, levels: int) -> None:
        if len(self._prices) < levels:
            self._bring_near(levels + NEAR_LEVELS)
        prices = self._prices[: -levels - 1 : -1] if self._best_is_highest else self._prices[:levels]
        near = self._near
        quantities = [near[price] for price in prices]
        self._top_low, self._top_high, self._top_is_stale = -inf, inf, False
        if len(prices) < levels:
            quantities += [0.0] * (levels - len(prices))
            prices += [ABSENT] * (levels - len(prices))
        elif self._best_is_highest:
            self._top_low = prices[-1]
        else:
            self._top_high = prices[-1]
        self._top_prices, self._top_quantities = prices, quantities

    def _bring_near(self, levels: int) -> None:
        """Move the best far levels near, until there are as many near ones, or no far ones."""
        far = self._far
        missing = levels - len(self._prices)
        if len(far) <= missing:
            self._near |= far
            far.clear()
            self._low, self._high = -inf, inf
        else:
            best = nlargest(missing, far) if self._best_is_highest else nsmallest(missing, far)
            for price in best:
                self._near[price] = far.pop(price)
            self._bound(best[-1])
        self._prices = sorted(self._near)

    def _let_go(self, levels: int) -> None:
        """Move as many of the worst near levels far."""
        prices = self._prices
        worst = slice(levels) if self._best_is_highest else slice(len(prices) - levels, None)
        for price in prices[worst]:
            self._far[price] = self._near.pop(price)
        del prices[worst]
        self._bound(prices[0 if self._best_is_highest else -1])

    def _bound(self, worst: float) -> None:
        if self._best_is_highest:
            self._low = worst
        else:
            self._high = worst
