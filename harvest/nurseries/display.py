"""The live table on a terminal: per symbol and feed what comes, how fresh it is, and what is wrong."""

from __future__ import annotations

import time
from math import inf
from typing import TYPE_CHECKING

import trio
from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from harvest.nurseries.health import timeout_s

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import Console, RenderableType

    from harvest.market import Feed
    from harvest.metrics import FeedStats, Metrics
    from harvest.nurseries.status import Status
    from harvest.settings import HealthSettings

REFRESH_S = 0.5
#: Rates are over this long, so that a quiet symbol does not flicker between 0 and 2.
RATE_WINDOW_S = 5.0
#: More feeds than a screen holds would hide the worst ones: those with trouble come first, the rest is counted.
MAX_ROWS = 40
FEED_NAMES: dict[Feed, str] = {"trade": "trades", "orderbook": "book"}
_KINDS: dict[Feed, tuple[str, ...]] = {"trade": ("prices",), "orderbook": ("depth", "orderbook", "ofi")}


class Display:
    """Draws the state of a run until cancelled."""

    def __init__(
        self,
        console: Console,
        *,
        title: str,
        status: Status,
        health: HealthSettings,
        clock_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._console = console
        self._title = title
        self._status = status
        self._metrics = status.metrics
        self._health = health
        self._clock_ns = clock_ns
        self._rates = Rates(status.metrics, clock_ns)

    async def run(self) -> None:
        """Redraw twice a second, until cancelled. Log lines scroll by above the table."""
        with Live(console=self._console, auto_refresh=False, transient=True) as live:
            while True:
                self._rates.sample()
                live.update(self.render(), refresh=True)
                await trio.sleep(REFRESH_S)

    def render(self) -> RenderableType:
        """Draw the table as it is now."""
        table = Table(title=self._title, title_justify="left", title_style="bold", expand=False)
        table.add_column("symbol", no_wrap=True)
        table.add_column("feed")
        for heading in ("rate/s", "age", "stored", "buffered", "gaps", "missing", "dup.", "reconn."):
            table.add_column(heading, justify="right")
        table.add_column("state")
        feeds = sorted(
            self._metrics.feeds.items(), key=lambda item: (not self._trouble(item[1]), item[0][1], item[0][0])
        )
        waiting = self._status.buffered_rows()
        for (feed, symbol), stats in feeds[:MAX_ROWS]:
            table.add_row(*self._row(feed, symbol, stats, waiting.get(symbol, {})))
        lines: list[RenderableType] = [table]
        if hidden := feeds[MAX_ROWS:]:
            troubled = sum(self._trouble(stats) for _, stats in hidden)
            how = f", {troubled} of them with trouble" if troubled else " without trouble"
            lines.append(Text(f"… and {len(hidden)} more feeds{how}", style="yellow" if troubled else "dim"))
        lines += [Text(line, style="dim") for line in self._status.lines()]
        return Group(*lines)

    def _row(
        self, feed: Feed, symbol: str, stats: FeedStats, waiting: dict[str, int]
    ) -> list[RenderableType]:
        age_s = self._age_s(stats)
        limit_s = self._limit_s(feed)
        age = Text("–" if age_s is None else f"{age_s:.1f}s")
        if limit_s < inf and (age_s is None or age_s > limit_s / 2):
            age.stylize("red" if age_s is None or age_s > limit_s else "yellow")
        kinds = _KINDS.get(feed, (feed,))
        carriers = [c for c in self._metrics.connections.values() if c.feed == feed and symbol in c.symbols]
        reconnects = sum(carrier.reconnects for carrier in carriers)
        state = Text(", ".join(dict.fromkeys(carrier.state for carrier in carriers)))
        if stats.halted:
            state = Text("halted by the venue", style="yellow")
        elif _is_suspect(stats):
            state = Text(
                "suspect: no snapshot yet" if not stats.resyncs else "suspect: resynchronising",
                style="yellow",
            )
        elif state.plain == "receiving":
            state.stylize("green")
        return [
            Text(symbol),
            Text(FEED_NAMES.get(feed, feed)),
            Text(f"{self._rates.per_second(stats):,.1f}"),
            age,
            Text(f"{stats.stored:,}"),
            Text(f"{sum(waiting.get(kind, 0) for kind in kinds):,}"),
            _warn(stats.gaps),
            _warn(stats.missing_ids),
            Text(f"{stats.duplicates:,}"),
            _warn(reconnects),
            state,
        ]

    def _trouble(self, stats: FeedStats) -> bool:
        age_s = self._age_s(stats)
        limit_s = self._limit_s(stats.feed)
        is_old = limit_s < inf and (age_s is None or age_s > limit_s / 2)
        return bool(stats.gaps) or is_old or _is_suspect(stats)

    def _limit_s(self, feed: Feed) -> float:
        return timeout_s(feed, self._health)

    def _age_s(self, stats: FeedStats) -> float | None:
        return None if stats.last_mono_ns is None else (self._clock_ns() - stats.last_mono_ns) / 1e9


def _is_suspect(stats: FeedStats) -> bool:
    return stats.feed == "orderbook" and stats.stored > 0 and not stats.in_sync


def _warn(count: int) -> Text:
    return Text(f"{count:,}", style="yellow" if count else "")


class Rates:
    """Messages a second of each feed, over the last ``RATE_WINDOW_S``."""

    def __init__(self, metrics: Metrics, clock_ns: Callable[[], int]) -> None:
        self._metrics = metrics
        self._clock_ns = clock_ns
        self._samples: list[tuple[int, dict[tuple[Feed, str], int]]] = []

    def sample(self) -> None:
        """Note the counters as they are now."""
        now_ns = self._clock_ns()
        self._samples.append((now_ns, {key: stats.stored for key, stats in self._metrics.feeds.items()}))
        while len(self._samples) > 2 and now_ns - self._samples[1][0] >= RATE_WINDOW_S * 1e9:
            del self._samples[0]

    def per_second(self, stats: FeedStats) -> float:
        """Return the rate of one feed between the oldest sample of the window and the newest."""
        if len(self._samples) < 2:
            return 0.0
        (from_ns, before), (to_ns, now) = self._samples[0], self._samples[-1]
        key = (stats.feed, stats.symbol)
        return (now.get(key, 0) - before.get(key, 0)) * 1e9 / max(to_ns - from_ns, 1)
