"""A column of lists of levels, without an object a level."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from harvest.market import Level

    Floats = NDArray[np.float64]


class FlatLevels(NamedTuple):
    """All levels of some lists after one another: those of list ``i`` are from ``offsets[i]`` to ``offsets[i + 1]``."""

    offsets: NDArray[np.int64]
    px: Floats
    qty: Floats


class LevelLists:
    """Lists of levels, one a row, that can be indexed as an array is: by a slice, a mask, or an order of rows."""

    __slots__ = ("_ends", "_px", "_qty", "_starts")

    def __init__(self, px: Floats, qty: Floats, starts: NDArray[np.int64], ends: NDArray[np.int64]) -> None:
        self._px, self._qty, self._starts, self._ends = px, qty, starts, ends

    @classmethod
    def of(cls, flat: FlatLevels) -> LevelLists:
        """Make the column whose ``flat`` this is."""
        return cls(flat.px, flat.qty, flat.offsets[:-1], flat.offsets[1:])

    def __len__(self) -> int:
        return len(self._starts)

    def __getitem__(self, where: slice | NDArray[Any]) -> LevelLists:
        return LevelLists(self._px, self._qty, self._starts[where], self._ends[where])

    def flat(self) -> FlatLevels:
        """Return all levels in the order of the rows."""
        starts, ends = self._starts, self._ends
        offsets = np.concatenate(([0], np.cumsum(ends - starts)))
        if not len(starts) or (starts[1:] == ends[:-1]).all():
            here: Any = slice(*(starts[0], ends[-1]) if len(starts) else (0, 0))
        else:
            here = np.repeat(starts - offsets[:-1], ends - starts) + np.arange(offsets[-1])
        return FlatLevels(offsets, self._px[here], self._qty[here])

    def first_px(self) -> Floats:
        """Return the price of the first level of each row, NaN where there is none."""
        first = np.full(len(self), np.nan)
        some = self._ends > self._starts
        first[some] = self._px[self._starts[some]]
        return first

    def are_positive(self) -> NDArray[np.bool_]:
        """Tell of each row whether all its prices are above 0."""
        wrong = np.concatenate(([0], np.cumsum(~(self._px > 0))))
        found: NDArray[np.bool_] = wrong[self._starts] == wrong[self._ends]
        return found

    def tolist(self) -> list[list[Level]]:
        """Return them as Python has them."""
        offsets, px, qty = self.flat()
        pairs: list[Level] = list(zip(px.tolist(), qty.tolist(), strict=True))
        return [pairs[start:end] for start, end in pairwise(offsets.tolist())]

    @staticmethod
    def join(parts: list[LevelLists]) -> LevelLists:
        """Put columns after one another."""
        flats = [part.flat() for part in parts]
        befores = np.cumsum([0, *(len(flat.px) for flat in flats)])
        offsets = [flat.offsets[:-1] + before for flat, before in zip(flats, befores[:-1], strict=True)]
        return LevelLists.of(
            FlatLevels(
                np.concatenate([*offsets, befores[-1:]]),
                np.concatenate([flat.px for flat in flats]),
                np.concatenate([flat.qty for flat in flats]),
            )
        )
