"""The axis of time that all charts of a page share, so that one may be held against the other."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import attrs
import numpy as np

from harvest.report.buckets import DAY_NS, SECOND_NS, WIDTHS_NS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from harvest.report.buckets import Buckets, Floats
    from harvest.report.measures import Measures

_STEPS_S = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1_800, 3_600, 7_200, 10_800, 21_600, 43_200)
_STEPS_DAYS = (1, 2, 7, 14)
_STEPS_MONTHS = (1, 2, 3, 6, 12, 24, 60, 120)


@attrs.frozen
class Tick:
    """A mark on an axis, at a share (0 to 1) of its length."""

    at: float
    text: str


@attrs.frozen
class TimeAxis:
    """``count`` buckets of ``width_ns`` from ``start_ns`` on."""

    start_ns: int
    width_ns: int
    count: int

    @property
    def end_ns(self) -> int:
        """Where the last bucket ends."""
        return self.start_ns + self.width_ns * self.count

    def share(self, at_ns: int) -> float:
        """Return how far along an instant is, from 0 to 1; what lies beyond an end is at that end."""
        return min(max((at_ns - self.start_ns) / (self.end_ns - self.start_ns), 0.0), 1.0)

    def spread(self, keys: NDArray[np.int64], values: Floats) -> Floats:
        """Put values of some buckets in their places; NaN elsewhere."""
        dense = np.full(self.count, np.nan)
        dense[keys - self.start_ns // self.width_ns] = values
        return dense

    def rates(self, buckets: Buckets) -> Floats:
        """Return rows a second: 0 where there were none between the first and the last, NaN before and after.

        The first and the last bucket count for the time from the first and to the last row; below half a bucket that gives
        no rate.
        """
        if buckets.bounds_ns is None:
            return np.full(self.count, np.nan)
        starts_ns = buckets.keys * self.width_ns
        first_ns, last_ns = buckets.bounds_ns
        lengths_ns = np.minimum(starts_ns + self.width_ns, last_ns) - np.maximum(starts_ns, first_ns)
        # Too short a time gives no rate, unless there is nothing else.
        counted = lengths_ns >= (self.width_ns / 2 if len(lengths_ns) > 2 else 1)
        rates = self.spread(buckets.keys, buckets.counts / np.maximum(lengths_ns, 1) * SECOND_NS)
        places = buckets.keys - self.start_ns // self.width_ns
        between = rates[places[0] : places[-1] + 1]
        between[np.isnan(between)] = 0.0
        rates[places[~counted]] = np.nan
        return rates

    def ticks(self, most: int = 8) -> list[Tick]:
        """Return about ``most`` readable marks, oldest first: round times, dates or months, in UTC."""
        span_ns = self.end_ns - self.start_ns
        for step_s in _STEPS_S:
            if span_ns <= most * step_s * SECOND_NS:
                return self._even(step_s * SECOND_NS, "%H:%M:%S" if step_s < 60 else "%H:%M")
        for days in _STEPS_DAYS:
            if span_ns <= most * days * DAY_NS:
                return self._even(days * DAY_NS, "%-d %b")
        for months in _STEPS_MONTHS:
            if span_ns <= most * months * 31 * DAY_NS:
                break
        return self._monthly(months, most)

    def _even(self, step_ns: int, pattern: str) -> list[Tick]:
        first = -(-self.start_ns // step_ns) * step_ns
        return [
            Tick(self.share(at_ns), _text(at_ns, "%-d %b" if at_ns % DAY_NS == 0 else pattern))
            for at_ns in range(first, self.end_ns + 1, step_ns)
        ]

    def _monthly(self, step: int, most: int) -> list[Tick]:
        first = int(np.datetime64(self.start_ns, "ns").astype("datetime64[M]").astype(np.int64))
        found = []
        for month in range(-(-first // step) * step, first + (most + 2) * step, step):
            at_ns = int(np.datetime64(month, "M").astype("datetime64[s]").astype(np.int64)) * SECOND_NS
            if self.start_ns <= at_ns <= self.end_ns:
                found.append(Tick(self.share(at_ns), _text(at_ns, "%b %Y")))
        return found


def fitted(measures: Iterable[Measures], *, max_buckets: int) -> TimeAxis | None:
    """Make the axis that spans all measures, and widen their buckets to its own; None where nothing has a time."""
    every = [buckets for one in measures for buckets in one.buckets if len(buckets.keys)]
    if not every:
        return None
    start_ns = min(int(buckets.keys[0]) * buckets.width_ns for buckets in every)
    end_ns = max((int(buckets.keys[-1]) + 1) * buckets.width_ns for buckets in every)
    least_ns = max(buckets.width_ns for buckets in every)
    for width_ns in WIDTHS_NS:
        count = -(-end_ns // width_ns) - start_ns // width_ns
        if width_ns >= least_ns and count <= max_buckets:
            break
    for buckets in every:
        buckets.widen(width_ns)
    return TimeAxis(start_ns // width_ns * width_ns, width_ns, count)


def _text(at_ns: int, pattern: str) -> str:
    moment = datetime.fromtimestamp(at_ns // SECOND_NS, UTC)
    # Not every platform knows %-d.
    return moment.strftime(pattern.replace("%-d", str(moment.day)))
