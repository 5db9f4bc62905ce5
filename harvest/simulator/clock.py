"""The venue's clock: wall time, but faster or slower where a configuration or a fault says so."""

from __future__ import annotations

import time
from typing import Final

import trio

#: 2025-01-01T00:00:00Z: where the random market's time begins.
EPOCH_NS: Final = 1_735_689_600 * 10**9


class VenueClock:
    """Maps Trio's clock to the venue's time, in nanoseconds UTC; it never runs backwards by itself.

    Must be made inside ``trio.run``.
    """

    def __init__(self, speed: float = 1.0, start_ns: int | None = None) -> None:
        self._wall_start_ns = time.time_ns()
        self._started = self._anchor = trio.current_time()
        self._speed = speed
        self._pace = 1.0
        if start_ns is not None:
            self._anchor_ns = start_ns
        elif speed == 1.0:
            self._anchor_ns = self._wall_start_ns
        else:
            self._anchor_ns = EPOCH_NS + int((self._wall_start_ns - EPOCH_NS) * speed)

    def now_ns(self) -> int:
        """Give the venue's time."""
        elapsed = trio.current_time() - self._anchor
        return self._anchor_ns + int(elapsed * self._speed * self._pace * 1e9)

    def wall_ns(self) -> int:
        """Give the wall's time, as counted from the start on Trio's clock."""
        return self._wall_start_ns + int((trio.current_time() - self._started) * 1e9)

    def seconds_until(self, venue_ns: int) -> float:
        """Give the wall seconds until the venue's time is ``venue_ns``; negative if it has passed."""
        elapsed = trio.current_time() - self._anchor
        return (venue_ns - self._anchor_ns) / (self._speed * self._pace * 1e9) - elapsed

    def restart(self, venue_ns: int) -> None:
        """Let the venue's time be ``venue_ns`` now, at the present pace."""
        self._anchor_ns, self._anchor = venue_ns, trio.current_time()

    def set_pace(self, pace: float) -> None:
        """Run ``pace`` times as fast as the configured speed from now on."""
        self._anchor_ns = self.now_ns()
        self._anchor = trio.current_time()
        self._pace = pace
