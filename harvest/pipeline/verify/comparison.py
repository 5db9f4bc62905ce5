"""Stored rows held against those that follow from others, bit by bit, both streamed in the order of ``seq``."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from harvest.book.flow import UNITS, sum_from_float, to_units
from harvest.pipeline.cumulative import running_sums
from harvest.pipeline.verify.rows import count, cut, differ, join, stretches

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from harvest.pipeline.verify.findings import Findings
    from harvest.pipeline.verify.rows import Rows


def exempt_none(ids: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Exempt nothing."""
    return np.zeros(len(ids), np.bool_)


class Comparison:
    """Compares rows of ``kind`` as far as both sides were read; rows with the same id in ``id_column`` belong together.

    ``origin`` names what the expected rows follow from, ``exempt`` tells which ids cannot be judged. Only columns that the expected rows have are compared.
    """

    def __init__(
        self,
        kind: str,
        id_column: str,
        stored: Iterator[Rows],
        findings: Findings,
        *,
        origin: str,
        exempt: Callable[[NDArray[np.int64]], NDArray[np.bool_]] = exempt_none,
    ) -> None:
        #: Stored rows whose id came before.
        self.duplicates = 0
        self._kind, self._id_column, self._origin = kind, id_column, origin
        self._stored, self._findings, self._exempt = stored, findings, exempt
        self._read: Rows | None = None
        #: Whether the rows before the next pair do not match.
        self._is_interrupted = False

    def expect(self, rows: Rows) -> None:
        """Take the next rows that must be stored, all of each record."""
        if not count(rows):
            return
        last = int(rows["seq"][-1])
        while self._read is None or int(self._read["seq"][-1]) <= last:
            more = next(self._stored, None)
            if more is None:
                break
            self._read = more if self._read is None else join([self._read, more])
        self._settle(rows, self._take(last))

    def finish(self) -> None:
        """Say that no more rows must be stored."""
        self._settle(None, self._read)
        for more in self._stored:
            self._settle(None, more)

    def _take(self, last: int) -> Rows | None:
        """Take the stored rows of all records up to ``last``, None if there are none."""
        if self._read is None:
            return None
        end = int(np.searchsorted(self._read["seq"], last, side="right"))
        taken = cut(self._read, slice(end))
        self._read = cut(self._read, slice(end, None)) if end < count(self._read) else None
        return taken if end else None

    def _settle(self, expected: Rows | None, stored: Rows | None) -> None:
        if stored is None or expected is None:
            self._is_interrupted |= stored is not expected
            for rows, what in ((stored, "surplus"), (expected, "absent")):
                if rows is not None:
                    self._report(what, rows[self._id_column], np.ones(count(rows), np.bool_))
            return
        stored, expected = self._without_duplicates(stored, report=True), self._without_duplicates(expected)
        ids, expected_ids = stored[self._id_column], expected[self._id_column]
        if np.array_equal(ids, expected_ids):
            follows = np.ones(len(ids), np.bool_)
        else:
            is_known, is_there = np.isin(ids, expected_ids), np.isin(expected_ids, ids)
            self._report("surplus", ids, ~is_known)
            self._report("absent", expected_ids, ~is_there)
            stored, expected = cut(stored, is_known), cut(expected, is_there)
            follows = _neighbours(is_known) & _neighbours(is_there)
            is_moved = stored[self._id_column] != expected[self._id_column]
            if is_moved.any():
                self._report("order", stored[self._id_column], is_moved)
                stored, expected = self._by_id(stored), self._by_id(expected)
                follows[:] = False
        if len(follows):
            follows[0] &= not self._is_interrupted
            self._is_interrupted = False
            self._compare(stored, expected, follows)

    def _by_id(self, rows: Rows) -> Rows:
        return cut(rows, np.argsort(rows[self._id_column], kind="stable"))

    def _without_duplicates(self, rows: Rows, *, report: bool = False) -> Rows:
        ids = rows[self._id_column]
        if (ids[1:] > ids[:-1]).all():
            return rows
        is_first = np.zeros(len(ids), np.bool_)
        is_first[np.unique(ids, return_index=True)[1]] = True
        if report:
            self.duplicates += int((~is_first).sum())
            self._report("duplicate", ids, ~is_first)
        return cut(rows, is_first)

    def _compare(self, stored: Rows, expected: Rows, follows: NDArray[np.bool_]) -> None:
        """Compare rows pair by pair; ``follows`` tells which come right after the pair before, on both sides."""
        wrong = np.zeros(len(follows), np.bool_)
        names = []
        for name, column in expected.items():
            is_other = differ(stored[name], column)
            if is_other.any():
                names.append(name)
                wrong |= is_other
        shown = ", ".join(names[:4]) + (", …" if len(names) > 4 else "")
        self._report("differs", stored[self._id_column], wrong, f": {shown}")

    def _report(self, what: str, ids: NDArray[np.int64], wrong: NDArray[np.bool_], details: str = "") -> None:
        """Report each stretch of neighbours that are ``wrong``, so that exactly those rows are named."""
        if not wrong.any():
            return
        details = _DETAILS[what].format(self._origin) + details
        for start, end in stretches(wrong & ~self._exempt(ids)):
            here = ids[start:end]
            bounds = int(here.min()), int(here.max())
            self._findings.damaged(what, details, kind=self._kind, ids=bounds, rows=end - start)


_DETAILS = {
    "surplus": "rows that {} does not give",
    "absent": "rows that {} gives are not stored",
    "duplicate": "rows that are stored already",
    "order": "rows in another order than that of {}",
    "differs": "not what {} gives",
}


def _neighbours(kept: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Tell of each row that is kept whether the row before it is kept too; the first one's is before all."""
    return np.concatenate(([True], kept[:-1]))[kept]


class SumComparison(Comparison):
    """Compares the ``cvd`` of one date. Expected rows have ``qty`` and ``sold``, from which delta and sum follow.

    After rows that are missing or too many, and after a wrong sum, it goes on from the next sum that is stored: one fault
    is one finding, and a run that found rows lost went on so itself.
    """

    _total: int | None = 0

    def _compare(self, stored: Rows, expected: Rows, follows: NDArray[np.bool_]) -> None:
        expected = dict(expected)
        qty, sold = expected.pop("qty"), expected.pop("sold")
        deltas, sums, end = running_sums(qty, sold, self._total or 0)
        total: int | None = end
        if self._total is None or not follows.all() or differ(stored["cvd"], sums).any():
            sums, total = self._follow(stored["cvd"].tolist(), qty.tolist(), sold.tolist(), follows.tolist())
        self._total = total
        super()._compare(stored, expected | {"delta": deltas, "cvd": sums}, follows)

    def _follow(
        self, stored: list[float], qty: list[float], sold: list[bool], follows: list[bool]
    ) -> tuple[NDArray[np.float64], int | None]:
        """Sum up row by row; returns what each sum must be, given the one before it, and the last one in units."""
        total = self._total
        sums = np.empty(len(stored))
        for row, found in enumerate(stored):
            if total is None or not follows[row]:
                sums[row] = found
            else:
                total += -to_units(qty[row]) if sold[row] else to_units(qty[row])
                sums[row] = total / UNITS
            if sums[row] != found or total is None or not follows[row]:
                total = sum_from_float(found) if math.isfinite(found) else None
        return sums, total
