"""The health task: reads the split timestamps and warns about each silent feed. It restarts nothing."""

from __future__ import annotations

import time
from math import inf
from typing import TYPE_CHECKING

import trio

from harvest.log import get_logger
from harvest.market import CHANNELS
from harvest.nurseries.tags import TAGS

if TYPE_CHECKING:
    from collections.abc import Callable

    from structlog.stdlib import BoundLogger

    from harvest.market import Feed
    from harvest.metrics import FeedStats, Metrics
    from harvest.settings import HealthSettings

_LOGS: dict[Feed, BoundLogger] = {
    "trade": get_logger("HEALTH", "TRADE"),
    "orderbook": get_logger("HEALTH", "OB"),
    **{channel: get_logger("HEALTH", *TAGS[channel]) for channel in CHANNELS},
}


def timeout_s(feed: Feed, settings: HealthSettings) -> float:
    """Return after how much silence a feed is warned of. Liquidations are silent by nature: never."""
    if feed == "trade":
        return settings.trade_timeout_s
    if feed == "orderbook":
        return settings.orderbook_timeout_s
    return inf if feed == "liquidations" else settings.channel_timeout_s


class Health:
    """Judges every feed of every symbol by the monotonic clock, each kind by its own timeout.

    A feed that has never brought anything is as old as this object. ``clock_ns`` is the clock of
    ``FeedStats.last_mono_ns``.
    """

    def __init__(
        self, metrics: Metrics, settings: HealthSettings, clock_ns: Callable[[], int] = time.monotonic_ns
    ) -> None:
        self._metrics = metrics
        self._settings = settings
        self._clock_ns = clock_ns
        self._started_ns = clock_ns()
        #: Feeds that were silent at the last check.
        self.silent: set[tuple[Feed, str]] = set()

    async def run(self) -> None:
        """Check once every interval, until cancelled."""
        while True:
            await trio.sleep(self._settings.interval_s)
            self.check()

    def check(self) -> None:
        """Warn about each feed that is silent beyond its timeout, and say when one has come back."""
        now_ns = self._clock_ns()
        self.silent &= self._metrics.feeds.keys()
        for key, stats in self._metrics.feeds.items():
            feed, symbol = key
            limit_s = timeout_s(feed, self._settings)
            since_ns = stats.last_mono_ns
            if since_ns is None:
                since_ns = self._started_ns if stats.added_mono_ns is None else stats.added_mono_ns
            silent_s = (now_ns - since_ns) / 1e9
            if silent_s > limit_s and stats.halted:
                self.silent.discard(key)
                _LOGS[feed].info(
                    f"{symbol} {feed} stream silent for {silent_s:.1f}s: halted by the venue",
                    symbol=symbol,
                    silent_s=round(silent_s, 1),
                )
            elif silent_s > limit_s and self._is_confirmed_quiet(stats, since_ns, now_ns, limit_s):
                self.silent.discard(key)
                _LOGS[feed].info(
                    f"{symbol} {feed} stream silent for {silent_s:.1f}s: quiet, confirmed by the venue",
                    symbol=symbol,
                    silent_s=round(silent_s, 1),
                )
            elif silent_s > limit_s:
                self.silent.add(key)
                _LOGS[feed].warning(
                    f"{symbol} {feed} stream silent for {silent_s:.1f}s",
                    symbol=symbol,
                    silent_s=round(silent_s, 1),
                )
            elif key in self.silent:
                self.silent.discard(key)
                _LOGS[feed].info(f"{symbol} {feed} stream is back", symbol=symbol)

    @staticmethod
    def _is_confirmed_quiet(stats: FeedStats, since_ns: int, now_ns: int, limit_s: float) -> bool:
        quiet_ns = stats.quiet_mono_ns
        return quiet_ns is not None and quiet_ns > since_ns and now_ns - quiet_ns <= limit_s * 1e9
