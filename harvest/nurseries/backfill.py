"""Backfill: what the streams do not bring is asked for over REST. Capture never waits for it."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

import trio

from harvest.log import get_logger
from harvest.nurseries.backoff import Backoff
from harvest.nurseries.rest import RestError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from harvest.metrics import Metrics
    from harvest.nurseries.rest import RestClient
    from harvest.settings import BookSettings, RestSettings
    from harvest.venues.protocol import Venue

log = get_logger("SNAPSHOT")

#: Requests under way at once: a slow answer for one instrument must not hold up the others.
WORKERS = 4


class Backfill:
    """Fetches the snapshots that books want, one at a time for each symbol, under the weight budget.

    ``want`` may be called from anywhere in the Trio thread and never waits; a symbol is queued once, so the queue is
    bounded by the number of symbols. ``deliver(symbol, body)`` gets each body as received.
    """

    def __init__(
        self,
        venue: Venue,
        client: RestClient,
        *,
        deliver: Callable[[str, bytes], object],
        metrics: Metrics,
        book: BookSettings,
        rest: RestSettings,
    ) -> None:
        self._venue = venue
        self._client = client
        self._deliver = deliver
        self._metrics = metrics
        self._book = book
        self._rest = rest
        self._wanted: dict[str, None] = {}
        self._in_flight: set[str] = set()
        self._backoffs: dict[str, Backoff] = {}
        #: When a symbol may be asked for again, by Trio's clock.
        self._due: dict[str, float] = {}
        self._idle_workers = trio.lowlevel.ParkingLot()

    def want(self, symbol: str) -> None:
        """Queue a snapshot of ``symbol``, unless one is queued already."""
        self._wanted[symbol] = None
        self._idle_workers.unpark()

    def forget(self, symbol: str) -> None:
        """Take a symbol out of the queue that is not recorded any more."""
        self._wanted.pop(symbol, None)
        self._backoffs.pop(symbol, None)
        self._due.pop(symbol, None)

    async def run(self) -> None:
        """Fetch what is wanted, until cancelled."""
        async with trio.open_nursery() as nursery:
            for _ in range(WORKERS):
                nursery.start_soon(self._work)

    async def _work(self) -> None:
        while True:
            symbol = self._next_symbol()
            if symbol is None:
                with trio.move_on_at(self._next_due()):
                    await self._idle_workers.park()
                continue
            del self._wanted[symbol]
            self._in_flight.add(symbol)
            try:
                await self._fetch(symbol)
            finally:
                self._in_flight.discard(symbol)

    def _next_symbol(self) -> str | None:
        """Return the symbol that was wanted first, of those that may be asked for now."""
        now = trio.current_time()
        return next((symbol for symbol in self._waiting() if self._due.get(symbol, now) <= now), None)

    def _next_due(self) -> float:
        """Return when the first symbol that waits may be asked for, by Trio's clock."""
        return min((self._due[symbol] for symbol in self._waiting() if symbol in self._due), default=inf)

    def _waiting(self) -> Iterator[str]:
        return (symbol for symbol in self._wanted if symbol not in self._in_flight)

    async def _fetch(self, symbol: str) -> None:
        """Fetch one snapshot; where that fails, or brings one that does not fit, it is wanted again after a while."""
        try:
            body = await self._client.get(self._venue.snapshot_request(symbol, self._book.snapshot_levels))
        except RestError as error:
            self._metrics.snapshot_failures += 1
            wait_s = self._postpone(symbol, error.retry_after_s or 0.0)
            log.warning(f"{symbol}: no snapshot ({error}); trying again in {wait_s:.1f}s", symbol=symbol)
            self.want(symbol)
            return
        self._metrics.snapshots += 1
        # If it was wanted again meanwhile, this body may be too old, which the book itself decides.
        self._wanted.pop(symbol, None)
        self._deliver(symbol, body)
        if symbol in self._wanted:
            wait_s = self._postpone(symbol)
            log.info(f"{symbol}: the snapshot does not fit; trying again in {wait_s:.1f}s", symbol=symbol)
        else:
            self._backoffs.pop(symbol, None)

    def _postpone(self, symbol: str, at_least_s: float = 0.0) -> float:
        """Let ``symbol`` wait before it is asked for again, and no worker with it; returns for how long."""
        backoff = self._backoffs.get(symbol)
        if backoff is None:
            backoff = self._backoffs[symbol] = Backoff(
                initial_s=self._rest.retry_initial_s, max_s=self._rest.retry_max_s, reset_s=inf
            )
        wait_s = max(backoff.next_wait_s(0), at_least_s)
        self._due[symbol] = trio.current_time() + wait_s
        return wait_s
