"""What decides a row: the records that the state machine takes in the order of their ``seq``.

``seq`` is global and goes on across runs. ``recv_ns`` is our UTC receive time, ``mono_ns`` the monotonic clock
at the same moment (for health alone; it decides no row). The order of the fields is that of the journal's entries.
"""

from __future__ import annotations

import msgspec

from harvest.market import Channel, Feed
from harvest.venues.blocks import Block


class Frames(msgspec.Struct, gc=False, array_like=True):
    """The payloads of the whole text frames of one received block, in order, with one receive time."""

    seq: int
    recv_ns: int
    mono_ns: int
    connection: str
    frames: Block


class SnapshotBody(msgspec.Struct, gc=False, array_like=True):
    """The body of a REST depth snapshot of ``symbol``."""

    seq: int
    recv_ns: int
    mono_ns: int
    symbol: str
    body: bytes


class AuditBegun(msgspec.Struct, gc=False, array_like=True):
    """A snapshot of ``symbol`` is about to be asked for, for its book to be held against."""

    seq: int
    recv_ns: int
    mono_ns: int
    symbol: str


class AuditBody(msgspec.Struct, gc=False, array_like=True):
    """The body of that snapshot; None where REST brought none in time."""

    seq: int
    recv_ns: int
    mono_ns: int
    symbol: str
    body: bytes | None


class TradesBody(msgspec.Struct, gc=False, array_like=True):
    """The body of a REST page of trades of ``symbol``, asked for to close the gap ``from_id`` to ``to_id``, inclusive."""

    seq: int
    recv_ns: int
    mono_ns: int
    symbol: str
    from_id: int
    to_id: int
    body: bytes


class Unserved(msgspec.Struct, gc=False, array_like=True):
    """Trades that REST did not bring either, ``from_id`` to ``to_id``, inclusive: ``not_served`` or ``refused``."""

    seq: int
    recv_ns: int
    mono_ns: int
    symbol: str
    from_id: int
    to_id: int
    reason: str


class ChannelBody(msgspec.Struct, gc=False, array_like=True):
    """The body of what a channel polls over REST for ``symbol``, after ``failed`` questions that brought nothing."""

    seq: int
    recv_ns: int
    mono_ns: int
    feed: Channel
    symbol: str
    failed: int
    body: bytes


class Opened(msgspec.Struct, gc=False, array_like=True):
    """A connection is open: what is received on ``connection`` from here on belongs to ``symbols``.

    It comes again for one that is open already and carries more symbols from here on: those alone are named.
    """

    seq: int
    recv_ns: int
    mono_ns: int
    connection: str
    feed: Feed
    symbols: tuple[str, ...]


class Closed(msgspec.Struct, gc=False, array_like=True):
    """A connection has ended. ``reason`` is ``stall``, ``disconnect``, ``own_stall``, ``handover`` or ``shutdown``."""

    seq: int
    recv_ns: int
    mono_ns: int
    connection: str
    feed: Feed
    symbols: tuple[str, ...]
    reason: str


class Overload(msgspec.Struct, gc=False, array_like=True):
    """Frames that were received but not kept, for want of memory, between ``from_ns`` and ``recv_ns``."""

    seq: int
    recv_ns: int
    mono_ns: int
    connection: str
    feed: Feed
    symbols: tuple[str, ...]
    from_ns: int
    lost_frames: int


class Checkpoint(msgspec.Struct, gc=False, array_like=True):
    """The state of ``symbol`` after all records before this one, the ``of`` symbols of a ``round`` one after the other."""

    seq: int
    recv_ns: int
    mono_ns: int
    symbol: str
    round: int
    of: int
    state: bytes


class Symbols(msgspec.Struct, gc=False, array_like=True):
    """Other symbols are recorded from here on.

    ``added`` are those that come new, or again, each with the greatest trade id that earlier runs stored of it (None where
    there is none); ``removed`` are recorded no more.
    """

    seq: int
    recv_ns: int
    mono_ns: int
    added: dict[str, int | None]
    removed: tuple[str, ...]


Body = SnapshotBody | AuditBody | TradesBody | ChannelBody
"""What REST answered."""


class Resumed(msgspec.Struct, gc=False, array_like=True):
    """What earlier runs stored is known only now: ``last_trade_ids`` are the greatest ids of trades, by symbol.

    ``wants_missing`` tells whether what is missing between them and the first of this run is to be asked for; where a recovery
    may still bring some of it, it is not. ``open_gaps`` are ids that earlier runs have left out, which are asked for: from, to,
    both inclusive.
    """

    seq: int
    recv_ns: int
    mono_ns: int
    last_trade_ids: dict[str, int]
    wants_missing: bool
    open_gaps: dict[str, list[tuple[int, int]]] = {}


Record = (
    Frames
    | SnapshotBody
    | AuditBegun
    | AuditBody
    | TradesBody
    | Unserved
    | ChannelBody
    | Opened
    | Closed
    | Overload
    | Checkpoint
    | Symbols
    | Resumed
)
