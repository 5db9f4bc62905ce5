"""Dead or quiet: a stream that is silent is asked about at the venue's REST, before the watchdog judges it."""

from __future__ import annotations

import time
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

from harvest.errors import MalformedMessageError
from harvest.log import get_logger
from harvest.nurseries.rest import RestError
from harvest.pipeline.channel_series import sides_of
from harvest.pipeline.times import to_us

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harvest.market import BookSnapshot, Feed, Level
    from harvest.nurseries.rest import RestClient
    from harvest.pipeline.machine import Pipeline
    from harvest.venues.protocol import RestRequest, TradeEvent, Venue

log = get_logger("PROBE")

#: The fewest levels that a snapshot is asked for: only its id matters.
PROBE_LEVELS = 5
#: Partial depth has no more levels.
PARTIAL_LEVELS = 20
#: Channels whose silence the venue can be asked about: the book tells whether it has moved.
ASKED_CHANNELS = ("bbo", "partial_depth")


class Verdict(Enum):
    """What the venue says of a silent feed."""

    #: It has nothing that we have not.
    QUIET = "quiet"
    #: It has something newer: the stream is dead.
    DEAD = "dead"
    #: It could not be asked.
    UNKNOWN = "unknown"


class Answer(NamedTuple):
    """A verdict, and the newest id that the venue has (0 where it could not be asked)."""

    verdict: Verdict
    newest_id: int = 0


class Prober:
    """Asks the venue for the newest trade or update id of a symbol, and compares it with what was received."""

    def __init__(self, venue: Venue, client: RestClient, pipeline: Pipeline, event: TradeEvent) -> None:
        self.venue = venue
        self._client = client
        self._pipeline = pipeline
        self._event: TradeEvent = event
        #: The clock of ``FeedStats.last_mono_ns``.
        self.clock_ns = time.monotonic_ns
        #: The newest book that the venue showed when it was asked about a channel.
        self._shown: dict[tuple[Feed, str], BookSnapshot] = {}

    def can_ask(self, feed: Feed) -> bool:
        """Tell whether the venue can be asked about the silence of a feed."""
        return feed in ("trade", "orderbook", *ASKED_CHANNELS)

    async def ask(self, feed: Feed, symbol: str, since_ns: int, *, known_id: int = 0) -> Answer:
        """Judge the silence of one feed of ``symbol``: dead if the venue has ids beyond ours and beyond ``known_id``.

        Where nothing was received yet, what the venue stamped after ``since_ns`` (UTC) counts as new.
        """
        try:
            if feed == "trade":
                return await self._ask_trades(symbol, since_ns, known_id)
            if feed == "orderbook":
                return await self._ask_book(symbol, since_ns, known_id)
            return await self._ask_channel(feed, symbol)
        except (RestError, MalformedMessageError) as error:
            log.warning(f"{symbol}: cannot ask whether its {feed} stream is dead or quiet: {error}")
            return Answer(Verdict.UNKNOWN)

    async def _ask_trades(self, symbol: str, since_ns: int, known_id: int) -> Answer:
        body = await self._get(self.venue.latest_trade_request(self._event, symbol))
        trades = self.venue.decode_trades(self._event, symbol, body)
        if not trades:
            return Answer(Verdict.QUIET)
        newest = trades[-1]
        last_id = self._pipeline.last_trade_id(symbol)
        if last_id is None and not known_id:
            return _answer(to_us(newest.trade_time) * 1000 > since_ns, newest.trade_id)
        return _answer(newest.trade_id > max(last_id or 0, known_id), newest.trade_id)

    async def _ask_book(self, symbol: str, since_ns: int, known_id: int) -> Answer:
        body = await self._get(self.venue.snapshot_request(symbol, PROBE_LEVELS))
        snapshot = self.venue.decode_snapshot(body)
        last_id, newest_id = self._pipeline.last_update_id(symbol), snapshot.last_update_id
        if last_id is not None or known_id:
            return _answer(newest_id > max(last_id or 0, known_id), newest_id)
        if snapshot.event_time is None:
            # Spot says no time, and we have no id: a book of which not one diff came is more likely dead.
            return Answer(Verdict.DEAD, newest_id)
        return _answer(to_us(snapshot.event_time) * 1000 > since_ns, newest_id)

    async def _ask_channel(self, feed: Feed, symbol: str) -> Answer:
        """Compare what the book shows with the newest that is known, from the stream or from the question before.

        Its update ids alone tell nothing: they go on where what the channel shows stays as it is. Where nothing is known
        yet, the next question will tell.
        """
        levels = 1 if feed == "bbo" else PARTIAL_LEVELS
        body = await self._get(self.venue.snapshot_request(symbol, max(levels, PROBE_LEVELS)))
        snapshot = self.venue.decode_snapshot(body)
        newest_id = snapshot.last_update_id
        before, last = self._shown.get((feed, symbol)), self._pipeline.channels.last_update(feed, symbol)
        self._shown[feed, symbol] = snapshot
        if last is not None and (before is None or before.last_update_id <= last.update_id):
            bids, asks = sides_of(last)
            is_newer = newest_id > last.update_id and not (
                _begins_alike(snapshot.bids, bids) and _begins_alike(snapshot.asks, asks)
            )
            return _answer(is_newer, newest_id)
        if before is None:
            return Answer(Verdict.QUIET, newest_id)
        has_moved = (
            snapshot.bids[:levels] != before.bids[:levels] or snapshot.asks[:levels] != before.asks[:levels]
        )
        return _answer(has_moved, newest_id)

    async def _get(self, request: RestRequest) -> bytes:
        return await self._client.get(request)


def _begins_alike(shown: Sequence[Level], known: Sequence[Level]) -> bool:
    return list(shown[: len(known)]) == list(known)


def _answer(is_newer: bool, newest_id: int) -> Answer:
    return Answer(Verdict.DEAD if is_newer else Verdict.QUIET, newest_id)
