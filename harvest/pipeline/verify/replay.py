"""The depth of one run through the very state machine that made its rows."""

from __future__ import annotations

from collections import defaultdict, deque
from typing import TYPE_CHECKING, ClassVar, Literal, NamedTuple

import msgspec
import numpy as np

from harvest.book.flow import WINDOW
from harvest.market import DIFF, BookSnapshot, Level
from harvest.metrics import Metrics
from harvest.pipeline.machine import Pipeline
from harvest.pipeline.verify.bulk import BulkSeries, Plain
from harvest.pipeline.verify.rows import count, cut, join
from harvest.storage.kinds import BOOK, UNKNOWN

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from harvest.pipeline.orderbook import BookSeries
    from harvest.pipeline.verify.findings import Findings
    from harvest.pipeline.verify.rows import Rows
    from harvest.storage.tables import Sealed
    from harvest.venues.protocol import Venue


_FED = (
    *("seq", "is_snapshot", "source", "recv_ns", "event_time", "trade_time"),
    *("first_update_id", "last_update_id", "prev_update_id", "bids", "asks"),
)
#: Fewer plain rows than this are taken one by one, so that the book is not handed to and fro for them.
WORTH_BULK = 64
#: Rows that are taken one by one before the next try: mostly a single one is why the others were not taken at once.
RETRY_ROWS = 8
#: Later than any row: nothing is open between two chunks.
_NO_DAY = 2**31


class StoredDiff(msgspec.Struct, gc=False):
    """A ``BookDiff`` as it is stored; its times are in microseconds."""

    shape: ClassVar[Literal[1]] = DIFF
    symbol: str
    first_update_id: int
    last_update_id: int
    prev_update_id: int | None
    bids: list[Level]
    asks: list[Level]
    event_time: int
    trade_time: int | None


class Drift(NamedTuple):
    """An audit of the record ``seq`` found that the book had drifted as it stood at ``update_id``."""

    seq: int
    update_id: int


class Replay:
    """Feeds the ``depth`` rows of one run to its book, and gives the rows of ``orderbook`` and ``ofi`` that follow.

    ``known_breaks`` are those that were recorded, as (from, to). Behind another one rows were lost after they had been
    stored: in truth the book went on, so nothing can be said of it until it began anew, and ``cannot_judge`` exempts what
    lies between. ``drifts`` are in their order; from each on the book was not trusted, until a snapshot replaced it.
    """

    def __init__(
        self,
        venue: Venue,
        symbol: str,
        findings: Findings,
        *,
        known_breaks: set[tuple[int, int]],
        drifts: Iterable[Drift] = (),
        levels: int,
        max_pending_diffs: int,
    ) -> None:
        #: The first and last update id of each stretch that cannot be judged.
        self.lost: list[list[int]] = []
        self._venue, self._symbol, self._findings = venue, symbol, findings
        self._known_breaks = known_breaks
        self._drifts = deque(drifts)
        self._levels, self._max_pending_diffs = levels, max_pending_diffs
        self._pipeline = self._new_pipeline()
        self._has_begun = self._is_lost = self._can_recover = False
        #: The flow alone cannot be judged in these: its window began before the rows that are there.
        self._flow_lost: list[list[int]] = []
        self._window_left = 0
        #: The number of the first row that was fed last, over the whole run, and the records of all of them.
        self._first_row = 0
        self._seqs: NDArray[np.int64] = np.empty(0, np.int64)
        #: The book where it is followed at once, and not by the machine.
        self._bulk: BulkSeries | None = None
        #: What it gave, and the dates' first books that are stored, since the last ``_drain``.
        self._at_once: dict[str, list[Rows]] = defaultdict(list)
        self._stored_books: list[int] = []

    def _new_pipeline(self) -> Pipeline:
        return Pipeline(
            self._venue,
            metrics=Metrics(),
            levels=self._levels,
            max_rows=2**62,
            max_pending_diffs=self._max_pending_diffs,
            resume_cvd=lambda _symbol, _day: 0,
            symbols=[self._symbol],
        )

    @property
    def _book(self) -> BookSeries:
        book = self._pipeline.book(self._symbol)
        assert book is not None
        return book

    def feed(self, rows: Rows) -> dict[str, Rows]:
        """Take the next rows of ``depth``; returns the rows that follow, by kind."""
        self._first_row, self._seqs = self._first_row + len(self._seqs), rows["seq"]
        made: list[dict[str, Rows]] = []
        plain = Plain(rows, self._venue.depth_rule)
        row, size = 0, count(rows)
        while row < size:
            end = self._plain_until(plain, row, rows["seq"])
            if end - row < WORTH_BULK or not self._take_at_once(plain, rows, row, end):
                end = min(max(end, row + 1), row + RETRY_ROWS)
                self._take_one_by_one(cut(rows, slice(row, end)), self._first_row + row, made)
            row = end
        made.append(self._drain())
        return {
            kind: join(parts)
            for kind in ("orderbook", "ofi")
            if (parts := [one[kind] for one in made if kind in one])
        }

    def _plain_until(self, plain: Plain, row: int, seqs: NDArray[np.int64]) -> int:
        """Return the row before which those from ``row`` on are plain, and behind no drift that is not yet known."""
        book = self._bulk or self._book
        end = plain.until(row, book.last_update_id)
        if self._drifts:
            end = min(end, max(row, int(np.searchsorted(seqs, self._drifts[0].seq))))
        return end

    def _take_at_once(self, plain: Plain, rows: Rows, row: int, end: int) -> bool:
        """Take plain rows, if the book is such that this can be done."""
        if self._bulk is None:
            self._bulk = BulkSeries.of(self._book, self._levels)
        if self._bulk is None or plain.days[row] not in self._bulk.days:
            return False
        here = cut(rows, slice(row, end))
        followed = self._bulk.follow(here)
        if followed is None:
            return False
        for kind, of_kind in followed.items():
            self._at_once[kind].append(of_kind)
        ids = here["last_update_id"]
        if self._window_left:
            seen = min(self._window_left, len(ids))
            self._window_left -= seen
            self._flow_lost[-1][1] = int(ids[seen - 1])
        if self._is_lost:
            self.lost[-1][1] = int(ids[-1])
        return True

    def _take_one_by_one(self, rows: Rows, first_row: int, made: list[dict[str, Rows]]) -> None:
        """Let the state machine take rows; what it made before it begins anew goes to ``made``."""
        if self._bulk is not None:
            self._bulk.leave(self._book)
            self._bulk = None
        symbol = self._symbol
        columns = [rows[name].tolist() for name in _FED]
        # To the book each row is a record of its own: diffs that waited have one seq, and receive times of their own.
        for row, (
            seq,
            is_snapshot,
            source,
            recv_ns,
            event,
            trade,
            first,
            last,
            prev,
            bids,
            asks,
        ) in enumerate(zip(*columns, strict=True), start=first_row):
            trade_time = None if trade == UNKNOWN else trade
            while self._drifts and self._is_behind(self._drifts[0], seq):
                self._drifts.popleft()
                self._book.doubt()
            if not is_snapshot:
                prev_id = None if prev == UNKNOWN else prev
                diff = StoredDiff(symbol, first, last, prev_id, bids, asks, event, trade_time)
                self._take(diff, row, recv_ns)
            else:
                event_time = None if event == UNKNOWN else event
                snapshot = BookSnapshot(last, bids, asks, event_time, trade_time)
                if source == "rest":
                    self._take_snapshot(snapshot, row, recv_ns)
                elif self._is_lost or not self._book.in_sync:
                    made.append(self._drain())
                    self._begin_from(snapshot, row, recv_ns)
                else:
                    self._stored_books.append(last)
                    self._check_book(snapshot)
            self._has_begun = True

    def cannot_judge(self, update_ids: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Tell which rows of ``orderbook`` follow from what was lost."""
        return _within(self.lost, update_ids)

    def cannot_judge_flow(self, update_ids: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Tell which rows of ``ofi`` do."""
        return self.cannot_judge(update_ids) | _within(self._flow_lost, update_ids)

    def _is_behind(self, drift: Drift, seq: int) -> bool:
        """Tell whether a row of the record ``seq`` that comes now comes after the audit that found ``drift``."""
        last = self._book.last_update_id
        return seq > drift.seq or (seq == drift.seq and last is not None and last >= drift.update_id)

    def _take(self, diff: StoredDiff, row: int, recv_ns: int) -> None:
        book, update_id = self._book, diff.last_update_id
        before, gaps = book.last_update_id, book.stats.gaps
        book.take(diff, row, recv_ns, 0)
        if self._window_left:
            self._window_left -= 1
            self._flow_lost[-1][1] = update_id
        if book.stats.gaps != gaps:
            to_id = diff.prev_update_id if self._venue.depth_rule == "usdm" else diff.first_update_id
            self._can_recover = (before, to_id) in self._known_breaks
            if not self._can_recover and not self._is_lost:
                self._is_lost = True
                self.lost.append([update_id, update_id])
        if self._is_lost:
            self.lost[-1][1] = update_id

    def _take_snapshot(self, snapshot: BookSnapshot, row: int, recv_ns: int) -> None:
        book = self._book
        resyncs = book.stats.resyncs
        book.take_snapshot(snapshot, row, recv_ns)
        # After a break that was recorded the book began anew in truth, too.
        if book.stats.resyncs != resyncs and self._can_recover:
            self._is_lost = False

    def _begin_from(self, snapshot: BookSnapshot, row: int, recv_ns: int) -> None:
        """Begin from the whole book at the beginning of a date: what led to it is not there (any more)."""
        if self._has_begun and not self._is_lost:
            detail = "the book that this date begins with follows from no snapshot: rows before it are lost"
            self._damaged("differs", detail, snapshot.last_update_id)
        self._pipeline = self._new_pipeline()
        self._book.take_snapshot(snapshot, row, recv_ns)
        self._is_lost = self._can_recover = False
        self._window_left = WINDOW + 1
        self._flow_lost.append([snapshot.last_update_id, snapshot.last_update_id])

    def _check_book(self, snapshot: BookSnapshot) -> None:
        if (snapshot.bids, snapshot.asks) != self._book.ladder.levels():
            self._damaged(
                "differs", "this date does not begin with the book before it", snapshot.last_update_id
            )

    def _drain(self) -> dict[str, Rows]:
        """Take what follows from the rows since the last call, in order."""
        tables = self._pipeline.tables
        tables.seal_all()
        made, self._at_once = self._at_once, defaultdict(list)
        stored_books, self._stored_books = self._stored_books, []
        books: list[int] = []
        for sealed in tables.take_sealed():
            if sealed.kind.name == "depth":
                books += _books_in(sealed)
            elif sealed.kind.name in ("orderbook", "ofi"):
                of_kind = unpacked(sealed)
                of_kind["seq"] = self._seqs[of_kind["seq"] - self._first_row]
                made[sealed.kind.name].append(of_kind)
        self._pipeline.forget_before(_NO_DAY)
        if not self._is_lost:
            for update_id in sorted(set(books) - set(stored_books)):
                self._damaged("absent", "this date does not begin with the whole book", update_id)
            for update_id in sorted(set(stored_books) - set(books)):
                self._damaged("surplus", "a whole book where no date begins", update_id)
        joined = {}
        for kind, parts in made.items():
            rows = join(parts)
            # Each part is in order; around midnight there are two tables.
            joined[kind] = cut(rows, np.argsort(rows["update_id"], kind="stable"))
        return joined

    def _damaged(self, what: str, detail: str, update_id: int) -> None:
        self._findings.damaged(what, detail, kind="depth", ids=(update_id, update_id), rows=1)


def _within(stretches: list[list[int]], ids: NDArray[np.int64]) -> NDArray[np.bool_]:
    found = np.zeros(len(ids), np.bool_)
    for low, high in stretches:
        found |= (ids >= low) & (ids <= high)
    return found


def unpacked(sealed: Sealed) -> Rows:
    """Turn packed rows into columns."""
    packed = np.frombuffer(sealed.packed(), sealed.kind.dtype, count=sealed.count)
    rows: Rows = {name: np.ascontiguousarray(packed[name]) for name in sealed.kind.dtype.names or ()}
    if "suspect" in rows:
        rows["suspect"] = rows["suspect"] != 0
    marks = np.frombuffer(sealed.marks, np.int64).reshape(-1, 4)
    lengths = np.diff(marks[:, 0], append=sealed.count)
    rows["seq"], rows["recv_ns"] = (np.repeat(marks[:, part], lengths) for part in (1, 2))
    return rows


def _books_in(sealed: Sealed) -> list[int]:
    marks = np.frombuffer(sealed.marks, np.int64).reshape(-1, 4)
    packed = np.frombuffer(sealed.packed(), sealed.kind.dtype, count=sealed.count)
    ids: list[int] = packed["last_update_id"][marks[marks[:, 3] == BOOK, 0]].tolist()
    return ids
