"""``bbo`` held against ``orderbook``: two streams of the venue that must tell the same.

After the diff that ends with update ``u``, the best bid and ask are those of the last best quote whose update id is not
beyond ``u``. That is a property of the venue, not of what was recorded: what disagrees is counted, and is no damage.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from harvest.pipeline.verify.rows import count, cut, join, rows_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    from harvest.pipeline.verify.discovery import DataFile
    from harvest.pipeline.verify.findings import Uncovered
    from harvest.pipeline.verify.rows import Rows

_QUOTE = ("bid_px", "bid_qty", "ask_px", "ask_qty")
_TOPS = tuple(f"{name}_0" for name in _QUOTE)


class QuoteAgreement:
    """Compares one symbol's tops of the book with its best quotes, run by run.

    Where quotes were missed (``breaks``), and before the first and after the last quote of a run, nothing is compared; nor
    are tops that are suspect.
    """

    def __init__(self, tops: Iterable[DataFile], runs: Sequence[str], breaks: Iterable[Uncovered]) -> None:
        #: Tops that were compared, and those of them that no quote agrees with.
        self.compared = 0
        self.disagreeing = 0
        self._files: dict[int, list[DataFile]] = {}
        for file in tops:
            self._files.setdefault(runs.index(file.run), []).append(file)
        self._broken = np.sort(np.array([one.from_ns for one in breaks if one.from_ns is not None], np.int64))
        self._run: int | None = None
        self._tops: Iterator[Rows] = iter(())
        self._read: Rows | None = None
        self._last: Rows | None = None

    def follow(self, rows: Rows) -> None:
        """Take the next quotes, in the order of ``seq``."""
        changes = np.flatnonzero(np.diff(rows["run"])) + 1
        for part in np.split(np.arange(count(rows)), changes):
            here = cut({name: rows[name] for name in ("update_id", "recv_ns", "run", *_QUOTE)}, part)
            run = int(here["run"][0])
            if run != self._run:
                self._run, self._last, self._read = run, None, None
                self._tops = _tops_of(self._files.get(run, ()))
            self._compare(here if self._last is None else join([self._last, here]))

    def _compare(self, quotes: Rows) -> None:
        """Compare the tops up to the last of the quotes, which waits for the one that follows it."""
        ids: NDArray[np.int64] = quotes["update_id"]
        times: NDArray[np.int64] = quotes["recv_ns"]
        self._last = cut(quotes, slice(-1, None))
        tops = self._take(int(ids[-1]))
        if tops is None:
            return
        update_ids: NDArray[np.int64] = tops["update_id"]
        place = np.searchsorted(ids, update_ids, side="right") - 1
        before = np.searchsorted(self._broken, times, side="left")
        is_whole = np.append(before[1:] == before[:-1], False)
        judged = (place >= 0) & ~tops["suspect"] & is_whole[place]
        if not judged.any():
            return
        place, tops = place[judged], cut(tops, judged)
        agrees = np.ones(len(place), np.bool_)
        for name, top in zip(_QUOTE, _TOPS, strict=True):
            agrees &= quotes[name][place] == tops[top]
        self.compared += len(place)
        self.disagreeing += int((~agrees).sum())

    def _take(self, before_id: int) -> Rows | None:
        """Take the tops whose update is before that of a quote, None if there are none."""
        while self._read is None or int(self._read["update_id"][-1]) < before_id:
            more = next(self._tops, None)
            if more is None:
                break
            self._read = more if self._read is None else join([self._read, more])
        if self._read is None:
            return None
        end = int(np.searchsorted(self._read["update_id"], before_id, side="left"))
        taken = cut(self._read, slice(end))
        self._read = cut(self._read, slice(end, None)) if end < len(self._read["update_id"]) else None
        return taken if end else None


def _tops_of(files: Iterable[DataFile]) -> Iterator[Rows]:
    """Read the best level of ``orderbook``; what cannot be read was reported where the whole file was."""
    for file in files:
        try:
            with pq.ParquetFile(file.path) as opened:
                for batch in opened.iter_batches(columns=["update_id", *_TOPS, "suspect"], use_threads=False):
                    if len(batch):
                        yield rows_of(batch)
        except (OSError, pa.ArrowException):
            continue
