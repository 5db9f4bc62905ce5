"""Stretches in which a book was in agreement with its venue's, as ``orderbook`` and ``ofi`` say."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from harvest.pipeline.verify.rows import widened

if TYPE_CHECKING:
    from harvest.pipeline.verify.rows import Rows


class Stretches:
    """Gathers rows in order: those in sync that follow each other in one run are a stretch."""

    def __init__(self) -> None:
        #: Receive times of the first and the last row of each stretch.
        self.times: list[tuple[int, int]] = []
        #: Update ids of the same rows.
        self.ids: list[tuple[int, int]] = []
        #: The least and greatest of all rows, suspect ones too; None before the first.
        self.time_bounds: tuple[int, int] | None = None
        self.id_bounds: tuple[int, int] | None = None
        self.suspect_rows = 0
        self._open_run: int | None = None

    def add(self, rows: Rows) -> None:
        """Take the next rows, of which there is at least one."""
        suspect, runs, ids, recv_ns = rows["suspect"], rows["run"], rows["update_id"], rows["recv_ns"]
        self.suspect_rows += int(suspect.sum())
        self.time_bounds = widened(self.time_bounds, recv_ns)
        self.id_bounds = widened(self.id_bounds, ids)
        changes = np.flatnonzero((suspect[1:] != suspect[:-1]) | (runs[1:] != runs[:-1])) + 1
        starts = np.concatenate(([0], changes))
        ends = np.append(changes, len(suspect)) - 1
        for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
            if suspect[start]:
                self._open_run = None
                continue
            run = int(runs[start])
            time, span = (int(recv_ns[start]), int(recv_ns[end])), (int(ids[start]), int(ids[end]))
            if run == self._open_run:
                self.times[-1] = self.times[-1][0], max(self.times[-1][1], time[1])
                self.ids[-1] = self.ids[-1][0], max(self.ids[-1][1], span[1])
            else:
                self.times.append(time)
                self.ids.append(span)
            self._open_run = run
