"""The rows of many files, each in the order of ``seq``, as one stream in that order; only what overlaps is in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from harvest.pipeline.verify.rows import count, cut, join

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from harvest.pipeline.verify.checked_file import CheckedFile
    from harvest.pipeline.verify.rows import Rows


def in_order(files: Sequence[CheckedFile], *ties: str) -> Iterator[Rows]:
    """Merge files, which are sorted by their first record. Rows of one record are never in two chunks.

    Rows of one record that lie in several files (of several dates) are ordered by the columns ``ties``; those of one file
    keep their order.
    """
    waiting = list(reversed(files))
    active: list[_Cursor] = []
    while waiting or active:
        if not active:
            active.append(_Cursor(waiting.pop()))
        active = [cursor for cursor in active if not cursor.is_done]
        if not active:
            continue
        head = min(cursor.first_seq for cursor in active)
        while waiting and waiting[-1].file.first_seq <= head:
            active.append(_Cursor(waiting.pop()))
        active = [cursor for cursor in active if not cursor.is_done]
        tightest = min(active, key=lambda cursor: cursor.safe_seq)
        safe = tightest.safe_seq
        if waiting:
            safe = min(safe, waiting[-1].file.first_seq - 1)
        if safe < min(cursor.first_seq for cursor in active):
            # One record fills all that was read of a file.
            tightest.read_on()
            continue
        parts = [part for cursor in active if count(part := cursor.take(safe))]
        yield _merge(parts, ties)


def _merge(parts: list[Rows], ties: tuple[str, ...]) -> Rows:
    rows = join(parts)
    if len(parts) > 1:
        rows = cut(rows, np.lexsort([rows[tie] for tie in reversed(ties)] + [rows["seq"]]))
    return rows


class _Cursor:
    """What was read of one file and not yet taken."""

    def __init__(self, file: CheckedFile) -> None:
        self._batches = file.batches()
        self._next: Rows | None = self._read()
        self._rows: Rows | None = None
        self._advance()

    @property
    def is_done(self) -> bool:
        return self._rows is None

    @property
    def first_seq(self) -> int:
        assert self._rows is not None
        return int(self._rows["seq"][0])

    @property
    def safe_seq(self) -> int:
        """The last record all of whose rows were read."""
        assert self._rows is not None
        last = int(self._rows["seq"][-1])
        if self._next is None:
            return last
        return min(last, int(self._next["seq"][0]) - 1)

    def read_on(self) -> None:
        """Read one batch more; what is here is in order again afterwards, whatever the file's is."""
        assert self._rows is not None
        if self._next is not None:
            rows = join([self._rows, self._next])
            self._rows = cut(rows, np.argsort(rows["seq"], kind="stable"))
            self._next = self._read()

    def take(self, safe: int) -> Rows:
        """Take the rows of all records up to ``safe``."""
        assert self._rows is not None
        end = int(np.searchsorted(self._rows["seq"], safe, side="right"))
        taken = cut(self._rows, slice(end))
        self._rows = cut(self._rows, slice(end, None))
        if not count(self._rows):
            self._advance()
        return taken

    def _advance(self) -> None:
        self._rows = self._next
        self._next = None if self._rows is None else self._read()

    def _read(self) -> Rows | None:
        for rows in self._batches:
            if count(rows):
                return rows
        return None
