"""The lag sensor: our own stall must not look like the venue's silence.

Trio expires deadlines right after it has polled for I/O, before the tasks that the I/O woke run. So a loop that was
busy, or a process that was suspended, past a watchdog's deadline would restart a connection whose data is waiting in the
socket. This instrument measures each such stall and moves the watched deadlines on by its length before they are judged.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import trio

from harvest.log import get_logger

if TYPE_CHECKING:
    from collections.abc import Callable

log = get_logger("LAG")

#: Shorter delays are what a busy loop has anyway.
STALL_FROM_S = 0.05
#: Stalls from here on are worth a line.
LOG_FROM_S = 1.0


class LagSensor(trio.abc.Instrument):
    """Extends the deadlines of watched scopes by every stall of the loop.

    ``clock`` is real monotonic time in seconds: a stall is real also where Trio's clock is a test's.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._watched: set[trio.CancelScope] = set()
        self._woke_at = clock()
        self._expected_at = float("inf")
        #: All stalls since the start: their sum, and the longest, in seconds.
        self.total_s = 0.0
        self.longest_s = 0.0

    def watch(self, scope: trio.CancelScope) -> None:
        """Extend the deadline of ``scope`` from now on; ``unwatch`` it when it ends."""
        self._watched.add(scope)

    def unwatch(self, scope: trio.CancelScope) -> None:
        """Leave the deadline of ``scope`` alone again."""
        self._watched.discard(scope)

    def before_io_wait(self, timeout: float) -> None:
        """Note how long the tasks ran since the loop woke."""
        now = self._clock()
        self._expected_at = now + timeout
        self._extend(now - self._woke_at)

    def after_io_wait(self, timeout: float) -> None:
        """Note how much later than asked for the loop woke: the process was suspended, or starved."""
        now = self._clock()
        self._woke_at = now
        if timeout > 0:
            self._extend(now - self._expected_at)

    def _extend(self, stall_s: float) -> None:
        if stall_s < STALL_FROM_S:
            return
        self.total_s += stall_s
        self.longest_s = max(self.longest_s, stall_s)
        for scope in self._watched:
            # Never ask ``cancel_called`` here: it would judge the deadline by the clock, stall included.
            scope.deadline += stall_s
        if stall_s >= LOG_FROM_S:
            log.warning("our own loop stood still for %.1fs; watchdogs are extended by it", stall_s)
