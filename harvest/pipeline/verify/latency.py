"""Latencies from event to receipt, as a histogram: quantiles to a thousandth, in bounded memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Each bin is this much wider than the one before.
_GROWTH = np.log(1.002)
#: Microseconds, 11 days: what exceeds that is in the last bin.
_MOST = 10**12
_SIDE = int(np.log(_MOST) / _GROWTH) + 2


class Latency(msgspec.Struct, frozen=True):
    """Milliseconds from event time to receipt of ``count`` rows.

    Negative ones (``skewed``, the least of them ``min_ms``) say that one of the two clocks is wrong, by that much at least.
    """

    count: int
    p50_ms: float
    p99_ms: float
    max_ms: float
    min_ms: float
    skewed: int


class Latencies:
    """Gathers latencies."""

    def __init__(self) -> None:
        self._bins = np.zeros(2 * _SIDE + 1, np.int64)
        self._low, self._high = 2**62, -(2**62)
        self._skewed = 0

    def add(self, recv_ns: NDArray[np.int64], event_us: NDArray[np.int64]) -> None:
        """Take rows whose event time is known."""
        if not len(recv_ns):
            return
        late_us = recv_ns // 1000 - event_us
        self._low = min(self._low, int(late_us.min()))
        self._high = max(self._high, int(late_us.max()))
        self._skewed += int((late_us < 0).sum())
        size = np.clip(np.abs(late_us), 0, _MOST)
        steps = np.where(size == 0, 0, 1 + np.floor(np.log(np.maximum(size, 1)) / _GROWTH)).astype(np.int64)
        self._bins += np.bincount(_SIDE + np.sign(late_us) * steps, minlength=2 * _SIDE + 1)

    def summary(self) -> Latency | None:
        """Sum them up; None if there were none."""
        count = int(self._bins.sum())
        if not count:
            return None
        return Latency(
            count,
            self._quantile(0.5, count),
            self._quantile(0.99, count),
            self._high / 1000,
            self._low / 1000,
            self._skewed,
        )

    def _quantile(self, share: float, count: int) -> float:
        step = int(np.searchsorted(np.cumsum(self._bins), share * count)) - _SIDE
        middle_us = float(np.exp((abs(step) - 0.5) * _GROWTH)) if step else 0.0
        # No bin's middle lies beyond what was seen.
        return min(max(float(np.sign(step)) * middle_us, self._low), self._high) / 1000
