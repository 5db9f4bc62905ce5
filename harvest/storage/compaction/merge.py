"""The rows of many files, each in the order of ``seq``, as one stream in that order; only what overlaps is in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from harvest.storage.compaction.checksum import DisorderError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence


def in_order(
    first_seqs: Sequence[int], open_file: Callable[[int], Iterator[pa.RecordBatch]]
) -> Iterator[pa.Table]:
    """Merge files that are sorted by their first record; ``open_file`` gets a file's number when its rows are due.

    Rows of one record keep their order.

    Raises:
        DisorderError: two files have rows of the same record.
    """
    waiting = list(range(len(first_seqs) - 1, -1, -1))
    active: list[_Cursor] = []
    while waiting or active:
        if not active:
            active.append(_Cursor(open_file(waiting.pop())))
        while waiting and first_seqs[waiting[-1]] <= min(cursor.last_seq for cursor in active):
            active.append(_Cursor(open_file(waiting.pop())))
        safe = min(cursor.last_seq for cursor in active)
        yield _merged([part for cursor in active if (part := cursor.take(safe)).num_rows])
        active = [cursor for cursor in active if not cursor.is_done]


def _merged(parts: list[pa.RecordBatch]) -> pa.Table:
    table = pa.Table.from_batches(parts)
    if len(parts) == 1:
        return table
    seq = table.column("seq").to_numpy()
    order = np.argsort(seq, kind="stable")
    of_part = np.repeat(np.arange(len(parts)), [part.num_rows for part in parts])[order]
    seq = seq[order]
    twice = (seq[1:] == seq[:-1]) & (of_part[1:] != of_part[:-1])
    if twice.any():
        raise DisorderError(f"two files hold the record {seq[1:][twice][0]}")
    return table.take(pa.array(order))


class _Cursor:
    """What was read of one file and not yet taken."""

    def __init__(self, batches: Iterator[pa.RecordBatch]) -> None:
        self._batches = batches
        self._rows: pa.RecordBatch | None = next(batches, None)
        if self._rows is None:
            raise DisorderError("it holds no row")

    @property
    def is_done(self) -> bool:
        return self._rows is None

    @property
    def last_seq(self) -> int:
        """The last record of what was read."""
        assert self._rows is not None
        return int(self._rows.column("seq")[-1].as_py())

    def take(self, safe: int) -> pa.RecordBatch:
        """Take the rows up to the record ``safe``."""
        assert self._rows is not None
        seq = self._rows.column("seq").to_numpy()
        end = int(np.searchsorted(seq, safe, side="right"))
        taken = self._rows.slice(0, end)
        self._rows = self._rows.slice(end) if end < len(seq) else next(self._batches, None)
        return taken
