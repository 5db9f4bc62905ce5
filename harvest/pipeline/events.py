"""What the state machine asks of its caller, or tells it, besides the rows."""

from __future__ import annotations

import msgspec

from harvest.market import Feed
from harvest.venues.protocol import Acknowledgement, Refusal, ShutdownNotice


class SnapshotWanted(msgspec.Struct, frozen=True):
    """The book of ``symbol`` needs a snapshot; ``why``: ``start``, ``gap``, ``too_old``, ``malformed``, ``drift``."""

    symbol: str
    why: str


class TradesWanted(msgspec.Struct, frozen=True):
    """The trades ``from_id`` to ``to_id``, both inclusive, of ``symbol`` are missing, and may be had over REST."""

    symbol: str
    from_id: int
    to_id: int


class Malformed(msgspec.Struct, frozen=True):
    """A message that could not be decoded, kept for inspection."""

    connection: str
    recv_ns: int
    why: str
    raw: bytes


class BreakFound(msgspec.Struct, frozen=True):
    """A break was recorded as a row of kind ``breaks``."""

    symbol: str
    feed: Feed
    reason: str
    from_id: int | None
    to_id: int | None


class Audited(msgspec.Struct, frozen=True):
    """A book was held against a fresh snapshot at ``update_id``: how many levels were compared, and how many differ."""

    symbol: str
    update_id: int
    compared: int
    differing: int
    max_drift: float
    best_differs: bool

    @property
    def drifted(self) -> bool:
        """Whether the book is to begin anew."""
        return self.differing > 0 or self.best_differs


class AuditAbandoned(msgspec.Struct, frozen=True):
    """An audit came to no end.

    ``why`` is ``not_in_sync`` (there was nothing to audit), ``gap``, ``too_old`` (the snapshot), ``malformed``,
    ``no_answer`` (none came, or the book never got there) or ``removed`` (the symbol).
    """

    symbol: str
    why: str


Event = (
    SnapshotWanted
    | TradesWanted
    | Malformed
    | BreakFound
    | Audited
    | AuditAbandoned
    | Acknowledgement
    | Refusal
    | ShutdownNotice
)


class Outcome(msgspec.Struct):
    """What one record did: how many of its messages were market data, and the events in their order.

    ``fetched_to`` is the greatest id on a fetched page of trades, None where there was none. ``unread`` says that market
    data was counted and let go, for want of memory: of which symbols, nobody knows.
    """

    data_messages: int = 0
    events: list[Event] = msgspec.field(default_factory=list)
    fetched_to: int | None = None
    unread: bool = False
