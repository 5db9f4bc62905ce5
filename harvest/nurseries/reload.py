"""Symbols from settings that are loaded anew while a run goes on (SIGHUP)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from harvest.errors import SettingsError
from harvest.log import get_logger
from harvest.settings.reload import compare

if TYPE_CHECKING:
    from collections.abc import Callable

    from harvest.nurseries.listing import Listing
    from harvest.nurseries.watchlist import Watchlist
    from harvest.settings import Loaded, Settings

log = get_logger("SYMBOLS")


class Reload:
    """Loads the settings anew when asked to, and brings the watchlist in line with their symbols.

    ``load`` gathers all layers as they were at the start: the same file, profile, environment and flags.
    """

    def __init__(
        self, load: Callable[[], Loaded], running: Settings, watchlist: Watchlist, listing: Listing
    ) -> None:
        self._load = load
        self._running = running
        self._watchlist = watchlist
        self._listing = listing
        self._wanted = trio.Event()

    def request(self) -> None:
        """Ask for a reload; never waits. Requests that come before it has begun are one."""
        self._wanted.set()

    async def run(self) -> None:
        """Reload when asked to, until cancelled."""
        while True:
            await self._wanted.wait()
            self._wanted = trio.Event()
            await self.reload()

    async def reload(self) -> None:
        """Load the settings and change the symbols; what is wrong with the settings is named, and changes nothing."""
        try:
            loaded = await trio.to_thread.run_sync(self._load)
        except SettingsError as error:
            log.error("these settings cannot be run with; nothing has changed:")
            for problem in error.problems:
                log.error(f"  {problem}")
            return
        for warning in loaded.warnings:
            log.warning(warning)
        reloaded = compare(self._running, loaded)
        for warning in reloaded.warnings:
            log.warning(warning)
        if reloaded.symbols is None:
            log.warning(f"symbols are given by {reloaded.fixed_by}; a reload cannot change them")
            return
        before = self._watchlist.symbols
        added = [symbol for symbol in reloaded.symbols if symbol not in before]
        removed = [symbol for symbol in before if symbol not in reloaded.symbols]
        if added:
            added = await self._listing.tradable(added)
        if not added and not removed:
            log.info("the symbols stay as they are")
        await self._watchlist.change(added=added, removed=removed)
