"""The one state machine: records in, in the order of their ``seq``; rows into the tables, events out.

Synchronous, and without files or clocks: rows are a function of the records, for ``run``, ``ingest``, and whoever replays.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, assert_never

from harvest.errors import MalformedMessageError
from harvest.market import CHANNELS
from harvest.pipeline.breaks import BreakRows
from harvest.pipeline.channels import Channels
from harvest.pipeline.checkpoint import encode_state
from harvest.pipeline.cumulative import CumulativeDelta
from harvest.pipeline.events import Event, Outcome
from harvest.pipeline.messages import Messages
from harvest.pipeline.orderbook import BookSeries
from harvest.pipeline.recorded import RecordedSymbols
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
from harvest.pipeline.trades import TradeSeries
from harvest.storage.kinds import orderbook
from harvest.storage.tables import Tables

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from harvest.market import Channel, IdSpace
    from harvest.metrics import Metrics
    from harvest.pipeline.records import Record
    from harvest.venues.protocol import TradeEvent, Venue

#: Empty tables of dates this many days back are let go; a row that comes for them opens a new one.
DAYS_KEPT = 3
#: Running sums are small, and kept longer: what is stored of them is known as of the run's start.
SUMS_KEPT = 31


class Pipeline:
    """Decodes, sequences, maintains books, and packs rows into ``tables``.

    ``symbols`` are those that are recorded, None all that come (a recording); ``channels`` what is recorded besides.
    ``resume_cvd(symbol, day)`` gives the running sum, in 1e-8, that is stored for a date; None makes no ``cvd``. A gap is one
    when none of several connections has filled it within ``patience_s``.
    """

    def __init__(
        self,
        venue: Venue,
        *,
        metrics: Metrics,
        levels: int,
        max_rows: int,
        max_pending_diffs: int,
        resume_cvd: Callable[[str, int], int] | None,
        symbols: Iterable[str] | None = None,
        id_space: IdSpace | None = None,
        patience_s: float = 0.2,
        channels: Iterable[Channel] = (),
    ) -> None:
        self.venue = venue
        self.metrics = metrics
        self._cumulative = None if resume_cvd is None else CumulativeDelta(resume_cvd)
        self.tables = Tables(max_rows=max_rows, derive=self._cumulative.derive if self._cumulative else None)
        self._levels = levels
        self._orderbook_kind = orderbook(levels)
        self._max_pending_diffs = max_pending_diffs
        self._patience_ns = round(patience_s * 1e9)
        self._events: list[Event] = []
        self._breaks = BreakRows(self.tables, metrics, self._events)
        self._recorded = RecordedSymbols(
            symbols, metrics, make_trades=self._make_trades, make_book=self._make_book
        )
        self._trades, self._books = self._recorded.trades, self._recorded.books
        self._messages = Messages(venue, self._recorded, metrics, self._events, id_space)
        #: What is neither trades nor books.
        self.channels = Channels(
            channels,
            symbols or (),
            (venue, self.tables, metrics, self._breaks),
            is_recorded=self._recorded.accepts,
            on_malformed=self._messages.take_malformed,
        )
        for symbol in symbols or ():
            self._recorded.add_trades(symbol)
            self._recorded.add_book(symbol)

    def feed(self, record: Record) -> Outcome:
        """Take the next record; its rows are in the tables when this returns."""
        data_messages, fetched_to = 0, None
        if isinstance(record, Frames):
            data_messages = self._messages.take(record, self.channels)
            self.channels.delivered(record, data_messages)
        elif isinstance(record, SnapshotBody):
            self._take_snapshot(record)
        elif isinstance(record, AuditBegun | AuditBody):
            self._audit(record)
        elif isinstance(record, TradesBody):
            data_messages, fetched_to = self._take_fetched(record)
        elif isinstance(record, Unserved):
            self._give_up(record)
        elif isinstance(record, ChannelBody):
            self.channels.take_polled(record)
        elif isinstance(record, Opened | Closed | Overload) and record.feed in CHANNELS:
            self.channels.follow(record)
        elif isinstance(record, Opened):
            self._recorded.count_living(record, +1)
        elif isinstance(record, Closed):
            self._recorded.count_living(record, -1)
            self.metrics.heard.pop(record.connection, None)
            if record.reason != "handover":
                self._recorded.interrupt(record)
        elif isinstance(record, Overload):
            self._recorded.interrupt(record)
        elif isinstance(record, Symbols):
            self._recorded.change(record)
            self.channels.change(record)
        elif isinstance(record, Resumed):
            self._recorded.resume_late(record)
        elif isinstance(record, Checkpoint):
            pass  # It says what the records before it have made of this machine, and changes nothing.
        else:
            assert_never(record)
        outcome = Outcome(data_messages, self._events[:], fetched_to)
        self._events.clear()
        return outcome

    @property
    def id_space(self) -> IdSpace | None:
        """Which trade ids are recorded; None where nobody has decided yet."""
        return self._messages.id_space

    def book(self, symbol: str) -> BookSeries | None:
        """Return the book of ``symbol``, if a diff or a snapshot of it was seen."""
        return self._books.get(symbol)

    def resume_trades(self, symbol: str, last_id: int) -> None:
        """Go on after the greatest trade id of ``symbol`` that earlier runs stored; call it before the first record."""
        self._recorded.resume_trades(symbol, last_id)

    def hold_cvd(self) -> None:
        """Make no rows of ``cvd`` until ``go_on_with_cvd``: what is stored of the sums is not known yet."""
        if self._cumulative is not None:
            self._cumulative.hold()

    def go_on_with_cvd(self, resume: Callable[[str, int], int] | None) -> None:
        """Make the rows of ``cvd`` that were held, from these sums on; None makes none any more. Call it between two records."""
        if self._cumulative is not None:
            self.tables.add_sealed(self._cumulative.go_on(resume))

    @property
    def held_bytes(self) -> int:
        """The memory of what is held for ``cvd``, whether it is in files already or not."""
        return 0 if self._cumulative is None else self._cumulative.held_bytes

    def checkpoint(self, symbol: str) -> bytes:
        """Return everything that decides the rows of ``symbol`` to come; call it between two records."""
        return encode_state(self.id_space, self._trades.get(symbol), self._books.get(symbol))

    def resume_cvd(self, symbol: str, day: int, units: int) -> None:
        """Go on from the running sum, in 1e-8, that earlier runs stored of a date, unless this one has its own."""
        if self._cumulative is not None:
            self._cumulative.resume_from(symbol, day, units)

    def last_trade_id(self, symbol: str) -> int | None:
        """Return the greatest trade id of ``symbol`` that was seen, None before the first."""
        series = self._trades.get(symbol)
        return None if series is None or series.sequence.next_id is None else series.sequence.next_id - 1

    def last_update_id(self, symbol: str) -> int | None:
        """Return the last update id of the diffs of ``symbol``, None before the first."""
        series = self._books.get(symbol)
        return None if series is None else series.last_update_id

    def missing_trades(self, symbol: str, from_id: int, to_id: int) -> list[tuple[int, int]]:
        """Return what is still missing between two trade ids, as (from, to), all inclusive, ascending."""
        series = self._recorded.trades_of(symbol)
        return [] if series is None else series.sequence.missing_between(from_id, to_id)

    def forget_before(self, day: int) -> None:
        """Let go of tables and sums of dates before ``day``; call it between two records."""
        self.channels.forget_tables()
        self._recorded.forget_tables()
        self.tables.forget_before(day)
        if self._cumulative is not None:
            self._cumulative.forget_before(day + DAYS_KEPT - SUMS_KEPT)

    def _take_snapshot(self, record: SnapshotBody) -> None:
        series = self._books.get(record.symbol) or self._recorded.add_book(record.symbol)
        if series is None:
            return
        try:
            snapshot = self.venue.decode_snapshot(record.body)
        except MalformedMessageError as error:
            self._messages.take_malformed(error, record)
            series.want_snapshot("malformed")
            return
        series.take_snapshot(snapshot, record.seq, record.recv_ns)

    def _audit(self, record: AuditBegun | AuditBody) -> None:
        series = self._books.get(record.symbol)
        if series is None:
            return
        if isinstance(record, AuditBegun):
            series.audits.begin()
        elif record.body is None:
            series.audits.abandon("no_answer")
        else:
            try:
                snapshot = self.venue.decode_snapshot(record.body)
            except MalformedMessageError as error:
                self._messages.take_malformed(error, record)
                series.audits.abandon("malformed")
                return
            series.audits.take_snapshot(snapshot, record.seq, record.recv_ns)

    def _take_fetched(self, record: TradesBody) -> tuple[int, int | None]:
        series = self._recorded.trades_of(record.symbol)
        if series is None:
            return 0, None
        event: TradeEvent = "aggTrade" if self.id_space == "aggregate" else "trade"
        try:
            trades = self.venue.decode_trades(event, record.symbol, record.body)
        except MalformedMessageError as error:
            self._messages.take_malformed(error, record)
            return 0, None
        stored = series.take_fetched(trades, record.from_id, record.to_id, record.seq, record.recv_ns)
        return stored, trades[-1].trade_id if trades else None

    def _give_up(self, record: Unserved) -> None:
        series = self._recorded.trades_of(record.symbol)
        if series is not None:
            series.give_up(record.from_id, record.to_id, record.reason, record.seq, record.recv_ns)

    def _make_trades(self, symbol: str) -> TradeSeries:
        return TradeSeries(
            symbol,
            tables=self.tables,
            metrics=self.metrics,
            breaks=self._breaks,
            events=self._events,
            patience_ns=self._patience_ns,
        )

    def _make_book(self, symbol: str) -> BookSeries:
        return BookSeries(
            symbol,
            self.venue.depth_rule,
            self._orderbook_kind,
            levels=self._levels,
            tables=self.tables,
            metrics=self.metrics,
            breaks=self._breaks,
            events=self._events,
            max_pending_diffs=self._max_pending_diffs,
            patience_ns=self._patience_ns,
        )
