"""The symbols that are recorded now, and the one way to change them while everything runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from harvest.errors import IdSpaceError
from harvest.log import get_logger
from harvest.pipeline.resume import check_id_space

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from harvest.market import IdSpace
    from harvest.nurseries.backfill import Backfill
    from harvest.nurseries.feeds import FeedNursery
    from harvest.nurseries.intake import Intake
    from harvest.pipeline.machine import Pipeline
    from harvest.pipeline.resume import Stored

log = get_logger("SYMBOLS")


class Watchlist:
    """Adds and removes symbols, in the pipeline first and then on the connections.

    ``look(symbols)`` reads what is stored of them; it is called in a thread, and not before ``ready``. ``id_space`` is that of the run's trade ids.
    """

    def __init__(
        self,
        symbols: Sequence[str],
        *,
        look: Callable[[Sequence[str]], Stored],
        id_space: IdSpace,
        pipeline: Pipeline,
        intake: Intake,
        backfill: Backfill,
        ready: trio.Event,
    ) -> None:
        self.symbols = tuple(symbols)
        #: The feeds that follow; a run adds its own.
        self.feeds: list[FeedNursery] = []
        self._look = look
        self._id_space: IdSpace = id_space
        self._pipeline = pipeline
        self._intake = intake
        self._backfill = backfill
        self._ready = ready
        self._turn = trio.Lock()

    async def change(self, *, added: Sequence[str] = (), removed: Collection[str] = ()) -> None:
        """Record ``added`` too from here on, and ``removed`` no more; what is so already stays.

        A symbol of which the other kind of trade ids is stored is refused by name.
        """
        await self._ready.wait()
        async with self._turn:
            new = [symbol for symbol in dict.fromkeys(added) if symbol not in self.symbols]
            last_ids = await self._take_over(new) if new else {}
            for symbol in last_ids:
                log.info(f"{symbol}: added", symbol=symbol)
            gone = tuple(symbol for symbol in self.symbols if symbol in removed)
            for symbol in gone:
                log.info(f"{symbol}: removed", symbol=symbol)
            if not last_ids and not gone:
                return
            # No checkpoint from here on: to all others it is one moment.
            self._intake.change_symbols(last_ids, gone)
            kept = (symbol for symbol in self.symbols if symbol not in gone)
            self.symbols = (*kept, *last_ids)
            for symbol in gone:
                self._backfill.forget(symbol)
            for feed in self.feeds:
                feed.change(list(last_ids), gone)
            if not self.symbols:
                log.error("no symbol is left: nothing is recorded")

    async def _take_over(self, symbols: Sequence[str]) -> dict[str, int | None]:
        """Go on from what is stored of ``symbols``; returns those that can be, with their greatest trade ids."""
        stored, refused = await trio.to_thread.run_sync(self._read, symbols)
        for damage in stored.catalog.damage:
            log.warning(f"{damage.path}: {damage.why}; left as it is", path=str(damage.path))
        for symbol, error in refused.items():
            log.error(f"{symbol}: not added: {error}", symbol=symbol)
        taken = [symbol for symbol in symbols if symbol not in refused]
        for symbol in taken:
            self._pipeline.resume_cvd(symbol, stored.day, stored.resume_cvd(symbol, stored.day))
        return {symbol: stored.last_trade_ids.get(symbol) for symbol in taken}

    def _read(self, symbols: Sequence[str]) -> tuple[Stored, dict[str, IdSpaceError]]:
        stored = self._look(symbols)
        refused = {}
        for symbol in symbols:
            try:
                check_id_space(stored.catalog, [symbol], self._id_space)
            except IdSpaceError as error:
                refused[symbol] = error
        return stored, refused
