"""Stream names: what each means, and which route of the venue carries it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

import attrs

if TYPE_CHECKING:
    from harvest.simulator.rules import Route, VenueRules

Kind = Literal["trade", "aggTrade", "depth", "partial", "bookTicker", "markPrice", "forceOrder"]
Feed = Literal["trades", "orderbook", "other"]

_FEEDS: Final[dict[str, Feed]] = {
    "trade": "trades",
    "aggTrade": "trades",
    "depth": "orderbook",
    "partial": "orderbook",
}
_ROUTES: Final[dict[str, Route]] = {
    "trade": "public",
    "depth": "public",
    "partial": "public",
    "bookTicker": "public",
}
_PARTIAL_LEVELS: Final = {"depth5": 5, "depth10": 10, "depth20": 20}


@attrs.frozen
class StreamKey:
    """What a stream carries; two names of the same stream have equal keys.

    ``symbol`` is upper case, None for all symbols. ``interval_ms`` is 0 where every change is sent at once.
    """

    symbol: str | None
    kind: Kind
    interval_ms: int = 0
    levels: int = 0

    @property
    def feed(self) -> Feed:
        """The feed that faults speak of."""
        return _FEEDS.get(self.kind, "other")

    @property
    def route(self) -> Route:
        """The route of USD-M that carries it; on any other it is acknowledged and silent."""
        return _ROUTES.get(self.kind, "market")

    @property
    def recorded_as(self) -> tuple[str, str]:
        """Symbol and event type as in a recording's stream names, whatever the interval."""
        kind = f"depth{self.levels}" if self.kind == "partial" else self.kind
        return ("!forceOrder", "arr") if self.symbol is None else (self.symbol.lower(), kind)


def parse_stream(name: str, rules: VenueRules) -> StreamKey | None:
    """Read a stream name; None for one that the venue acknowledges and never sends.

    Names are lower case but for the event type; an upper-case symbol is unknown to the venue.
    """
    if name == "!forceOrder@arr":
        return StreamKey(None, "forceOrder") if rules.futures else None
    symbol, *words = name.split("@")
    if not symbol or symbol != symbol.lower() or not words:
        return None
    symbol = symbol.upper()
    match words:
        case ["trade" | "aggTrade" | "bookTicker" as kind]:
            return StreamKey(symbol, kind)
        case ["forceOrder"] if rules.futures:
            return StreamKey(symbol, "forceOrder")
        case ["markPrice"] if rules.futures:
            return StreamKey(symbol, "markPrice", 3000)
        case ["markPrice", "1s"] if rules.futures:
            return StreamKey(symbol, "markPrice", 1000)
        case [depth, *interval] if len(interval) <= 1 and depth.startswith("depth"):
            interval_ms = _depth_interval(interval, rules)
            if interval_ms is None:
                return None
            if depth == "depth":
                return StreamKey(symbol, "depth", interval_ms)
            if depth in _PARTIAL_LEVELS:
                return StreamKey(symbol, "partial", interval_ms, _PARTIAL_LEVELS[depth])
    return None


def _depth_interval(words: list[str], rules: VenueRules) -> int | None:
    if not words:
        return rules.depth_interval_ms
    text = words[0]
    if not text.endswith("ms") or not text[:-2].isdecimal():
        return None
    interval_ms = int(text[:-2])
    return interval_ms if interval_ms in rules.depth_intervals_ms else None


def split_recorded(stream: str) -> tuple[str, str]:
    """Give symbol and event type of a recording's stream name, without its interval."""
    symbol, _, rest = stream.partition("@")
    return symbol, rest.partition("@")[0]
