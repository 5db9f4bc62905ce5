"""The channels besides trades and order books: their series, and when a connection carried them.

Their messages do not tell what came before, so nothing but the life of the connections says where something may be missing:
from the last message of the last connection that carried a symbol to the first one of the next connection is a break.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from harvest.errors import MalformedMessageError
from harvest.market import StreamBreak
from harvest.pipeline.channel_series import SERIES, UpdateSeries
from harvest.pipeline.records import Closed, Opened
from harvest.storage.kinds import REST

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from harvest.market import BestQuote, Channel, ChannelMessage, Feed, PartialBook
    from harvest.metrics import Metrics
    from harvest.pipeline.breaks import BreakRows
    from harvest.pipeline.channel_series import ChannelSeries
    from harvest.pipeline.records import ChannelBody, Frames, Overload, Symbols
    from harvest.storage.tables import Tables
    from harvest.venues.protocol import Venue


#: How a connection ended, where ``breaks`` have another word for it.
_REASONS = {"handover": "disconnect", "shutdown": "downtime"}


@attrs.define(eq=False)
class Link:
    """A connection that is open, and the receive time of its last block with data; None before the first."""

    feed: Channel
    symbols: tuple[str, ...]
    last_recv_ns: int | None = None


class Channels:
    """All series of the channels that are ``recorded``; ``is_recorded(symbol)`` tells which symbols are.

    ``parts`` are those of the state machine that it is one of.
    """

    def __init__(
        self,
        recorded: Iterable[Channel],
        symbols: Iterable[str],
        parts: tuple[Venue, Tables, Metrics, BreakRows],
        *,
        is_recorded: Callable[[str], bool],
        on_malformed: Callable[[MalformedMessageError, ChannelBody], None],
    ) -> None:
        self._venue, self._tables, self._metrics, self._breaks = parts
        self._is_recorded = is_recorded
        self._on_malformed = on_malformed
        self._channels = tuple(recorded)
        self._series: dict[Feed, dict[str, ChannelSeries]] = {feed: {} for feed in self._channels}
        self._links: dict[str, Link] = {}
        #: Series of symbols that were removed: where one comes again, what lies between is downtime.
        self._aside: dict[tuple[Channel, str], ChannelSeries] = {}
        for feed in self._channels:
            for symbol in symbols:
                self._add(feed, symbol)

    def take(self, message: ChannelMessage, connection: str, seq: int, recv_ns: int, mono_ns: int) -> bool:
        """Take one message; returns whether it shows that the connection delivers."""
        feed = message.feed
        link = self._links.get(connection)
        if link is not None and feed != link.feed:
            # The pulse of a connection whose own channel may be silent.
            return True
        every = self._series.get(feed)
        if every is None:
            self._metrics.other_events[message.name] += 1
            return False
        series = every.get(message.symbol) or self._add(feed, message.symbol)
        if series is None:
            return False
        series.take(message, seq, recv_ns, mono_ns)
        return True

    def delivered(self, record: Frames, data_messages: int) -> None:
        """Note how much data a block held; if any, what was broken for the symbols of its connection is over."""
        link = self._links.get(record.connection)
        if link is None or not data_messages:
            return
        seq, recv_ns = record.seq, record.recv_ns
        if link.last_recv_ns is None:
            for series in self._carried(link):
                self._mend(series, recv_ns, seq)
        link.last_recv_ns = recv_ns

    def follow(self, record: Opened | Closed | Overload) -> None:
        """Note what happened to a connection; those that carry trades or books are none of ours."""
        if isinstance(record, Opened):
            self._open(record)
        elif isinstance(record, Closed):
            self._close(record)
        else:
            self._lose(record)

    def _open(self, record: Opened) -> None:
        feed = record.feed
        if feed == "trade" or feed == "orderbook":
            return
        link = self._links.get(record.connection)
        if link is None:
            self._links[record.connection] = Link(feed, record.symbols)
            return
        # It carries more from here on, and shows already that it delivers.
        link.symbols += record.symbols
        if link.last_recv_ns is not None:
            every = self._series.get(feed, {})
            for symbol in record.symbols:
                if symbol in every:
                    self._mend(every[symbol], record.recv_ns, record.seq)

    def _close(self, record: Closed) -> None:
        # Where it was the last to carry a symbol, that is broken from here on.
        link = self._links.pop(record.connection, None)
        if link is None or link.last_recv_ns is None:
            return
        for series in self._carried(link):
            series.carriers -= 1
            if not series.carriers:
                series.broken = link.last_recv_ns, _REASONS.get(record.reason, record.reason)

    def _lose(self, record: Overload) -> None:
        link = self._links.get(record.connection)
        for series in () if link is None else self._carried(link):
            self._record(series, "overload", record.from_ns, record.recv_ns, record.seq)

    def change(self, record: Symbols) -> None:
        """Record other symbols from here on."""
        for symbol in record.removed:
            for link in self._links.values():
                link.symbols = tuple(one for one in link.symbols if one != symbol)
            for feed in self._channels:
                series = self._series[feed].pop(symbol, None)
                if series is not None:
                    series.carriers = 0
                    series.forget_tables()
                    if series.stats.last_recv_ns is not None:
                        series.broken = series.stats.last_recv_ns, "downtime"
                    self._aside[feed, symbol] = series
        for symbol in record.added:
            for feed in self._channels:
                every = self._series[feed]
                if symbol not in every:
                    before = self._aside.pop((feed, symbol), None) or self._add(feed, symbol)
                    if before is not None:
                        every[symbol] = before
                        before.stats.added_ns, before.stats.added_mono_ns = record.recv_ns, record.mono_ns

    def take_polled(self, record: ChannelBody) -> None:
        """Take what was asked for over REST; questions that failed before it are a break."""
        series = self._series.get(record.feed, {}).get(record.symbol)
        if series is None:
            return
        try:
            message = self._venue.decode_open_interest(record.body)
        except MalformedMessageError as error:
            self._on_malformed(error, record)
            return
        before_ns = series.stats.last_recv_ns
        series.take(message, record.seq, record.recv_ns, record.mono_ns, REST)
        reason = "refused" if record.failed else None
        if series.broken is not None:
            # It was removed meanwhile, and nobody asked.
            (before_ns, reason), series.broken = series.broken, None
        if reason is not None:
            self._record(series, reason, before_ns, record.recv_ns, record.seq)

    def last_update(self, feed: Feed, symbol: str) -> BestQuote | PartialBook | None:
        """Return the last message of a channel that follows the book, None before the first."""
        series = self._series.get(feed, {}).get(symbol)
        return series.last if isinstance(series, UpdateSeries) else None

    def forget_tables(self) -> None:
        """Let go of the open tables."""
        for every in self._series.values():
            for series in every.values():
                series.forget_tables()

    def _carried(self, link: Link) -> Iterator[ChannelSeries]:
        every = self._series.get(link.feed, {})
        return (every[symbol] for symbol in link.symbols if symbol in every)

    def _mend(self, series: ChannelSeries, recv_ns: int, seq: int) -> None:
        """Count one more connection that delivers a series; what was broken until now becomes a row."""
        series.carriers += 1
        if series.broken is not None:
            from_ns, reason = series.broken
            series.broken = None
            self._record(series, reason, from_ns, recv_ns, seq)

    def _record(self, series: ChannelSeries, reason: str, from_ns: int | None, to_ns: int, seq: int) -> None:
        feed, symbol = series.stats.feed, series.symbol
        series.stats.gaps += 1
        self._breaks.add(StreamBreak(symbol, feed, reason, None, None, from_ns, to_ns), seq)

    def _add(self, feed: Channel, symbol: str) -> ChannelSeries | None:
        if not self._is_recorded(symbol):
            return None
        series = self._series[feed][symbol] = SERIES[feed](feed, symbol, self._tables, self._metrics)
        return series
