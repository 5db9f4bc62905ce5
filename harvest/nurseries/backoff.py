"""How long to wait before the next attempt: jittered, bounded, and forgotten after a stable time."""

from __future__ import annotations

import random

#: The first retry comes within this part of the initial wait: most breaks are over at once.
FIRST_RETRY_SHARE = 0.25
#: A session of so many initial waits shows that the venue serves us: what then follows is no repeated failure.
GOOD_WAITS = 10


class Backoff:
    """Waits that double from ``initial_s`` to ``max_s``, each drawn from its upper half.

    The first wait is short: within a quarter of ``initial_s``. Waits grow with each failure to connect, and with each
    session that brought data for less than ten initial waits; after a longer one they shrink by a step, so that cuts
    every half minute cost next to nothing. ``reset_s`` of good work forgets all failures at once.
    """

    def __init__(self, *, initial_s: float, max_s: float, reset_s: float, seed: int | None = None) -> None:
        self._initial_s = initial_s
        self._max_s = max_s
        self._reset_s = reset_s
        self._random = random.Random(seed)
        self.failures = 0

    def is_good(self, stable_for_s: float) -> bool:
        """Tell whether a session that brought data for so long shows that the venue serves us."""
        return stable_for_s >= GOOD_WAITS * self._initial_s

    def next_wait_s(self, stable_for_s: float) -> float:
        """Return the seconds to wait after a failure that ended ``stable_for_s`` seconds of good work."""
        if stable_for_s >= self._reset_s:
            self.failures = 0
        elif self.is_good(stable_for_s):
            self.failures = max(self.failures - 2, 0)
        self.failures += 1
        if self.failures == 1:
            return self._random.uniform(0, FIRST_RETRY_SHARE * self._initial_s)
        # The exponent is bounded too: months of failures must not overflow a float.
        ceiling = min(self._max_s, self._initial_s * 2 ** min(self.failures - 2, 60))
        return self._random.uniform(ceiling / 2, ceiling)
