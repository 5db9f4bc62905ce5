"""What of sealed rows is in no file yet: rows are committed where a file of their own directory covers their ``seq``."""

from __future__ import annotations

from array import array
from itertools import pairwise
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from harvest.storage.tables import Levels, Sealed

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

Interval: TypeAlias = tuple[int, int]
"""Records from the first to the last ``seq``, both inclusive."""

_COVERED = -1


def merged(intervals: Iterable[Interval]) -> list[Interval]:
    """Join intervals that overlap or meet; the result is ascending."""
    joined: list[Interval] = []
    for first, last in sorted(intervals):
        if joined and first <= joined[-1][1] + 1:
            joined[-1] = (joined[-1][0], max(joined[-1][1], last))
        else:
            joined.append((first, last))
    return joined


def uncommitted(sealed: Sealed, committed: Sequence[Interval]) -> list[Sealed]:
    """Return the rows that no interval covers, in parts none of which spans an interval.

    ``committed`` is as ``merged`` gives it.
    """
    if not committed:
        return [sealed]
    marks = np.frombuffer(sealed.marks, np.int64).reshape(-1, 4)
    places = _places(marks[:, 1], committed)
    edges = [0, *(np.flatnonzero(np.diff(places)) + 1).tolist(), len(places)]
    return [_cut(sealed, marks, start, end) for start, end in pairwise(edges) if places[start] != _COVERED]


def is_committed(seqs: NDArray[np.int64], committed: Sequence[Interval]) -> NDArray[np.bool_]:
    """Tell which records an interval covers; ``committed`` is as ``merged`` gives it."""
    covered: NDArray[np.bool_] = (
        _places(seqs, committed) == _COVERED if committed else np.zeros(len(seqs), np.bool_)
    )
    return covered


def _places(seqs: NDArray[np.int64], committed: Sequence[Interval]) -> NDArray[np.int64]:
    """Tell between which two intervals each record lies, by the number of those before it, or that one covers it."""
    firsts, lasts = np.array(committed, np.int64).T
    places = np.searchsorted(firsts, seqs, side="right")
    places[(places > 0) & (seqs <= lasts[places - 1])] = _COVERED
    return places


def _cut(sealed: Sealed, marks: NDArray[np.int64], start: int, end: int) -> Sealed:
    """Take the rows of the blocks from ``start`` to before ``end``."""
    first_row = int(marks[start, 0])
    end_row = int(marks[end, 0]) if end < len(marks) else sealed.count
    cut = marks[start:end].copy()
    cut[:, 0] -= first_row
    size = sealed.kind.dtype.itemsize
    return Sealed(
        sealed.kind,
        sealed.symbol,
        sealed.day,
        end_row - first_row,
        int(cut[0, 1]),
        int(cut[-1, 1]),
        sealed.packed()[first_row * size : end_row * size],
        array("q", cut.tobytes()),
        None if sealed.levels is None else _cut_levels(sealed, sealed.levels, first_row, end_row),
    )


def _cut_levels(sealed: Sealed, levels: Levels, first_row: int, end_row: int) -> Levels:
    rows = np.frombuffer(sealed.packed(), sealed.kind.dtype)
    cuts = {}
    for number in ("n_bids", "n_asks"):
        before = int(rows[number][:first_row].sum())
        cuts[number] = slice(before, before + int(rows[number][first_row:end_row].sum()))
    bid_px, bid_qty, ask_px, ask_qty = levels
    bids, asks = cuts["n_bids"], cuts["n_asks"]
    return bid_px[bids], bid_qty[bids], ask_px[asks], ask_qty[asks]
