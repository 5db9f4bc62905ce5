"""Cumulative volume delta: rows of ``cvd`` follow from those of ``prices``, when these are sealed.

The running sum is one of exact integers of 1e-8, in the order of the rows, from zero at UTC midnight; a run goes on
from the date's last row. Nothing is done per message.
"""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING

import numpy as np

from harvest.book.flow import EXACT_UNITS, to_units
from harvest.storage.kinds import CVD, PRICES, SIDES, TRADE_TYPES
from harvest.storage.tables import Sealed

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

_SOLD = SIDES.index("sell")
#: By the code of a trade's type: market trades, and those whose type is not known.
_IS_COUNTED = np.zeros(256, np.bool_)
_IS_COUNTED[[TRADE_TYPES.index("MARKET"), 255]] = True


class CumulativeDelta:
    """Derives ``cvd`` from sealed ``prices``. Its sums are kept by symbol and date.

    ``resume(symbol, day)`` gives the sum, in 1e-8, that earlier runs stored for that date; it is asked once a symbol
    and date.
    """

    def __init__(self, resume: Callable[[str, int], int]) -> None:
        self._resume = resume
        self._sums: dict[tuple[str, int], int] = {}
        self._held: list[Sealed] | None = None
        self._is_off = False

    @property
    def held_bytes(self) -> int:
        """The memory of what waits for its rows to be made."""
        return sum(sealed.size_bytes for sealed in self._held or ())

    def hold(self) -> None:
        """Make no rows until ``go_on``: keep what they will follow from."""
        self._held = []

    def go_on(self, resume: Callable[[str, int], int] | None) -> list[Sealed]:
        """Make the rows that were held, with sums that go on from ``resume``; None makes none, now or later."""
        held, self._held = self._held or [], None
        if resume is None:
            self._is_off = True
            return []
        self._resume = resume
        return [derived for sealed in held for derived in self.derive(sealed)]

    def forget_before(self, day: int) -> None:
        """Drop the sums of dates before ``day``; a row that comes for them asks ``resume`` again."""
        for key in [key for key in self._sums if key[1] < day]:
            del self._sums[key]

    def resume_from(self, symbol: str, day: int, units: int) -> None:
        """Begin a sum at ``units``, unless it has begun: ``resume`` then need not be asked."""
        self._sums.setdefault((symbol, day), units)

    def derive(self, sealed: Sealed) -> list[Sealed]:
        """Make the ``cvd`` rows of a sealed ``prices`` table; nothing for other kinds."""
        if sealed.kind is not PRICES or self._is_off:
            return []
        if self._held is not None:
            self._held.append(sealed)
            return []
        key = (sealed.symbol, sealed.day)
        start = self._sums.get(key)
        if start is None:
            start = self._resume(*key)
        trades = np.frombuffer(sealed.packed(), PRICES.dtype)
        counted = _IS_COUNTED[trades["trade_type"]]
        marks = sealed.marks
        if not counted.all():
            trades, marks = trades[counted], _marks_of(marks, counted)
        self._sums[key] = _end_of(trades["qty"], trades["side"] == _SOLD, start)
        if not len(trades):
            return []

        def make() -> bytes:
            return _rows_of(trades, start)

        count, first_seq, last_seq = len(trades), marks[1], marks[-3]
        return [Sealed(CVD, sealed.symbol, sealed.day, count, first_seq, last_seq, make, marks)]


def _rows_of(trades: NDArray[np.void], start: int) -> bytes:
    deltas, sums, _ = running_sums(trades["qty"], trades["side"] == _SOLD, start)
    rows = np.empty(len(trades), CVD.dtype)
    for name in ("event_time", "trade_id"):
        rows[name] = trades[name]
    rows["delta"], rows["cvd"] = deltas, sums
    return rows.tobytes()


def _end_of(qty: NDArray[np.float64], sold: NDArray[np.bool_], start: int) -> int:
    """Return the last of the running sums, which is all that the loop has to know of them."""
    units, moved = _units(qty)
    if _is_exact(start, moved):
        return start + int(moved - 2 * float(units[sold].sum()))
    return running_sums(qty, sold, start)[2]


def running_sums(
    qty: NDArray[np.float64], sold: NDArray[np.bool_], start: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], int]:
    """Sum signed quantities exactly from ``start`` (in 1e-8); returns deltas, running sums, and the end in 1e-8."""
    units, moved = _units(qty)
    if _is_exact(start, moved):
        signed = np.where(sold, -units, units).astype(np.int64)
        sums = np.cumsum(signed) + start
        return signed / 1e8, sums / 1e8, int(sums[-1]) if len(sums) else start
    deltas, running, total = np.empty(len(qty)), np.empty(len(qty)), start
    for index, (size, is_sale) in enumerate(zip(qty.tolist(), sold.tolist(), strict=True)):
        exact = -to_units(size) if is_sale else to_units(size)
        total += exact
        deltas[index], running[index] = exact / 10**8, total / 10**8
    return deltas, running, total


def _units(qty: NDArray[np.float64]) -> tuple[NDArray[np.float64], float]:
    units: NDArray[np.float64] = np.rint(qty * 1e8)
    with np.errstate(over="ignore"):
        # A sum that is too large for float64 is infinite here, and so goes the exact way.
        return units, float(units.sum())


def _is_exact(start: int, moved: float) -> bool:
    """Tell whether float64 and int64 hold every partial sum exactly, so that vectors can do the arithmetic."""
    return abs(start) < EXACT_UNITS - moved


def _marks_of(marks: array[int], kept: NDArray[np.bool_]) -> array[int]:
    """Move the marks of all rows to the rows that were kept, leaving out blocks of which none was."""
    table = np.frombuffer(marks, np.int64).reshape(-1, 4).copy()
    before = np.concatenate(([0], np.cumsum(kept)))
    starts = before[table[:, 0]]
    ends = np.append(starts[1:], before[-1])
    table[:, 0] = starts
    return array("q", table[ends > starts].ravel().tolist())
