"""Values by equal stretches of time, in bounded memory: as the time that they span grows, the stretches widen."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]

SECOND_NS = 10**9
DAY_NS = 86_400 * SECOND_NS
#: Widths in seconds. Each divides the next, so that buckets can be joined and nothing is counted twice.
WIDTHS_S = (1, 5, 15, 60, 300, 900, 3_600, 10_800, 43_200, 86_400, 604_800, 2_419_200, 31_449_600)
WIDTHS_NS = tuple(width * SECOND_NS for width in WIDTHS_S)
#: Buckets of one series that are held at once; beyond, they are joined.
MAX_HELD = 4_096


class Buckets:
    """Of each bucket that has rows: how many, and the sum, the least and the greatest of each of ``values`` numbers a row.

    ``keys`` are the buckets' starts, in widths since 1970, ascending.
    """

    def __init__(self, values: int = 0) -> None:
        self.width_ns = WIDTHS_NS[0]
        self.keys: Ints = np.empty(0, np.int64)
        self.counts: Ints = np.empty(0, np.int64)
        self.sums: Floats = np.empty((0, values))
        self.least: Floats = np.empty((0, values))
        self.greatest: Floats = np.empty((0, values))
        #: The times of the first and of the last row; None before there is one.
        self.bounds_ns: tuple[int, int] | None = None

    def add(self, at_ns: Ints, *values: Floats) -> None:
        """Take rows, in any order."""
        if not len(at_ns):
            return
        self._reach(int(at_ns.min()), int(at_ns.max()))
        table = np.column_stack(values) if values else np.empty((len(at_ns), 0))
        self._join(at_ns // self.width_ns, np.ones(len(at_ns), np.int64), table, table, table)
        while len(self.keys) > MAX_HELD and self.width_ns < WIDTHS_NS[-1]:
            self.widen(WIDTHS_NS[WIDTHS_NS.index(self.width_ns) + 1])

    def take(self, other: Buckets) -> None:
        """Take what another one holds, which is of the same width."""
        if other.bounds_ns is not None:
            self._reach(*other.bounds_ns)
        self._join(other.keys, other.counts, other.sums, other.least, other.greatest)

    def widen(self, width_ns: int) -> None:
        """Join buckets to wider ones; ``width_ns`` is one of ``WIDTHS_NS``, and not below the present one."""
        factor = width_ns // self.width_ns
        self.width_ns = width_ns
        self._hold(self.keys // factor, self.counts, self.sums, self.least, self.greatest)

    def means(self) -> Floats:
        """Return the mean of each number in each bucket."""
        means: Floats = self.sums / self.counts[:, None]
        return means

    def _reach(self, first_ns: int, last_ns: int) -> None:
        bounds = self.bounds_ns or (first_ns, last_ns)
        self.bounds_ns = min(bounds[0], first_ns), max(bounds[1], last_ns)

    def _join(self, keys: Ints, counts: Ints, sums: Floats, least: Floats, greatest: Floats) -> None:
        self._hold(
            np.concatenate((self.keys, keys)),
            np.concatenate((self.counts, counts)),
            np.concatenate((self.sums, sums)),
            np.concatenate((self.least, least)),
            np.concatenate((self.greatest, greatest)),
        )

    def _hold(self, keys: Ints, counts: Ints, sums: Floats, least: Floats, greatest: Floats) -> None:
        """Hold these instead: those of the same key become one."""
        if not len(keys):
            return
        order = np.argsort(keys, kind="stable")
        keys = keys[order]
        starts = np.concatenate(([0], np.flatnonzero(np.diff(keys)) + 1))
        self.keys = keys[starts]
        self.counts = np.add.reduceat(counts[order], starts)
        self.sums = np.add.reduceat(sums[order], starts)
        self.least = np.minimum.reduceat(least[order], starts)
        self.greatest = np.maximum.reduceat(greatest[order], starts)
