"""Closes gaps of trades over REST, page by page, under the weight budget that snapshots share. Capture never waits for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import trio

from harvest.log import get_logger
from harvest.nurseries.backoff import Backoff
from harvest.nurseries.rest import RestError

if TYPE_CHECKING:
    from collections.abc import Callable

    from harvest.nurseries.rest import RestClient
    from harvest.pipeline.events import Outcome
    from harvest.settings import RestSettings
    from harvest.venues.protocol import TradeEvent, Venue

log = get_logger("BACKFILL")

#: Gaps under way at once.
WORKERS = 2
#: Ids that are missing now may be on their way over another connection.
SETTLE_S = 1.0
#: Gaps that wait. A stream that breaks more often is not cured by REST: what is left out stays a break.
MAX_WAITING = 10_000


class FetchedTrades(Protocol):
    """Where pages go: the intake."""

    def fetched_trades(self, symbol: str, from_id: int, to_id: int, body: bytes) -> Outcome:
        """Record a page of trades."""
        ...

    def unserved(self, symbol: str, from_id: int, to_id: int, reason: str) -> Outcome:
        """Record that REST does not bring the rest."""
        ...


class MissingTrades:
    """Fetches the trades that are missing. ``still_missing(symbol, from, to)`` says which of them still are."""

    def __init__(
        self,
        venue: Venue,
        client: RestClient,
        *,
        event: TradeEvent,
        intake: FetchedTrades,
        still_missing: Callable[[str, int, int], list[tuple[int, int]]],
        rest: RestSettings,
    ) -> None:
        self._venue = venue
        self._client = client
        self._event: TradeEvent = event
        self._intake = intake
        self._still_missing = still_missing
        self._rest = rest
        self._send, self._receive = trio.open_memory_channel[tuple[str, int, int]](MAX_WAITING)
        self._open = 0
        self._settled = trio.Event()

    async def settle(self) -> None:
        """Return when every gap that was wanted is closed, or known to be beyond closing."""
        while self._open:
            self._settled = trio.Event()
            await self._settled.wait()

    @property
    def waiting(self) -> int:
        """Gaps that nobody has begun to close."""
        return self._send.statistics().current_buffer_used

    def want(self, symbol: str, from_id: int, to_id: int) -> None:
        """Queue a gap, both ends inclusive; never waits. A full queue leaves it the break that it is."""
        try:
            self._send.send_nowait((symbol, from_id, to_id))
            self._open += 1
        except trio.WouldBlock:
            log.error(f"{symbol}: {MAX_WAITING} gaps wait already; trades {from_id} to {to_id} stay missing")

    async def run(self) -> None:
        """Close gaps until cancelled; what is under way then stays recorded as missing."""
        async with trio.open_nursery() as nursery:
            for _ in range(WORKERS):
                nursery.start_soon(self._work)

    async def _work(self) -> None:
        async for symbol, from_id, to_id in self._receive:
            await trio.sleep(SETTLE_S)
            if self._still_missing(symbol, from_id, to_id):
                await self._close(symbol, from_id, to_id)
            self._open -= 1
            if not self._open:
                self._settled.set()

    async def _close(self, symbol: str, from_id: int, to_id: int) -> None:
        cursor, stored, reason = from_id, 0, "not_served"
        backoff = Backoff(
            initial_s=self._rest.retry_initial_s, max_s=self._rest.retry_max_s, reset_s=float("inf")
        )
        while missing := self._still_missing(symbol, cursor, to_id):
            request = self._venue.trades_request(self._event, symbol, missing[0][0])
            if request is None:
                break
            try:
                body = await self._client.get(request)
            except RestError as error:
                if (
                    error.status is not None
                    and 400 <= error.status < 500
                    and error.status not in (403, 408, 418, 429)
                ):
                    log.error(f"{symbol}: the venue refuses trades {missing[0][0]} to {to_id}: {error}")
                    reason = "refused"
                    break
                wait_s = max(backoff.next_wait_s(0), error.retry_after_s or 0.0)
                log.warning(f"{symbol}: trades {missing[0][0]} to {to_id} must wait {wait_s:.1f}s: {error}")
                await trio.sleep(wait_s)
                continue
            outcome = self._intake.fetched_trades(symbol, from_id, to_id, body)
            stored += outcome.data_messages
            if outcome.fetched_to is None or outcome.fetched_to < missing[0][0]:
                break
            cursor = outcome.fetched_to + 1
        left = sum(high - low + 1 for low, high in self._still_missing(symbol, from_id, to_id))
        if left:
            self._intake.unserved(symbol, from_id, to_id, reason)
        log.info(
            f"{symbol}: trades {from_id} to {to_id}: {stored:,} fetched, {left:,} not to be had",
            symbol=symbol,
            fetched=stored,
            left=left,
        )
