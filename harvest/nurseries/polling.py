"""Polling: what no stream brings is asked for over REST, one symbol after the other."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import trio

from harvest.log import get_logger
from harvest.nurseries.rest import RestError
from harvest.nurseries.tags import TAGS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harvest.nurseries.intake import Intake
    from harvest.nurseries.rest import RestClient
    from harvest.venues.protocol import Venue

log = get_logger(*TAGS["open_interest"])

#: Of the weight budget: snapshots and missing trades come first.
BUDGET_SHARE = 0.25
#: Between two symbols: not all at once, and the first answers soon.
STEP_S = 0.2


class OpenInterestPoll:
    """Asks for the open interest of each symbol once in ``interval_s``, or as often as its part of the budget allows."""

    def __init__(
        self, venue: Venue, client: RestClient, symbols: Sequence[str], *, interval_s: float, intake: Intake
    ) -> None:
        self._client = client
        self._intake = intake
        asked = ((symbol, venue.open_interest_request(symbol)) for symbol in symbols)
        self._requests = {symbol: request for symbol, request in asked if request is not None}
        weight = sum(request.weight for request in self._requests.values())
        #: Between two questions for the same symbol, in seconds.
        self.interval_s = max(interval_s, weight * 60 / (BUDGET_SHARE * client.budget.per_minute))
        self._failed: Counter[str] = Counter()

    async def run(self) -> None:
        """Ask until cancelled."""
        requests = self._requests
        log.info(f"asking for the open interest of {len(requests)} symbols every {self.interval_s:g}s")
        step_s = min(self.interval_s / len(requests), STEP_S)
        begin = trio.current_time()
        while True:
            for number, symbol in enumerate(requests):
                await trio.sleep_until(begin + number * step_s)
                await self._ask(symbol)
            # After a long answer or a pause the questions that were due meanwhile are left out.
            begin = max(begin + self.interval_s, trio.current_time())
            await trio.sleep_until(begin)

    async def _ask(self, symbol: str) -> None:
        try:
            body = await self._client.get(self._requests[symbol])
        except RestError as error:
            self._failed[symbol] += 1
            log.warning(f"{symbol}: no open interest ({error})", symbol=symbol)
            return
        self._intake.polled("open_interest", symbol, self._failed.pop(symbol, 0), body)
