"""A fault: what goes wrong, when, and to what."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import attrs

from harvest.errors import SimulatorError

if TYPE_CHECKING:
    import random

    from harvest.simulator.streams import StreamKey

Action = Literal[
    "stall",
    "forget",
    "cut",
    "mute route",
    "delist",
    "halt",
    "shutdown",
    "no-pong",
    "reject connections",
    "gap",
    "duplicate",
    "swap",
    "drop level",
    "malformed",
    "unknown event",
    "fragment",
    "burst",
    "pause",
    "ban",
    "throttle",
    "rest down",
    "slow rest",
]


class FaultScriptError(SimulatorError):
    """A fault script that cannot be understood; ``column`` counts from 1."""

    def __init__(self, script: str, column: int, why: str) -> None:
        self.script, self.column, self.why = script, column, why
        super().__init__(f"fault {script!r}, column {column}: {why}")


@attrs.frozen
class Span:
    """A duration in seconds, drawn from [low_s, high_s]."""

    low_s: float
    high_s: float

    def draw(self, dice: random.Random) -> float:
        """Draw one."""
        return self.low_s if self.low_s == self.high_s else dice.uniform(self.low_s, self.high_s)


@attrs.frozen
class Target:
    """Which streams a fault is about; None is any."""

    feed: str | None = None
    symbol: str | None = None

    def hits(self, key: StreamKey) -> bool:
        """Say whether a stream is meant."""
        return (self.feed is None or key.feed == self.feed) and (
            self.symbol is None or key.symbol == self.symbol
        )


@attrs.frozen
class Fault:
    """One parsed script. What an action does not take is None (``count``: 1; ``hard``, ``on_one``: False)."""

    script: str
    action: Action
    at: Span
    every: Span | None = None
    target: Target = Target()
    for_s: float | None = None
    code: int | None = None
    hard: bool = False
    on_one: bool = False
    count: int = 1
    route: str | None = None
    notice_s: float | None = None
    by_s: float | None = None
    times: float | None = None
