"""The timeline: what is missing as coloured pieces on a lane, as fine as a screen shows and no finer."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

import attrs

from harvest.pipeline.verify.coverage import merged
from harvest.pipeline.verify.findings import UNEXPLAINED
from harvest.report.markup import Html, element
from harvest.report.texts import count
from harvest.storage.kinds import REASONS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from harvest.report.axis import TimeAxis

#: Units of a lane's length. A piece is never thinner than ``_LEAST``, so that no gap is too short to be seen.
WIDTH = 1000
_LEAST = 3
#: In the order of the legend.
ALL_REASONS = (*REASONS, UNEXPLAINED)


@attrs.frozen
class Interval:
    """A stretch that something is said of, with its reason; an end is None where it is not known."""

    from_ns: int | None
    to_ns: int | None
    reason: str


def reason_class(reason: str) -> str:
    """Return the class that colours a reason; one that this page has no colour for is coloured as other."""
    return f"r-{reason}" if reason in ALL_REASONS else "r-other"


def reason_label(reason: str) -> Html:
    """Write a reason with its colour."""
    return element(
        "span", element("i", class_=f"key {reason_class(reason)}"), reason.replace("_", " "), class_="reason"
    )


def lane(
    axis: TimeAxis,
    covered: tuple[int, int] | None,
    intervals: Iterable[Interval],
    label: str,
    *,
    what: str = "gaps",
) -> Html:
    """Draw one lane. ``covered`` is the time from the first to the last row, which lies under the pieces."""
    parts = []
    if covered is not None:
        left, right = (round(axis.share(at_ns) * WIDTH) for at_ns in covered)
        parts.append(element("rect", class_="covered", x=left, width=max(right - left, _LEAST), height=10))
    drawn = _joined(axis, intervals)
    for reason, (number, pieces) in drawn.items():
        strokes = "".join(f"M{left} 0h{right - left}v10h{left - right}z" for left, right in pieces)
        text = f"{label}: {reason.replace('_', ' ')}, {count(number)} of them here"
        parts.append(element("path", class_=reason_class(reason), d=strokes, data_t=text))
    total = sum(number for number, _ in drawn.values())
    return element(
        "svg",
        *parts,
        class_="lane",
        viewBox=f"0 0 {WIDTH} 10",
        preserveAspectRatio="none",
        role="img",
        aria_label=f"{label}: {count(total) if total else 'no'} {what}",
    )


def _joined(axis: TimeAxis, intervals: Iterable[Interval]) -> dict[str, tuple[int, list[tuple[int, int]]]]:
    """Place the intervals: by reason, how many there are, and from where to where; what would touch is one piece.

    Unexplained ones come last, and so lie on top.
    """
    placed: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for one in intervals:
        ends = [at_ns for at_ns in (one.from_ns, one.to_ns) if at_ns is not None]
        if ends:
            left = min(int(axis.share(min(ends)) * WIDTH), WIDTH - _LEAST)
            placed[one.reason].append((left, max(round(axis.share(max(ends)) * WIDTH), left + _LEAST)))
    ordered = sorted(placed.items(), key=lambda item: (item[0] == UNEXPLAINED, item[0]))
    return {reason: (len(pieces), merged(pieces)) for reason, pieces in ordered}
