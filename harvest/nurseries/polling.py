"""Polling: what no stream brings is asked for over REST, one symbol after the other."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import trio

from harvest.log import get_logger
from harvest.nurseries.rest import RestError
from harvest.nurseries.tags import TAGS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from harvest.nurseries.intake import Intake
    from harvest.nurseries.rest import RestClient
    from harvest.venues.protocol import RestRequest, Venue

log = get_logger(*TAGS["open_interest"])

#: Of the weight budget: snapshots and missing trades come first.
BUDGET_SHARE = 0.25
#: Between two symbols: not all at once, and the first answers soon.
STEP_S = 0.2


class OpenInterestPoll:
    """Asks for the open interest of each symbol once in ``interval_s``, or as often as its part of the budget allows."""

    def __init__(
        self,
        venue: Venue,
        client: RestClient,
        symbols: Callable[[], Sequence[str]],
        *,
        interval_s: float,
        intake: Intake,
    ) -> None:
        self._venue = venue
        self._client = client
        self._symbols = symbols
        self._intake = intake
        self._wanted_s = interval_s
        self._failed: Counter[str] = Counter()

    async def run(self) -> None:
        """Ask until cancelled, at each round for the symbols of that moment."""
        requests = self._requests()
        log.info(f"asking for the open interest of {len(requests)} symbols every {self.interval_s:g}s")
        begin = trio.current_time()
        while True:
            interval_s = self.interval_s
            step_s = min(interval_s / max(len(requests), 1), STEP_S)
            for number, (symbol, request) in enumerate(requests.items()):
                await trio.sleep_until(begin + number * step_s)
                await self._ask(symbol, request)
            # After a long answer or a pause the questions that were due meanwhile are left out.
            begin = max(begin + interval_s, trio.current_time())
            await trio.sleep_until(begin)
            requests = self._requests()

    @property
    def interval_s(self) -> float:
        """Seconds between two questions for the same symbol."""
        weight = sum(request.weight for request in self._requests().values())
        return max(self._wanted_s, weight * 60 / (BUDGET_SHARE * self._client.budget.per_minute))

    def _requests(self) -> dict[str, RestRequest]:
        asked = ((symbol, self._venue.open_interest_request(symbol)) for symbol in self._symbols())
        return {symbol: request for symbol, request in asked if request is not None}

    async def _ask(self, symbol: str, request: RestRequest) -> None:
        try:
            body = await self._client.get(request)
        except RestError as error:
            self._failed[symbol] += 1
            log.warning(f"{symbol}: no open interest ({error})", symbol=symbol)
            return
        self._intake.polled("open_interest", symbol, self._failed.pop(symbol, 0), body)
