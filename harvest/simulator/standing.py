"""What is wrong at the moment: the faults that last, as the connections and the REST side ask for them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import attrs
import trio

if TYPE_CHECKING:
    from harvest.simulator.fault import Target
    from harvest.simulator.streams import StreamKey

NEVER: Final = -float("inf")


class Gate:
    """Open, or closed until somebody opens it; the whole server stands before it while it is closed."""

    def __init__(self) -> None:
        self._until = NEVER

    @property
    def is_closed(self) -> bool:
        """Whether it is closed now."""
        return trio.current_time() < self._until

    def close(self, until: float) -> None:
        """Keep it closed until an instant of Trio's clock."""
        self._until = max(self._until, until)

    async def passed(self) -> None:
        """Wait until it is open; no checkpoint where it is open already."""
        if self.is_closed:
            await trio.sleep_until(self._until)
            await self.passed()


@attrs.define
class StandingFaults:
    """Each fault by the instant of Trio's clock at which it ends."""

    gate: Gate = attrs.Factory(Gate)
    silenced: list[tuple[Target, float, float]] = attrs.Factory(list)
    """What is silent on connections opened from the second to the third: (target, from, until)."""
    muted_routes: dict[str, float] = attrs.Factory(dict)
    delisted: set[str] = attrs.Factory(set)
    halted_until: dict[str, float] = attrs.Factory(dict)
    no_pong_until: float = NEVER
    reject_until: float = NEVER
    reject_hard: bool = False
    fragment_until: float = NEVER
    banned_until: float = NEVER
    throttled_until: float = NEVER
    rest_down_until: float = NEVER
    slow_rest_until: float = NEVER
    slow_rest_s: float = 0.0

    def silences_new(self, key: StreamKey, opened_at: float) -> bool:
        """Say whether a connection that opened during a stall is still silent on a stream."""
        now = trio.current_time()
        return any(
            start <= opened_at and now < until and target.hits(key) for target, start, until in self.silenced
        )

    def halts(self, symbol: str) -> bool:
        """Say whether a symbol is listed, but not traded now."""
        return trio.current_time() < self.halted_until.get(symbol, NEVER)

    def mutes(self, route: str) -> bool:
        """Say whether a route is silent now."""
        return trio.current_time() < self.muted_routes.get(route, NEVER)
