"""Checks the symbols against the venue's own list: an unknown one is acknowledged, and then silent for ever."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from harvest.errors import MalformedMessageError, UnknownSymbolError
from harvest.log import get_logger
from harvest.nurseries.backoff import Backoff
from harvest.nurseries.rest import RestError
from harvest.venues.binance import check_symbols

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harvest.market import Instrument
    from harvest.nurseries.rest import RestClient
    from harvest.settings import RestSettings
    from harvest.venues.protocol import Venue

log = get_logger("INSTRUMENTS")

#: So many times as long as one answer may take. Within it a host that cannot be reached is found out and named; longer
#: takes only one that wants to be left alone, perhaps for days.
PATIENCE = 1.5


class Instruments:
    """The symbols of a run, and whether the venue knows them."""

    def __init__(
        self, venue: Venue, client: RestClient, symbols: Sequence[str], settings: RestSettings
    ) -> None:
        self._venue = venue
        self._client = client
        self._symbols = symbols
        self._settings = settings
        self._checked = False
        #: The venue's list, once it has given it.
        self.known: list[Instrument] | None = None

    async def check_once(self) -> None:
        """Check before the capture begins, if the venue answers in time; otherwise the capture does not wait.

        Raises:
            UnknownSymbolError: the venue does not list a symbol.
        """
        patience_s = PATIENCE * self._settings.timeout_s
        with trio.move_on_after(patience_s) as scope:
            await self._try_once()
        if scope.cancelled_caught:
            host = self._client.host
            log.warning(
                f"cannot check the symbols yet: {host} did not answer within {patience_s:g}s, or wants to be left "
                f"alone; the capture begins without",
                host=host,
            )

    async def check_until_known(self) -> None:
        """Check until the venue has answered, while the capture runs; then return."""
        backoff = Backoff(
            initial_s=self._settings.retry_initial_s, max_s=self._settings.retry_max_s, reset_s=float("inf")
        )
        while not self._checked:
            await trio.sleep(backoff.next_wait_s(0))
            try:
                await self._check()
            except (RestError, MalformedMessageError) as error:
                log.debug(f"still cannot check the symbols: {error}")
            except UnknownSymbolError as error:
                # The others are being captured, and go on.
                self._checked = True
                log.error(str(error))

    async def _try_once(self) -> None:
        try:
            await self._check()
        except RestError as error:
            hint = (
                f"; it keeps trying. Without a network, `harvest run --symbols {','.join(self._symbols)} --simulate` "
                f"shows everything with a simulated venue"
            )
            problem = f"cannot reach {error.host}" if error.unreachable else "cannot check the symbols"
            log.error(f"{problem}: {error}{hint if error.unreachable else ''}", host=error.host)
        except MalformedMessageError as error:
            log.error(f"cannot check the symbols: {error}")

    async def _check(self) -> None:
        body = await self._client.get(self._venue.instruments_request())
        self.known = self._venue.decode_instruments(body)
        for warning in check_symbols(self._venue.name, self._symbols, self.known):
            log.warning(warning)
        self._checked = True
