"""Backfill: what the streams do not bring is asked for over REST. Capture never waits for it."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import trio

from harvest.errors import MalformedMessageError
from harvest.log import get_logger
from harvest.nurseries.backoff import Backoff
from harvest.nurseries.rest import RestError

if TYPE_CHECKING:
    from collections.abc import Callable

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
        self._idle_workers = trio.lowlevel.ParkingLot()

    def want(self, symbol: str) -> None:
        """Queue a snapshot of ``symbol``, unless one is queued already."""
        self._wanted[symbol] = None
        self._idle_workers.unpark()

    async def run(self) -> None:
        """Fetch what is wanted, until cancelled."""
        async with trio.open_nursery() as nursery:
            for _ in range(WORKERS):
                nursery.start_soon(self._work)

    async def _work(self) -> None:
        while True:
            symbol = next((symbol for symbol in self._wanted if symbol not in self._in_flight), None)
            if symbol is None:
                await self._idle_workers.park()
                continue
            del self._wanted[symbol]
            self._in_flight.add(symbol)
            try:
                await self._fetch(symbol)
            finally:
                self._in_flight.discard(symbol)
                if symbol in self._wanted:
                    self._idle_workers.unpark()

    async def _fetch(self, symbol: str) -> None:
        """Fetch one snapshot; on failure wait, and queue it again."""
        backoff = self._backoffs.get(symbol)
        if backoff is not None:
            # A symbol that wants one snapshot after the other (too old each time) must not spin.
            await trio.sleep(backoff.next_wait_s(0))
        try:
            body = await self._client.get(self._venue.snapshot_request(symbol, self._book.snapshot_levels))
        except RestError as error:
            self._metrics.snapshot_failures += 1
            backoff = self._backoff(symbol)
            wait_s = max(backoff.next_wait_s(0), error.retry_after_s or 0.0)
            log.warning(f"{symbol}: no snapshot ({error}); trying again in {wait_s:.1f}s", symbol=symbol)
            await trio.sleep(wait_s)
            self.want(symbol)
            return
        self._metrics.snapshots += 1
        if symbol in self._wanted:
            # It was wanted again meanwhile: this body may be too old, which the book itself decides.
            del self._wanted[symbol]
        try:
            self._deliver(symbol, body)
        except MalformedMessageError as error:
            log.warning(f"{symbol}: {error}", symbol=symbol)
            self.want(symbol)
        if symbol in self._wanted:
            self._backoff(symbol)
        else:
            self._backoffs.pop(symbol, None)

    def _backoff(self, symbol: str) -> Backoff:
        backoff = self._backoffs.get(symbol)
        if backoff is None:
            initial_s, max_s = self._rest.retry_initial_s, self._rest.retry_max_s
            backoff = self._backoffs[symbol] = Backoff(
                initial_s=initial_s, max_s=max_s, reset_s=float("inf"), seed=random.getrandbits(32)
            )
        return backoff
