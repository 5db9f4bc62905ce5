"""Request weights: what the venue counts a minute, when it refuses, and when it bans."""

from __future__ import annotations

import math
from typing import Final

import attrs

_MINUTE_S: Final = 60.0


@attrs.frozen
class Verdict:
    """What became of a request: the status, the weight used in this minute, and how long to stay away."""

    status: int
    used: int
    retry_after_s: int | None = None


class WeightMeter:
    """Counts weight in whole minutes of the wall clock; times are in seconds.

    A request over the limit gets a 429 with ``Retry-After`` until the minute's end; one that comes before
    that is over is ignoring it, and after ``ignored_429s`` of them the caller is banned for ``ban_s`` (418).
    """

    def __init__(self, limit: int, *, ignored_429s: int, ban_s: float) -> None:
        self._limit = limit
        self._patience = ignored_429s
        self._ban_s = ban_s
        self._minute = -1
        self._used = 0
        self._refused_until = 0.0
        self._ignored = 0
        self._banned_until = 0.0

    def ask(self, weight: int, now_s: float) -> Verdict:
        """Count a request of ``weight`` at ``now_s`` (of the wall clock), and judge it."""
        minute = int(now_s // _MINUTE_S)
        if minute != self._minute:
            self._minute, self._used = minute, 0
        if now_s < self._banned_until:
            return self._refusal(418, self._banned_until, now_s)
        if now_s < self._refused_until:
            self._ignored += 1
            if self._ignored > self._patience:
                self._banned_until = now_s + self._ban_s
                self._ignored = 0
                return self._refusal(418, self._banned_until, now_s)
            return self._refusal(429, self._refused_until, now_s)
        self._ignored = 0
        self._used += weight
        if self._used > self._limit:
            self._refused_until = (minute + 1) * _MINUTE_S
            return self._refusal(429, self._refused_until, now_s)
        return Verdict(200, self._used)

    def _refusal(self, status: int, until_s: float, now_s: float) -> Verdict:
        return Verdict(status, self._used, max(1, math.ceil(until_s - now_s)))
