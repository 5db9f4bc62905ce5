"""The order book of one instrument: every diff a ``depth`` row, and what follows from the book at each.

The chain of diffs is one thing (does one follow the other?), the book's agreement with a snapshot another. After a gap
the stale book goes on, its rows suspect, until a snapshot replaces it.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import numpy as np

from harvest.book.audit import NO_REACH, reach_of
from harvest.book.book import Book
from harvest.book.flow import LEVELS as FLOW_LEVELS
from harvest.book.sequence import BridgeVerdict, ChainVerdict, DepthChain, judge_bridge
from harvest.market import StreamBreak
from harvest.pipeline.audits import BookAudits
from harvest.pipeline.book_rows import BookRows, best_of
from harvest.pipeline.book_runs import PlainRun
from harvest.pipeline.events import SnapshotWanted
from harvest.pipeline.times import to_us
from harvest.storage.kinds import BOOK, REST, UNKNOWN, WS
from harvest.storage.tables import DAY_US

if TYPE_CHECKING:
    from harvest.book.ladder import Ladder
    from harvest.market import BookDiff, BookSnapshot, DiffRun
    from harvest.metrics import FeedStats, Metrics
    from harvest.pipeline.breaks import BreakRows
    from harvest.pipeline.events import Event
    from harvest.storage.kinds import Kind
    from harvest.storage.tables import Tables
    from harvest.venues.protocol import DepthRule

#: Diffs that wait for another connection; more than that is no matter of order any more.
MAX_HELD = 1000


class BookSeries:
    """Rows of kinds ``depth``, ``orderbook`` and ``ofi`` of one symbol."""

    def __init__(
        self,
        symbol: str,
        rule: DepthRule,
        orderbook_kind: Kind,
        *,
        levels: int,
        tables: Tables,
        metrics: Metrics,
        breaks: BreakRows,
        events: list[Event],
        max_pending_diffs: int,
        patience_ns: int,
    ) -> None:
        self.symbol = symbol
        self.book = Book()
        self.stats: FeedStats = metrics.feed("orderbook", symbol)
        self._rule: DepthRule = rule
        self._chain = DepthChain(rule)
        self._snapshot_id = 0
        #: The id that the book stands at.
        self.book_id = 0
        self._top_levels = max(levels, FLOW_LEVELS)
        self._rows = BookRows(symbol, orderbook_kind, levels, tables)
        self._breaks = breaks
        self._events = events
        self.audits = BookAudits(self, rule, tables=tables, metrics=metrics, events=events)
        #: What the snapshot that the book began with speaks of.
        self.reach = NO_REACH
        #: Diffs since the book was last in agreement, to be applied on top of the snapshot that comes.
        self._pending: deque[BookDiff] = deque(maxlen=max_pending_diffs)
        self._has_book = False
        #: A snapshot was applied, and no diff has followed it yet.
        self._awaits_bridge = False
        self._interruption: tuple[str, int | None] | None = None
        #: Connections that bring this book now. Where there is another, it may bring what this one lacks.
        self.living = 0
        self._patience_ns = patience_ns
        #: Diffs beyond a gap that another connection may still fill, with their receive times.
        self._held: deque[tuple[BookDiff, int]] = deque()
        #: Dates whose ``depth`` holds the whole book as of its last snapshot or later.
        self._book_days: set[int] = set()
        #: The date of that snapshot, if no diff has followed it yet.
        self._snapshot_day: int | None = None

    @property
    def ladder(self) -> Ladder:
        """The levels."""
        return self.book.ladder

    @property
    def last_update_id(self) -> int | None:
        """The last id of the diffs, None before the first."""
        return self._chain.last_update_id

    @property
    def in_sync(self) -> bool:
        """Tell whether the book agrees with the venue's, as far as ids can tell."""
        return self.stats.in_sync

    @property
    def is_settled(self) -> bool:
        """Tell whether it is in sync, and a diff has continued the snapshot it began with."""
        return self.in_sync and not self._awaits_bridge

    def interrupt(self, reason: str) -> None:
        """Note why diffs may be missing from here on: a connection ended, or an overload."""
        last_id = self._chain.last_update_id
        # The first cause stands until something is received again.
        if self._interruption is None or self._interruption[1] != last_id:
            self._interruption = (reason, last_id)

    def forget_tables(self) -> None:
        """Let go of the open tables: the next row looks them up anew."""
        self._rows.forget_tables()

    def want_snapshot(self, why: str) -> None:
        """Ask the caller for a snapshot."""
        self._events.append(SnapshotWanted(self.symbol, why))

    def take(self, diff: BookDiff, seq: int, recv_ns: int, mono_ns: int) -> None:
        """Take one diff of the record ``seq``: its ``depth`` row, and what follows from the book."""
        self.stats.last_mono_ns = mono_ns
        if self.living > 1 or self._held:
            self._take_of_several(diff, seq, recv_ns)
        else:
            self._accept(diff, seq, recv_ns)

    def take_run(self, run: DiffRun, seq: int, recv_ns: int, mono_ns: int) -> bool:
        """Take the diffs of a run all at once; False, and nothing is taken, where they are to be taken one by one."""
        if self.living > 1 or self._held or self.audits.pending or not self.is_settled:
            return False
        plain, rows, stats = PlainRun.of(run), self._rows, self.stats
        if plain is None or plain.day != rows.day or plain.day not in self._book_days:
            return False
        if not self._chain.goes_on_with(run.first_update_id, run.last_update_id, run.prev_update_id):
            return False
        followed = self.book.follow(plain.bids, plain.asks, self._top_levels)
        if followed is None:
            return False
        self.book_id = self._chain.last_update_id = int(run.last_update_id[-1])
        rows.add_run(plain, followed, seq, recv_ns)
        stats.last_mono_ns, stats.last_recv_ns = mono_ns, recv_ns
        stats.stored += len(run.event_time)
        stats.crossed += int(np.count_nonzero(followed.bid_px[:, 0] >= followed.ask_px[:, 0]))
        return True

    def _take_of_several(self, diff: BookDiff, seq: int, recv_ns: int) -> None:
        """Take a diff, or hold it where another connection may bring what is missing before it."""
        self.settle(seq, recv_ns)
        held = self._held
        has_gap = self.living > 1 and self._chain.has_gap_before(diff.first_update_id, diff.prev_update_id)
        if has_gap and len(held) < MAX_HELD:
            held.append((diff, recv_ns))
            return
        self._accept(diff, seq, recv_ns)
        while held and not self._chain.has_gap_before(held[0][0].first_update_id, held[0][0].prev_update_id):
            self._accept_held(*held.popleft(), seq)

    def settle(self, seq: int, recv_ns: int) -> None:
        """Take what is held if nobody is left to fill the gap before it, or it has been held for long enough."""
        held = self._held
        if held and (self.living < 2 or recv_ns - held[0][1] > self._patience_ns):
            self._release(seq)

    def _release(self, seq: int) -> None:
        """Give up waiting for another connection: what is held is taken as it is."""
        held = sorted(self._held, key=lambda one: one[0].last_update_id)
        self._held.clear()
        for diff, recv_ns in held:
            self._accept_held(diff, recv_ns, seq)

    def _accept_held(self, diff: BookDiff, recv_ns: int, seq: int) -> None:
        """Take a diff that came before the record ``seq``, with the receive time that is its own."""
        self._rows.unmark()
        self._accept(diff, seq, recv_ns)
        self._rows.unmark()

    def _accept(self, diff: BookDiff, seq: int, recv_ns: int) -> None:
        stats = self.stats
        before = self._chain.last_update_id
        verdict = self._chain.accept(diff.first_update_id, diff.last_update_id, diff.prev_update_id)
        if verdict is ChainVerdict.DUPLICATE:
            stats.duplicates += 1
            return
        if verdict is ChainVerdict.GAP:
            self._record_gap(before, seq, recv_ns)
        elif verdict is ChainVerdict.FIRST and not self._has_book:
            self.want_snapshot("start")
        stats.last_recv_ns = recv_ns
        rows, bids, asks = self._rows, diff.bids, diff.asks
        event_us = to_us(diff.event_time)
        trade_us = UNKNOWN if diff.trade_time is None else to_us(diff.trade_time)
        day = event_us // DAY_US
        if day != rows.day:
            rows.turn_to(day)
        if stats.in_sync and day not in self._book_days:
            self._begin_date(day, event_us, seq, recv_ns)
        prev = diff.prev_update_id
        row = (
            event_us,
            trade_us,
            diff.first_update_id,
            diff.last_update_id,
            UNKNOWN if prev is None else prev,
            False,
        )
        rows.add_depth(row, bids, asks, seq, recv_ns, WS)
        stats.stored += 1
        if self._awaits_bridge and not self._bridge(diff):
            return
        if not stats.in_sync:
            self._pending.append(diff)
        if self._has_book:
            ladder = self.ladder
            ladder.apply(bids, asks)
            self.book_id = diff.last_update_id
            tops = ladder.top(self._top_levels)
            stats.suspect_rows += not stats.in_sync
            stats.crossed += tops[0][0] >= tops[2][0]
            best = tops if self._top_levels == FLOW_LEVELS else best_of(tops, FLOW_LEVELS)
            flow = self.book.flow.update(*best)
            rows.add_tops(
                event_us, diff.last_update_id, tops, flow, suspect=not stats.in_sync, seq=seq, recv_ns=recv_ns
            )
            if self.audits.pending:
                self.audits.follow(diff, seq, recv_ns)

    def take_snapshot(self, snapshot: BookSnapshot, seq: int, recv_ns: int) -> None:
        """Take a snapshot: always a ``depth`` row; a new book only where the book is not in agreement."""
        event_us = UNKNOWN if snapshot.event_time is None else to_us(snapshot.event_time)
        trade_us = UNKNOWN if snapshot.trade_time is None else to_us(snapshot.trade_time)
        day = (recv_ns // 1000 if event_us == UNKNOWN else event_us) // DAY_US
        last_update_id = snapshot.last_update_id
        row = (event_us, trade_us, UNKNOWN, last_update_id, UNKNOWN, True)
        self._rows.add_depth_of(day, row, snapshot.bids, snapshot.asks, seq, recv_ns, REST)
        if self.is_settled:
            return
        self._snapshot_id = last_update_id
        pending = self._pending
        while pending and self._judge(pending[0]) is BridgeVerdict.STALE:
            pending.popleft()
        if pending and self._judge(pending[0]) is BridgeVerdict.SNAPSHOT_TOO_OLD:
            self.want_snapshot("too_old")
            return
        self._awaits_bridge = not pending
        # With diffs of another date to apply, it is not the whole book for whoever reads its own date alone.
        is_whole = not pending or to_us(pending[0].event_time) // DAY_US == day
        self._book_days.clear()
        self._snapshot_day = day if is_whole else None
        self.ladder.replace(snapshot.bids, snapshot.asks)
        self.reach = reach_of(snapshot.bids, snapshot.asks)
        self.book_id = last_update_id
        for diff in pending:
            self.ladder.apply(diff.bids, diff.asks)
            self.book_id = diff.last_update_id
        pending.clear()
        self.book.flow.reset()
        self._has_book = True
        self.stats.in_sync = True
        self.stats.resyncs += 1

    def doubt(self) -> None:
        """Take the book for stale, as after a gap: an audit has found that it drifted."""
        self._pending.clear()
        self.stats.in_sync = False
        self.want_snapshot("drift")

    def _judge(self, diff: BookDiff) -> BridgeVerdict:
        return judge_bridge(
            self._rule, self._snapshot_id, diff.first_update_id, diff.last_update_id, diff.prev_update_id
        )

    def _bridge(self, diff: BookDiff) -> bool:
        """Judge the first diff after a snapshot; returns whether it has any bearing on the book."""
        verdict = self._judge(diff)
        if verdict is BridgeVerdict.STALE:
            return False
        self._awaits_bridge = False
        if verdict is BridgeVerdict.SNAPSHOT_TOO_OLD:
            self.stats.in_sync = False
            self.want_snapshot("too_old")
        return True

    def _record_gap(self, before: int | None, seq: int, recv_ns: int) -> None:
        stats = self.stats
        # An interruption explains a gap only if nothing was received since.
        reason = "gap"
        if self._interruption is not None and self._interruption[1] == before:
            reason = self._interruption[0]
        from_id, to_id = self._chain.gap
        stats.gaps += 1
        if self._rule == "spot":
            stats.missing_ids += to_id - from_id - 1
        from_ns = stats.last_recv_ns
        if from_ns is not None:
            # A diff that was held came before those that another connection brought meanwhile.
            from_ns = min(from_ns, recv_ns)
        found = StreamBreak(self.symbol, "orderbook", reason, from_id, to_id, from_ns, recv_ns)
        self._breaks.add(found, seq)
        self._pending.clear()
        self._awaits_bridge = False
        self.audits.abandon("gap")
        stats.in_sync = False
        self.want_snapshot("gap")

    def _begin_date(self, day: int, event_us: int, seq: int, recv_ns: int) -> None:
        """Begin a date with the whole book, so that it can be rebuilt alone."""
        self._book_days.add(day)
        has_snapshot = day == self._snapshot_day
        self._snapshot_day = None
        if has_snapshot:
            # The venue's own stands right before this diff.
            return
        bids, asks = self.ladder.levels()
        row = (event_us, UNKNOWN, UNKNOWN, self.book_id, UNKNOWN, True)
        self._rows.add_depth(row, bids, asks, seq, recv_ns, BOOK)
