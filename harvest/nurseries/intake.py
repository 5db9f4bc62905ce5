"""The intake: where everything that was received becomes a record, and goes through the state machine at once.

It runs inside the receive path and therefore never waits. When the buffers hold as much as they may, frames are counted and
let go, and the loss is a record of its own: the one thing worse than losing data is not knowing it.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import msgspec

from harvest.log import get_logger
from harvest.nurseries.tags import TAGS
from harvest.pipeline.events import (
    AuditAbandoned,
    Audited,
    BreakFound,
    Malformed,
    Outcome,
    SnapshotWanted,
    TradesWanted,
)
from harvest.pipeline.records import (
    AuditBegun,
    AuditBody,
    ChannelBody,
    Checkpoint,
    Closed,
    Frames,
    Opened,
    Overload,
    Resumed,
    SnapshotBody,
    Symbols,
    TradesBody,
    Unserved,
)
from harvest.venues.blocks import payloads

if TYPE_CHECKING:
    from collections.abc import Callable

    from structlog.stdlib import BoundLogger

    from harvest.market import Channel, Feed
    from harvest.pipeline.machine import Pipeline
    from harvest.pipeline.records import Record
    from harvest.storage.quarantine import Quarantine
    from harvest.venues.blocks import Block

_LOGS: dict[Feed, BoundLogger] = {feed: get_logger(*TAGS[feed]) for feed in TAGS}
_overload_log = get_logger("OVERLOAD")

#: The buffers' size is asked for once in so many blocks: it is a sum over all tables.
BLOCKS_PER_MEASURE = 64


class Intake:
    """Stamps records with their ``seq``, in one order for all connections, and feeds them to the pipeline.

    Each record goes to ``journal``, if there is one, before the pipeline makes rows of it. ``buffered_bytes`` says what
    waits in memory, ``want_snapshot`` asks for a book, ``want_trades`` for the trades between two ids, both inclusive;
    ``audited`` hears what came of each audit. All must return at once.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        *,
        next_seq: int,
        quarantine: Quarantine,
        max_buffered_bytes: int,
        buffered_bytes: Callable[[], int],
        want_snapshot: Callable[[str], None],
        want_trades: Callable[[str, int, int], None],
        audited: Callable[[Audited | AuditAbandoned], None] = lambda _result: None,
        journal: Callable[[Record], None] | None = None,
    ) -> None:
        self.next_seq = next_seq
        self._pipeline = pipeline
        self._quarantine = quarantine
        self._max_buffered_bytes = max_buffered_bytes
        self._buffered_bytes = buffered_bytes
        self._want_snapshot = want_snapshot
        self._want_trades = want_trades
        self._audited = audited
        self._journal = journal
        self._blocks = 0
        self._overloaded = False
        self._lost: dict[str, tuple[int, int]] = {}

    def frames(self, connection: Opened, frames: Block, recv_ns: int, mono_ns: int) -> Outcome:
        """Take the frames of one block of ``connection``; returns what the stream must know of them."""
        self._blocks += 1
        if self._blocks % BLOCKS_PER_MEASURE == 0:
            self._measure()
        if self._overloaded:
            return self._let_go(connection, frames, recv_ns, mono_ns)
        if self._lost:
            self._record_loss(connection, recv_ns, mono_ns)
        return self._feed(Frames(self._take_seq(), recv_ns, mono_ns, connection.connection, frames))

    def opened(self, connection: str, feed: Feed, symbols: tuple[str, ...]) -> Opened:
        """Record that a connection is open; the record names it from here on."""
        record = Opened(self._take_seq(), time.time_ns(), time.monotonic_ns(), connection, feed, symbols)
        self._feed(record)
        return record

    def closed(self, connection: Opened, reason: str) -> None:
        """Record that a connection has ended, and why; before that, what was let go of it."""
        self._record_loss(connection, time.time_ns(), time.monotonic_ns())
        self._feed(
            Closed(
                self._take_seq(),
                time.time_ns(),
                time.monotonic_ns(),
                connection.connection,
                connection.feed,
                connection.symbols,
                reason,
            )
        )

    def snapshot(self, symbol: str, body: bytes) -> Outcome:
        """Record the body of a REST snapshot."""
        return self._feed(SnapshotBody(self._take_seq(), time.time_ns(), time.monotonic_ns(), symbol, body))

    def begin_audit(self, symbol: str) -> None:
        """Record that a snapshot is about to be asked for, to hold the book of ``symbol`` against it."""
        self._feed(AuditBegun(self._take_seq(), time.time_ns(), time.monotonic_ns(), symbol))

    def audit_body(self, symbol: str, body: bytes | None) -> None:
        """Record the body of that snapshot, or that there is none."""
        self._feed(AuditBody(self._take_seq(), time.time_ns(), time.monotonic_ns(), symbol, body))

    def fetched_trades(self, symbol: str, from_id: int, to_id: int, body: bytes) -> Outcome:
        """Record a page of trades that was fetched to close the gap ``from_id`` to ``to_id``."""
        return self._feed(
            TradesBody(self._take_seq(), time.time_ns(), time.monotonic_ns(), symbol, from_id, to_id, body)
        )

    def unserved(self, symbol: str, from_id: int, to_id: int, reason: str) -> Outcome:
        """Record that what is still missing between two ids is not to be had."""
        return self._feed(
            Unserved(self._take_seq(), time.time_ns(), time.monotonic_ns(), symbol, from_id, to_id, reason)
        )

    def polled(self, feed: Channel, symbol: str, failed: int, body: bytes) -> Outcome:
        """Record what a channel was asked for over REST, after ``failed`` questions that brought nothing."""
        now_ns, mono_ns = time.time_ns(), time.monotonic_ns()
        return self._feed(ChannelBody(self._take_seq(), now_ns, mono_ns, feed, symbol, failed, body))

    def carries(self, connection: Opened, symbols: tuple[str, ...]) -> Opened:
        """Record that an open connection carries ``symbols`` from here on; returns its record as it now stands."""
        if new := tuple(symbol for symbol in symbols if symbol not in connection.symbols):
            self.opened(connection.connection, connection.feed, new)
        return msgspec.structs.replace(connection, symbols=symbols)

    def change_symbols(self, added: dict[str, int | None], removed: tuple[str, ...]) -> Outcome:
        """Record that other symbols are recorded from here on; ``added`` with their greatest stored trade ids."""
        return self._feed(Symbols(self._take_seq(), time.time_ns(), time.monotonic_ns(), added, removed))

    def _let_go(self, connection: Opened, frames: Block, recv_ns: int, mono_ns: int) -> Outcome:
        """Count the market data of a block as lost; answers and notices take no memory, and are heard."""
        is_market_data = self._pipeline.venue.is_market_data
        every = payloads(frames)
        kept = [frame for frame in every if not is_market_data(frame)]
        lost = len(every) - len(kept)
        outcome = Outcome()
        if kept:
            outcome = self._feed(Frames(self._take_seq(), recv_ns, mono_ns, connection.connection, kept))
        if lost:
            from_ns, before = self._lost.get(connection.connection, (recv_ns, 0))
            self._lost[connection.connection] = (from_ns, before + lost)
            self._pipeline.metrics.overload_frames += lost
            outcome.data_messages += lost
            outcome.unread = True
        return outcome

    def resumed(
        self,
        last_trade_ids: dict[str, int],
        *,
        wants_missing: bool,
        open_gaps: dict[str, list[tuple[int, int]]] | None = None,
    ) -> Outcome:
        """Record what earlier runs stored, where that was not known before the first record, and what they have left out."""
        now_ns, mono_ns = time.time_ns(), time.monotonic_ns()
        return self._feed(
            Resumed(self._take_seq(), now_ns, mono_ns, last_trade_ids, wants_missing, open_gaps or {})
        )

    def checkpoint(self, symbol: str, number: int, of: int) -> int:
        """Record the state of ``symbol``, one of ``of`` in the round ``number`` of checkpoints; returns its ``seq``."""
        state = self._pipeline.checkpoint(symbol)
        seq = self._take_seq()
        self._feed(Checkpoint(seq, time.time_ns(), time.monotonic_ns(), symbol, number, of, state))
        return seq

    def _record_loss(self, connection: Opened, recv_ns: int, mono_ns: int) -> None:
        """Record what was let go of ``connection``, if anything was."""
        name = connection.connection
        if name not in self._lost:
            return
        from_ns, lost = self._lost.pop(name)
        self._feed(
            Overload(
                self._take_seq(),
                recv_ns,
                mono_ns,
                name,
                connection.feed,
                connection.symbols,
                from_ns,
                lost,
            )
        )

    def _take_seq(self) -> int:
        seq = self.next_seq
        self.next_seq = seq + 1
        return seq

    def _feed(self, record: Record) -> Outcome:
        if self._journal is not None:
            self._journal(record)
        outcome = self._pipeline.feed(record)
        for event in outcome.events:
            if isinstance(event, SnapshotWanted):
                self._want_snapshot(event.symbol)
            elif isinstance(event, TradesWanted):
                self._want_trades(event.symbol, event.from_id, event.to_id)
            elif isinstance(event, Audited | AuditAbandoned):
                self._audited(event)
            elif isinstance(event, Malformed):
                self._quarantine.add(event.recv_ns, event.connection, event.why, event.raw)
            elif isinstance(event, BreakFound):
                ids = "" if event.to_id is None else f": ids {event.from_id} to {event.to_id}"
                _LOGS[event.feed].warning(
                    f"{event.symbol} {event.feed} break ({event.reason}){ids}",
                    symbol=event.symbol,
                    reason=event.reason,
                    from_id=event.from_id,
                    to_id=event.to_id,
                )
        return outcome

    def _measure(self) -> None:
        buffered = self._buffered_bytes()
        over = buffered > self._max_buffered_bytes
        if over and not self._overloaded:
            _overload_log.error(
                f"{buffered / 2**20:.0f} MiB wait to be written, the limit is "
                f"{self._max_buffered_bytes / 2**20:.0f} MiB: frames are let go and recorded as lost until the disk "
                f"has caught up"
            )
        elif self._overloaded and not over:
            _overload_log.warning("the disk has caught up; recording goes on")
        self._overloaded = over
