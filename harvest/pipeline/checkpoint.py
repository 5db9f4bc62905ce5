"""The state of the machine as bytes: all that decides the rows to come of one symbol, and no more.

A field that a series gains belongs here, unless it decides no row; a test holds them together. Whoever changes the meaning
of a field, or takes one away, counts ``VERSION`` up; new fields go to the end of their class, with a default.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

import msgspec

from harvest.book.flow import OrderFlowState
from harvest.book.sequence import TradeSequenceState
from harvest.errors import StorageError
from harvest.market import DIFF, IdSpace, Level, StreamBreak

if TYPE_CHECKING:
    from harvest.market import BookDiff

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


class SymbolState(msgspec.Struct, array_like=True):
    """Everything that one symbol of a machine goes on from; None where it has no such series."""

    id_space: IdSpace | None
    trades: TradesState | None
    book: BookState | None


class _Versioned(msgspec.Struct, array_like=True):
    version: int
    state: msgspec.Raw


_encode = msgspec.msgpack.Encoder().encode
_versioned = msgspec.msgpack.Decoder(_Versioned)
_state = msgspec.msgpack.Decoder(SymbolState)


def encode_state(state: SymbolState) -> bytes:
    """Make a checkpoint."""
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
