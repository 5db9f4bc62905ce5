"""Counters, and the split timestamps: what each feed of each symbol last brought, and when.

One writer: the thread that runs the pipeline. Everybody else reads.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from harvest.market import Feed


#: Every symbol has these.
FEEDS: tuple[Feed, Feed] = ("trade", "orderbook")


@attrs.define(eq=False)
class FeedStats:
    """One feed (trade or orderbook) of one symbol."""

    symbol: str
    feed: Feed
    #: Monotonic clock of the last block that carried it, None before the first.
    last_mono_ns: int | None = None
    #: UTC receive time of the same block.
    last_recv_ns: int | None = None
    #: When its symbol was added to a run that was under way (UTC, and monotonic), None where it was there from the start.
    added_ns: int | None = None
    added_mono_ns: int | None = None
    #: The venue has halted its symbol: silence is what is to be expected.
    halted: bool = False
    #: Monotonic clock when the venue last confirmed that there is nothing new.
    quiet_mono_ns: int | None = None
    #: Messages that became rows.
    stored: int = 0
    duplicates: int = 0
    #: Breaks, and the ids missing in them as far as ids can be counted (trades, spot depth).
    gaps: int = 0
    missing_ids: int = 0
    #: Messages older than the last that filled a gap after all.
    late: int = 0
    #: Orderbook only: resynchronisations, rows while suspect, crossed books seen.
    resyncs: int = 0
    suspect_rows: int = 0
    crossed: int = 0
    in_sync: bool = False


@attrs.define(eq=False)
class ConnectionStats:
    """One connection, over all its restarts."""

    name: str
    feed: Feed
    symbols: tuple[str, ...]
    state: str = "connecting"
    reconnects: int = 0
    stalls: int = 0
    own_stalls: int = 0
    handovers: int = 0
    since_mono_ns: int | None = None


@attrs.define(eq=False)
class Metrics:
    """All counters of a run."""

    feeds: dict[tuple[Feed, str], FeedStats] = attrs.Factory(dict)
    #: Feeds of symbols that were removed: they count in sums, and nobody watches them.
    former: dict[tuple[Feed, str], FeedStats] = attrs.Factory(dict)
    connections: dict[str, ConnectionStats] = attrs.Factory(dict)
    #: Monotonic clock of the last block in which a session brought a symbol, by session and symbol: what another one brings of
    #: the same streams says nothing about this one. Ended sessions are left out.
    heard: dict[str, dict[str, int]] = attrs.Factory(dict)
    #: Rows by kind and symbol, as packed into buffers.
    rows: Counter[tuple[str, str]] = attrs.Factory(Counter)
    malformed: int = 0
    #: Events by name that are not recorded: those of the venue's list, and those that nobody told us of.
    other_events: Counter[str] = attrs.Factory(Counter)
    unknown_events: Counter[str] = attrs.Factory(Counter)
    unknown_symbols: Counter[str] = attrs.Factory(Counter)
    refusals: int = 0
    overload_frames: int = 0
    snapshots: int = 0
    snapshot_failures: int = 0
    #: Audits of books by what came of them: ``in_sync``, ``drift``, ``abandoned``.
    audits: Counter[str] = attrs.Factory(Counter)

    def feed(self, feed: Feed, symbol: str) -> FeedStats:
        """Return the stats of one feed of one symbol, made on first use."""
        key = (feed, symbol)
        stats = self.feeds.get(key)
        if stats is None:
            stats = self.feeds[key] = FeedStats(symbol, feed)
        return stats

    def set_aside(self, symbol: str) -> None:
        """Let go of the feeds of a symbol that is removed; what they counted stays."""
        for key in [key for key in self.feeds if key[1] == symbol]:
            self.former[key] = self.feeds.pop(key)

    def begin(self, symbol: str, recv_ns: int, mono_ns: int) -> None:
        """Begin the feeds of a symbol that is added now, or comes again."""
        former = [feed for feed, of_symbol in self.former if of_symbol == symbol]
        for feed in dict.fromkeys([*FEEDS, *former]):
            stats = self.former.pop((feed, symbol), None) or self.feed(feed, symbol)
            self.feeds[feed, symbol] = stats
            stats.added_ns, stats.added_mono_ns = recv_ns, mono_ns
            stats.last_mono_ns = stats.quiet_mono_ns = None
            stats.halted = False

    def reconnects(self, symbol: str | None = None) -> int:
        """Count the reconnects of all connections, or of those that carry ``symbol``."""
        carriers = self.connections.values()
        return sum(c.reconnects for c in carriers if symbol is None or symbol in c.symbols)
