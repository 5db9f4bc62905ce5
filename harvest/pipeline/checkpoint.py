"""The state of the machine as bytes: all that decides the rows to come of one symbol, and no more.

A field that a series gains belongs here, unless it decides no row; a test holds them together. Whoever changes the meaning
of a field, or takes one away, counts ``VERSION`` up; new fields go to the end of their class, with a default.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, ClassVar, Literal

import msgspec

from harvest.book.audit import Reach
from harvest.book.flow import OrderFlowState
from harvest.book.sequence import TradeSequenceState
from harvest.errors import StorageError
from harvest.market import DIFF, BookSnapshot, IdSpace, Level, StreamBreak

if TYPE_CHECKING:
    from harvest.market import BookDiff
    from harvest.pipeline.orderbook import BookSeries
    from harvest.pipeline.trades import TradeSeries

VERSION = 1


class CheckpointError(StorageError):
    """A checkpoint that this version of harvest cannot go on from."""

    def __init__(self, symbol: str, why: str) -> None:
        self.symbol, self.why = symbol, why
        super().__init__(
            f"the checkpoint of {symbol} cannot be used: {why}; use the version of harvest that wrote it"
        )


class KeptDiff(msgspec.Struct, array_like=True, gc=False):
    """A diff that waits, with what the decoder gave of it."""

    shape: ClassVar[Literal[1]] = DIFF
    symbol: str
    first_update_id: int
    last_update_id: int
    prev_update_id: int | None
    bids: list[Level]
    asks: list[Level]
    event_time: int
    trade_time: int | None

    @classmethod
    def of(cls, diff: BookDiff) -> KeptDiff:
        """Keep a diff of any venue; its levels are not copied."""
        return cls(
            diff.symbol,
            diff.first_update_id,
            diff.last_update_id,
            diff.prev_update_id,
            diff.bids,
            diff.asks,
            diff.event_time,
            diff.trade_time,
        )


class TradesState(msgspec.Struct, array_like=True):
    """Everything that a ``TradeSeries`` goes on from."""

    sequence: TradeSequenceState
    interruption: tuple[str, int | None] | None
    living: int
    doubtful: list[tuple[StreamBreak, int]]
    last_recv_ns: int | None


class AuditState(msgspec.Struct, array_like=True):
    """Everything that an audit which is pending goes on from."""

    diffs: list[KeptDiff]
    snapshot: BookSnapshot | None
    event_us: int


class BookState(msgspec.Struct, array_like=True):
    """Everything that a ``BookSeries`` goes on from. ``bids`` and ``asks`` are as ``Ladder.pack`` gives them."""

    bids: bytes
    asks: bytes
    last_update_id: int | None
    snapshot_id: int
    book_id: int
    flow: OrderFlowState
    pending: list[KeptDiff]
    has_book: bool
    awaits_bridge: bool
    interruption: tuple[str, int | None] | None
    living: int
    held: list[tuple[KeptDiff, int]]
    book_days: list[int]
    snapshot_day: int | None
    in_sync: bool
    last_recv_ns: int | None
    #: Of the snapshot that it began with: lowest bid, highest ask.
    reach: tuple[float, float]
    audit: AuditState | None


class SymbolState(msgspec.Struct, array_like=True):
    """Everything that one symbol of a machine goes on from; None where it has no such series."""

    id_space: IdSpace | None
    trades: TradesState | None
    book: BookState | None


class _Versioned(msgspec.Struct, array_like=True):
    version: int
    state: msgspec.Raw


def trades_state(series: TradeSeries) -> TradesState:
    """Return everything that decides the rows of a series to come, as of between two records."""
    return TradesState(
        series.sequence.state(),
        series._interruption,
        series.living,
        list(series._doubtful),
        series.stats.last_recv_ns,
    )


def restore_trades(series: TradeSeries, state: TradesState) -> None:
    """Let a new series go on from a state, which becomes its own."""
    series.sequence.restore(state.sequence)
    series._interruption, series.living = state.interruption, state.living
    series._doubtful = deque(state.doubtful)
    series.stats.last_recv_ns = state.last_recv_ns


def book_state(series: BookSeries) -> BookState:
    """Return everything that decides the rows of a series to come, as of between two records."""
    bids, asks = series.book.ladder.pack()
    audits = series.audits
    return BookState(
        bids=bids,
        asks=asks,
        last_update_id=series.last_update_id,
        snapshot_id=series._snapshot_id,
        book_id=series.book_id,
        flow=series.book.flow.state(),
        pending=[KeptDiff.of(diff) for diff in series._pending],
        has_book=series._has_book,
        awaits_bridge=series._awaits_bridge,
        interruption=series._interruption,
        living=series.living,
        held=[(KeptDiff.of(diff), recv_ns) for diff, recv_ns in series._held],
        book_days=list(series._book_days),
        snapshot_day=series._snapshot_day,
        in_sync=series.stats.in_sync,
        last_recv_ns=series.stats.last_recv_ns,
        reach=(series.reach.lowest_bid, series.reach.highest_ask),
        audit=AuditState([KeptDiff.of(diff) for diff in audits._diffs], audits._snapshot, audits._event_us)
        if audits.pending
        else None,
    )


def restore_book(series: BookSeries, state: BookState) -> None:
    """Let a new series go on from a state, which becomes its own."""
    series.book.ladder.unpack(state.bids, state.asks)
    series._chain.last_update_id = state.last_update_id
    series._snapshot_id, series.book_id = state.snapshot_id, state.book_id
    series.book.flow.restore(state.flow)
    series._pending = deque(state.pending, maxlen=series._pending.maxlen)
    series._has_book, series._awaits_bridge = state.has_book, state.awaits_bridge
    series._interruption, series.living = state.interruption, state.living
    series._held = deque(state.held)
    series._book_days, series._snapshot_day = set(state.book_days), state.snapshot_day
    series.stats.in_sync, series.stats.last_recv_ns = state.in_sync, state.last_recv_ns
    series.reach = Reach(*state.reach)
    if state.audit is not None:
        audits = series.audits
        audits.pending = True
        audits._diffs = deque(state.audit.diffs, maxlen=audits._diffs.maxlen)
        audits._snapshot, audits._event_us = state.audit.snapshot, state.audit.event_us


_encode = msgspec.msgpack.Encoder().encode
_versioned = msgspec.msgpack.Decoder(_Versioned)
_state = msgspec.msgpack.Decoder(SymbolState)


def encode_state(id_space: IdSpace | None, trades: TradeSeries | None, book: BookSeries | None) -> bytes:
    """Make a checkpoint of one symbol's series, None where there is none."""
    state = SymbolState(
        id_space,
        None if trades is None else trades_state(trades),
        None if book is None else book_state(book),
    )
    return _encode((VERSION, state))


def decode_state(symbol: str, checkpoint: bytes) -> SymbolState:
    """Undo ``encode_state``.

    Raises:
        CheckpointError: it has another version, or is damaged.
    """
    try:
        versioned = _versioned.decode(checkpoint)
        if versioned.version == VERSION:
            return _state.decode(versioned.state)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise CheckpointError(symbol, f"it is damaged ({error})") from error
    raise CheckpointError(symbol, f"its version is {versioned.version}, and this harvest knows {VERSION}")
