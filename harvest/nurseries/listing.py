"""Looks at the venue's list of instruments now and then: what was delisted is let go, what was halted is expected to be silent."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from harvest.errors import MalformedMessageError, UnknownSymbolError
from harvest.log import get_logger
from harvest.nurseries.rest import RestError
from harvest.venues.binance import check_symbols

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harvest.market import Instrument
    from harvest.metrics import Metrics
    from harvest.nurseries.rest import RestClient
    from harvest.nurseries.watchlist import Watchlist
    from harvest.venues.protocol import Venue

log = get_logger("INSTRUMENTS")

#: What a list lacks is looked for once more after at most this long: a list may be incomplete for a moment.
CONFIRM_S = 60.0


class Listing:
    """Keeps the watchlist to what the venue lists, and says what it halts and resumes."""

    def __init__(
        self, venue: Venue, client: RestClient, watchlist: Watchlist, metrics: Metrics, *, interval_s: float
    ) -> None:
        self._venue = venue
        self._client = client
        self._watchlist = watchlist
        self._metrics = metrics
        self._interval_s = interval_s
        #: Symbols that the last look did not find.
        self._absent: set[str] = set()

    async def run(self, known: Sequence[Instrument] | None) -> None:
        """Look once every interval, until cancelled; ``known`` is a list that was fetched just now, if any."""
        if known is not None:
            await self.judge(known)
        while True:
            await trio.sleep(min(self._interval_s, CONFIRM_S) if self._absent else self._interval_s)
            try:
                await self.judge(await self._ask())
            except (RestError, MalformedMessageError) as error:
                log.warning(f"cannot look at the list of instruments: {error}")

    async def tradable(self, symbols: Sequence[str]) -> list[str]:
        """Return those of ``symbols`` that the venue trades; the others are named in the log, with the reason."""
        try:
            instruments = await self._ask()
        except (RestError, MalformedMessageError) as error:
            log.error(f"{', '.join(symbols)}: not added, for the venue cannot be asked about them: {error}")
            return []
        listed = {instrument.symbol: instrument for instrument in instruments}
        taken = []
        for symbol in symbols:
            try:
                warnings = check_symbols(self._venue.name, [symbol], instruments)
            except UnknownSymbolError as error:
                close = ", ".join(error.suggestions[symbol])
                hint = f" (did you mean {close}?)" if close else ""
                log.error(f"{symbol}: not added: {self._venue.name} does not trade it{hint}", symbol=symbol)
                continue
            if not listed[symbol].trading:
                log.error(f"{symbol}: not added: it is not trading ({listed[symbol].status})", symbol=symbol)
                continue
            for warning in warnings:
                log.warning(warning)
            taken.append(symbol)
        return taken

    async def judge(self, instruments: Sequence[Instrument]) -> None:
        """Hold the watchlist against a list: note what is halted, and let go of what is not traded any more."""
        listed = {instrument.symbol: instrument for instrument in instruments}
        symbols = self._watchlist.symbols
        absent = {symbol for symbol in symbols if symbol not in listed}
        if absent and len(absent) == len(symbols):
            # More likely the list is broken than that everything was delisted at once.
            log.warning("the list of instruments has none of the symbols: it is not believed")
            return
        removed = []
        for symbol in symbols:
            if symbol in absent and symbol in self._absent:
                log.warning(f"{symbol}: the venue does not list it any more: delisted", symbol=symbol)
                removed.append(symbol)
            elif symbol in listed and listed[symbol].ended:
                log.warning(f"{symbol}: its trading has ended ({listed[symbol].status})", symbol=symbol)
                removed.append(symbol)
            elif symbol in listed:
                self._note(symbol, listed[symbol])
        self._absent = absent.difference(removed)
        if removed:
            await self._watchlist.change(removed=removed)

    def _note(self, symbol: str, instrument: Instrument) -> None:
        # Those of the other channels too.
        feeds = [stats for stats in self._metrics.feeds.values() if stats.symbol == symbol]
        if all(stats.halted is not instrument.trading for stats in feeds):
            return
        if instrument.trading:
            log.info(f"{symbol}: trading again", symbol=symbol)
        else:
            log.warning(
                f"{symbol}: halted by the venue ({instrument.status}); silence is expected until it trades again",
                symbol=symbol,
                status=instrument.status,
            )
        for stats in feeds:
            stats.halted = not instrument.trading

    async def _ask(self) -> list[Instrument]:
        body = await self._client.get(self._venue.instruments_request())
        return self._venue.decode_instruments(body)
