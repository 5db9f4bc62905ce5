"""How much of what there was is stored: by ids, and by the seconds in which nothing is missing."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from harvest.pipeline.verify.findings import Missing, Uncovered

DAY_NS = 86_400 * 10**9
Interval = tuple[int, int]


class DayCoverage(msgspec.Struct, frozen=True):
    """One date of one kind. Percentages are null where there is nothing to count."""

    day: int
    rows: int
    coverage_ids: float | None
    coverage_s: float | None


def percent(part: float, whole: float) -> float:
    """Return the part of a whole in percent; all of nothing is all. Less than all is never rounded up to 100."""
    if part >= whole:
        return 100.0
    return min(100.0 * part / whole, 99.999999)


def merged(intervals: Iterable[Interval]) -> list[Interval]:
    """Join intervals that overlap."""
    joined: list[Interval] = []
    for low, high in sorted(intervals):
        if joined and low <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(joined[-1][1], high))
        else:
            joined.append((low, high))
    return joined


def length(intervals: Iterable[Interval], within: Interval) -> int:
    """Return how much of ``within`` disjoint intervals take."""
    return sum(max(min(high, within[1]) - max(low, within[0]), 0) for low, high in intervals)


def uncovered(missing: Iterable[Missing | Uncovered]) -> list[Interval]:
    """Return the times in which something is missing."""
    return merged(
        (one.from_ns, one.to_ns)
        for one in missing
        if one.from_ns is not None and one.to_ns is not None and one.from_ns < one.to_ns
    )


def between(covered: Iterable[Interval], whole: Interval) -> list[Interval]:
    """Return what of ``whole`` lies in no interval of ``covered``."""
    rest, at = [], whole[0]
    for low, high in merged(covered):
        if low > at:
            rest.append((at, min(low, whole[1])))
        at = max(at, high)
    if at < whole[1]:
        rest.append((at, whole[1]))
    return rest


def seconds_by_day(whole: Interval, lacking: list[Interval]) -> dict[int, float]:
    """Return, for each date that ``whole`` touches, the percentage of its time there in which nothing is missing."""
    by_day = {}
    place = 0
    for day in range(whole[0] // DAY_NS, whole[1] // DAY_NS + 1):
        here = max(whole[0], day * DAY_NS), min(whole[1], (day + 1) * DAY_NS)
        while place < len(lacking) and lacking[place][1] <= here[0]:
            place += 1
        until = place
        while until < len(lacking) and lacking[until][0] < here[1]:
            until += 1
        span = here[1] - here[0]
        by_day[day] = percent(span - length(lacking[place:until], here), span)
    return by_day


def seconds(whole: Interval, lacking: list[Interval]) -> float:
    """Return the percentage of ``whole`` in which nothing is missing."""
    span = whole[1] - whole[0]
    return percent(span - length(lacking, whole), span)


def missing_by_day(counts: Iterable[tuple[Missing, int]]) -> dict[int, int]:
    """Sum up what is missing by the date on which each interval ends; what has no time is left out."""
    by_day: dict[int, int] = defaultdict(int)
    for one, count in counts:
        at_ns = one.to_ns if one.to_ns is not None else one.from_ns
        if at_ns is not None:
            by_day[at_ns // DAY_NS] += count
    return by_day


def days(
    rows: Mapping[int, int],
    stored: Mapping[int, int] | None,
    missing: Mapping[int, int],
    time: Mapping[int, float],
) -> list[DayCoverage]:
    """Put the dates together, oldest first; ``stored`` and ``missing`` are what is counted, None for nothing."""
    found = []
    for day in sorted({*rows, *time, *missing}):
        ids = None
        if stored is not None:
            here = stored.get(day, 0)
            ids = percent(here, here + missing.get(day, 0))
        found.append(DayCoverage(day, rows.get(day, 0), ids, time.get(day)))
    return found
