"""The audits of one book: a fresh snapshot and the diffs around it, until both stand at the same update id."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Protocol

from harvest.book.audit import audit, reach_of
from harvest.book.ladder import Ladder
from harvest.book.sequence import BridgeVerdict, judge_bridge
from harvest.pipeline.events import AuditAbandoned, Audited
from harvest.pipeline.times import to_us
from harvest.storage.kinds import AUDITS, UNKNOWN, WS
from harvest.storage.tables import DAY_US

if TYPE_CHECKING:
    from harvest.book.audit import BookAudit, Reach
    from harvest.market import BookDiff, BookSnapshot
    from harvest.metrics import Metrics
    from harvest.pipeline.events import Event
    from harvest.storage.tables import Tables
    from harvest.venues.protocol import DepthRule

#: Diffs that are kept while a snapshot is on its way: of more than three minutes at the usual 100 ms.
MAX_DIFFS = 2_000


class AuditedBook(Protocol):
    """The book that is audited: ``BookSeries``."""

    symbol: str
    #: The update id that it stands at.
    book_id: int
    #: That of the snapshot that it began with.
    reach: Reach

    @property
    def ladder(self) -> Ladder:
        """Its levels."""
        ...

    @property
    def is_settled(self) -> bool:
        """Tell whether it is in sync, and a diff has continued the snapshot it began with."""
        ...

    def doubt(self) -> None:
        """Take the book for stale."""
        ...


class BookAudits:
    """Audits one book, one at a time; ``pending`` tells whether diffs are wanted.

    From ``begin`` on it keeps the diffs that the book took. What of them the snapshot does not hold is applied to it, so that
    it is compared at the very update id of the book, whichever of the two was newer. No ``depth`` row is made of it.
    """

    def __init__(
        self, book: AuditedBook, rule: DepthRule, *, tables: Tables, metrics: Metrics, events: list[Event]
    ) -> None:
        self.pending = False
        self._book = book
        self._rule: DepthRule = rule
        self._tables = tables
        self._metrics = metrics
        self._events = events
        self._diffs: deque[BookDiff] = deque(maxlen=MAX_DIFFS)
        self._snapshot: BookSnapshot | None = None
        self._event_us = UNKNOWN

    def begin(self) -> None:
        """Keep what the book takes from here on, for a snapshot is about to be asked for."""
        self._stop()
        self.pending = True
        if not self._book.is_settled:
            self.abandon("not_in_sync")

    def abandon(self, why: str) -> None:
        """Give up the audit that is pending, if one is, and say ``why``."""
        if self.pending:
            self._stop()
            self._metrics.audits["abandoned"] += 1
            self._events.append(AuditAbandoned(self._book.symbol, why))

    def take_snapshot(self, snapshot: BookSnapshot, seq: int, recv_ns: int) -> None:
        """Hold the book against the snapshot that was asked for, now or as soon as the book has got there."""
        if self.pending:
            self._snapshot = snapshot
            self._compare(snapshot, seq, recv_ns)

    def follow(self, diff: BookDiff, seq: int, recv_ns: int) -> None:
        """Take a diff that the book has just taken, and whose rows are there."""
        self._diffs.append(diff)
        self._event_us = to_us(diff.event_time)
        if self._snapshot is not None:
            self._compare(self._snapshot, seq, recv_ns)

    def _compare(self, snapshot: BookSnapshot, seq: int, recv_ns: int) -> None:
        book, diffs = self._book, self._diffs
        snapshot_id = snapshot.last_update_id
        while diffs and self._judge(snapshot_id, diffs[0]) is BridgeVerdict.STALE:
            diffs.popleft()
        if not diffs and book.book_id < snapshot_id:
            # The book is yet to get there.
            return
        bridges = self._judge(snapshot_id, diffs[0]) is BridgeVerdict.BRIDGES if diffs else False
        if not bridges and book.book_id != snapshot_id:
            self.abandon("too_old")
            return
        venue = Ladder()
        venue.replace(snapshot.bids, snapshot.asks)
        for diff in diffs:
            venue.apply(diff.bids, diff.asks)
        covered = reach_of(snapshot.bids, snapshot.asks)
        found = audit(book.ladder, venue, known=book.reach, covered=covered)
        self._add_row(found, snapshot_id, seq, recv_ns)
        self._stop()
        if found.drifted:
            book.doubt()

    def _add_row(self, found: BookAudit, snapshot_id: int, seq: int, recv_ns: int) -> None:
        book_id, symbol = self._book.book_id, self._book.symbol
        bids, asks = found.bids, found.asks
        event_us = self._event_us
        day = (recv_ns // 1000 if event_us == UNKNOWN else event_us) // DAY_US
        table = self._tables.table(AUDITS, symbol, day)
        table.mark(seq, recv_ns, WS)
        table.rows += AUDITS.packer.pack(
            event_us,
            book_id,
            snapshot_id,
            bids.compared,
            asks.compared,
            bids.differing,
            asks.differing,
            found.max_drift,
            found.best_differs,
            found.drifted,
            bids.unknown,
            asks.unknown,
            bids.beyond,
            asks.beyond,
            found.partial,
        )
        table.count += 1
        self._metrics.rows[AUDITS.name, symbol] += 1
        self._metrics.audits["drift" if found.drifted else "in_sync"] += 1
        self._events.append(
            Audited(
                symbol,
                book_id,
                bids.compared + asks.compared,
                found.differing,
                found.max_drift,
                found.best_differs,
            )
        )

    def _judge(self, snapshot_id: int, diff: BookDiff) -> BridgeVerdict:
        return judge_bridge(
            self._rule, snapshot_id, diff.first_update_id, diff.last_update_id, diff.prev_update_id
        )

    def _stop(self) -> None:
        self.pending = False
        self._snapshot = None
        self._diffs.clear()
        self._event_us = UNKNOWN
