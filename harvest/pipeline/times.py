"""Wire times: milliseconds or microseconds, told apart by their size."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Wire times below this are milliseconds (until the year 5138), from it on microseconds (since 1973).
MICROSECONDS_FROM = 10**14


def to_us(wire_time: int) -> int:
    """Return a wire time in microseconds since 1970."""
    return wire_time * 1000 if wire_time < MICROSECONDS_FROM else wire_time


def all_to_us(wire_times: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return wire times in microseconds since 1970."""
    return np.where(wire_times < MICROSECONDS_FROM, wire_times * 1000, wire_times)
