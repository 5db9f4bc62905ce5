"""The timeline: what is missing as coloured pieces on a lane, as fine as a screen shows and no finer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from harvest.pipeline.verify.findings import UNEXPLAINED
from harvest.report.markup import Html, element
from harvest.report.texts import count, counted, duration, time
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


@attrs.define
class _Piece:
    left: int
    right: int
    from_ns: int
    to_ns: int
    reason: str
    intervals: int = 1


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
    pieces = _joined(axis, intervals)
    for piece in pieces:
        number = f"{count(piece.intervals)} {what}, " if piece.intervals > 1 else ""
        text = (
            f"{label}: {number}{piece.reason.replace('_', ' ')}, {duration(piece.to_ns - piece.from_ns)}\n"
            f"{time(piece.from_ns)} to {time(piece.to_ns)}"
        )
        parts.append(
            element(
                "rect",
                class_=reason_class(piece.reason),
                x=piece.left,
                width=piece.right - piece.left,
                height=10,
                data_t=text,
            )
        )
    said = f"{label}: {counted(len(pieces), 'piece')} with {what}" if pieces else f"{label}: no {what}"
    return element(
        "svg",
        *parts,
        class_="lane",
        viewBox=f"0 0 {WIDTH} 10",
        preserveAspectRatio="none",
        role="img",
        aria_label=said,
    )


def _joined(axis: TimeAxis, intervals: Iterable[Interval]) -> list[_Piece]:
    """Place the intervals; what would touch, and has the same reason, is one piece. Unexplained ones come last, on top."""
    latest: dict[str, _Piece] = {}
    pieces: list[_Piece] = []
    timed = [
        (
            one.to_ns if one.from_ns is None else one.from_ns,
            one.from_ns if one.to_ns is None else one.to_ns,
            one.reason,
        )
        for one in intervals
    ]
    for from_ns, to_ns, reason in sorted(
        (low, high, why) for low, high, why in timed if low is not None and high is not None
    ):
        left = min(int(axis.share(from_ns) * WIDTH), WIDTH - _LEAST)
        right = max(round(axis.share(to_ns) * WIDTH), left + _LEAST)
        before = latest.get(reason)
        if before is not None and left <= before.right + 1:
            before.right, before.to_ns = max(before.right, right), max(before.to_ns, to_ns)
            before.intervals += 1
        else:
            latest[reason] = piece = _Piece(left, right, from_ns, to_ns, reason)
            pieces.append(piece)
    return sorted(pieces, key=lambda piece: (piece.reason == UNEXPLAINED, piece.left, piece.reason))
