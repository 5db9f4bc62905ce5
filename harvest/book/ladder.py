"""Both sides of one order book: absolute quantities by price, and the best levels of each side.

Most changed levels lie far from the touch, where nobody asks for their order: they go into a dict and no further. Near
the touch alone prices are kept sorted, and only prices that are new cost more than the dict.
"""

from __future__ import annotations

import struct
from bisect import bisect_left, insort
from heapq import nlargest, nsmallest
from itertools import islice
from math import inf
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harvest.market import Level

#: The price of a level that is not there. One object, so that equal tops compare equal in spite of it.
ABSENT = float("nan")
#: Levels that are near again after the near ones ran out, or these became three times as many.
NEAR_LEVELS = 128
#: Levels that a side may hold, removed ones among them, before these are forgotten: twice those that are there, and so many.
FORGET_FROM = 1000


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

        Each list has ``levels`` entries; a level that is not there has the price NaN and the quantity 0.
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
    """One side. A level that was removed stays, with the quantity 0, until it gets in the way: so a diff is one call."""

    __slots__ = ("_best_is_highest", "_bound", "_levels", "_most", "_prices")

    def __init__(self, *, best_is_highest: bool) -> None:
        self._best_is_highest = best_is_highest
        self.replace(())

    def replace(self, levels: Sequence[Level]) -> None:
        self._levels = dict(levels)
        #: Near levels are those from this price on; theirs, removed ones among them, are kept sorted.
        self._bound = 0.0
        self._prices: list[float] = []
        self._bring_near(NEAR_LEVELS)

    def apply(self, levels: Sequence[Level]) -> None:
        known = self._levels
        before = len(known)
        known.update(levels)
        new = len(known) - before
        if new:
            self._add(new)

    def top(self, levels: int) -> tuple[list[float], list[float]]:
        while True:
            near = self._prices
            prices = near[: -levels - 1 : -1] if self._best_is_highest else near[:levels]
            quantities = list(map(self._levels.__getitem__, prices))
            if not all(quantities):
                self._drop([price for price, qty in zip(prices, quantities, strict=True) if not qty])
            elif len(prices) == levels or not self._has_far():
                break
            else:
                self._bring_near(levels + NEAR_LEVELS)
        if len(prices) < levels:
            quantities += [0.0] * (levels - len(prices))
            prices += [ABSENT] * (levels - len(prices))
        return prices, quantities

    def best(self) -> float | None:
        (price,), (qty,) = self.top(1)
        return price if qty else None

    def levels(self) -> list[Level]:
        return sorted(self._present().items(), reverse=self._best_is_highest)

    def pack(self) -> bytes:
        levels = self._present()
        # Four times as fast as an array of them.
        return struct.pack(f"<{2 * len(levels)}d", *levels, *levels.values())

    def unpack(self, packed: bytes) -> None:
        prices, quantities = np.frombuffer(packed, "<f8").reshape(2, -1).tolist()
        self.replace(list(zip(prices, quantities, strict=True)))

    def __len__(self) -> int:
        return len(self._present())

    def _present(self) -> dict[float, float]:
        return {price: qty for price, qty in self._levels.items() if qty}

    def _has_far(self) -> bool:
        return len(self._prices) < len(self._levels)

    def _add(self, new: int) -> None:
        """Take the ``new`` prices that came last into account."""
        near, bound, is_bid = self._prices, self._bound, self._best_is_highest
        for price in islice(reversed(self._levels), new):
            if (price >= bound) if is_bid else (price <= bound):
                insort(near, price)
        if len(self._levels) > self._most:
            self._bring_near(NEAR_LEVELS)
        elif len(near) > 3 * NEAR_LEVELS:
            self._drop([price for price in near if not self._levels[price]])
            if len(near) > 2 * NEAR_LEVELS:
                del near[slice(len(near) - NEAR_LEVELS) if is_bid else slice(NEAR_LEVELS, None)]
                self._bound = near[0 if is_bid else -1]

    def _drop(self, prices: list[float]) -> None:
        """Forget near levels that were removed."""
        near = self._prices
        for price in prices:
            del self._levels[price], near[bisect_left(near, price)]

    def _bring_near(self, count: int) -> None:
        """Let the best ``count`` levels be the near ones, and forget all that were removed."""
        self._levels = levels = self._present()
        self._most = 2 * len(levels) + FORGET_FROM
        if len(levels) <= count:
            self._prices = sorted(levels)
            self._bound = -inf if self._best_is_highest else inf
        else:
            best = nlargest(count, levels) if self._best_is_highest else nsmallest(count, levels)
            self._prices = sorted(best)
            self._bound = best[-1]
