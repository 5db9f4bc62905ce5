"""One side of a book through many diffs at once: its best levels after each, as ``book/ladder.py`` would give them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import attrs
import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from harvest.book.levels import LevelLists

    Floats = NDArray[np.float64]

#: Diffs that are followed in one matrix of diffs by levels.
ROWS_AT_ONCE = 256
#: So many levels in it are more than 16 bits can number.
MANY_LEVELS = 2**15
#: Levels beyond the best ones that were wanted, so that some may go in the meantime.
SPARE_LEVELS = 20


class Tops(NamedTuple):
    """The best levels of one side, one row a diff: distances (of what is not there infinity), and quantities (of it 0)."""

    far: Floats
    qty: Floats

    def above(self, other: Tops, levels: int) -> Tops:
        """Put these rows before those of another, and leave so many levels."""
        return Tops(
            *(
                np.concatenate((one[:, :levels], two[:, :levels]))
                for one, two in zip(self, other, strict=True)
            )
        )

    def last(self, levels: int) -> Tops:
        """Return the last row, with so many levels."""
        return Tops(self.far[-1:, :levels].copy(), self.qty[-1:, :levels].copy())


@attrs.frozen(eq=False)
class Side:
    """The levels of one side, by the distance of their price: ascending, the best first, whichever side it is.

    ``sign`` is -1 for bids, and makes distances of prices, and prices of distances.
    """

    sign: int
    far: Floats
    qty: Floats

    @classmethod
    def unpack(cls, packed: bytes, sign: int) -> Side:
        """Take what ``Ladder.pack`` gave of a side."""
        prices, quantities = np.frombuffer(packed, "<f8").reshape(2, -1)
        order = np.argsort(sign * prices)
        return cls(sign, sign * prices[order], quantities[order])

    def pack(self) -> bytes:
        """Return the levels as ``Ladder.pack`` does."""
        return np.concatenate((self.sign * self.far, self.qty)).astype("<f8").tobytes()

    @property
    def is_fit(self) -> bool:
        """Whether all prices are above 0: of 0 there are two."""
        return not len(self.far) or bool((self.sign * self.far[[0, -1]] > 0).all())

    def follow(self, diffs: LevelLists, count: int) -> tuple[Side, Tops]:
        """Apply diffs; returns the side after the last, and the best ``count`` levels after each."""
        offsets, px, qty = diffs.flat()
        changed = self.sign * px
        # Sorting tells the places too, in half the time that looking them up takes.
        known, every = np.unique(np.concatenate((self.far, changed)), return_inverse=True)
        levels = _Levels(known, every[: len(self.far)], self.qty)
        places = every[len(self.far) :]
        parts = []
        for start in range(0, len(diffs), ROWS_AT_ONCE):
            bounds = offsets[start : start + ROWS_AT_ONCE + 1]
            here = slice(bounds[0], bounds[-1])
            rows = np.repeat(np.arange(1, len(bounds)), np.diff(bounds))
            parts.append(levels.follow(rows, places[here], qty[here], len(bounds) - 1, count))
        far, quantities = zip(*parts, strict=True)
        there = levels.qty > 0
        after = Side(self.sign, known[there], levels.qty[there])
        return after, Tops(np.concatenate(far), np.concatenate(quantities))


class _Levels:
    """The quantities of all levels that may come into it, in the order of ``known``: 0 where one is not there."""

    def __init__(self, known: Floats, places: NDArray[Any], quantities: Floats) -> None:
        self.qty = np.zeros(len(known))
        self.qty[places] = quantities
        self._known = known

    def follow(self, rows: NDArray[Any], places: NDArray[Any], qty: Floats, diffs: int, count: int) -> Tops:
        """Apply ``diffs``: that of number ``rows`` (from 1 on) sets the level at ``places`` to ``qty``."""
        there = np.flatnonzero(self.qty)
        wanted = count + SPARE_LEVELS
        while True:
            end = int(there[wanted - 1]) + 1 if wanted < len(there) else len(self._known)
            found = self._best(rows, places, qty, diffs, count, end)
            if found is not None:
                self.qty[places] = qty
                return found
            wanted *= 4

    def _best(
        self, rows: NDArray[Any], places: NDArray[Any], qty: Floats, diffs: int, count: int, end: int
    ) -> Tops | None:
        """Look at the levels before ``end`` alone; None where these are not ``count`` after each diff, and others are there."""
        near = places < end
        rows, places, qty = rows[near], places[near], qty[near]
        is_live = self.qty[:end] > 0
        is_live[places] = True
        live = np.flatnonzero(is_live)
        size = len(live)
        # One number a cell, for where a diff names a level twice the last assignment holds.
        cells = rows * size + (np.cumsum(is_live) - 1)[places]
        # Twice the number of the last diff that set a level, and 1 if it is there since.
        since = np.zeros((diffs + 1, size), np.int16)
        since[0] = self.qty[live] > 0
        since.reshape(-1)[cells] = 2 * rows + (qty > 0)
        np.maximum.accumulate(since, axis=0, out=since)
        is_there = since[1:] & 1
        number: NDArray[np.integer[Any]]
        number = np.cumsum(is_there, axis=1, dtype=np.int16 if size < MANY_LEVELS else np.int32)
        if end < len(self._known) and (number[:, -1] < count).any():
            return None
        at, column = np.nonzero((is_there != 0) & (number <= count))
        rank = number[at, column] - 1
        values = np.empty((diffs + 1, size))
        values[0] = self.qty[live]
        values.reshape(-1)[cells] = qty
        far, quantities = np.full((diffs, count), np.inf), np.zeros((diffs, count))
        far[at, rank] = self._known[live[column]]
        quantities[at, rank] = values[since[at + 1, column] >> 1, column]
        return Tops(far, quantities)
