"""Why ids are missing: what the rows of ``breaks`` say of a hole, and what remains."""

from __future__ import annotations

from bisect import bisect_right
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING

import msgspec

from harvest.pipeline.verify.findings import DOWNTIME, UNEXPLAINED, Missing

if TYPE_CHECKING:
    from collections.abc import Iterable

    from harvest.book.sequence import DepthRule
    from harvest.pipeline.verify.continuity import Hole


class Break(msgspec.Struct, frozen=True):
    """A row of ``breaks`` that names ids."""

    seq: int
    feed: str
    reason: str
    from_id: int
    to_id: int
    from_ns: int | None
    to_ns: int


def explain_trades(holes: Iterable[Hole], breaks: Iterable[Break]) -> list[Missing]:
    """Cut holes into intervals with one reason each, ascending.

    The reason is that of the last row that speaks of the ids (a gap that REST was then asked for in vain is
    ``not_served``), the times those of the first.
    """
    by_start = sorted(breaks, key=lambda one: (one.from_id, one.to_id, one.seq))
    starts = [one.from_id for one in by_start]
    # No break before this place reaches further.
    reach = list(accumulate((one.to_id for one in by_start), max))
    missing: list[Missing] = []
    for hole in holes:
        low, high = hole.after + 1, hole.to
        about = []
        place = bisect_right(starts, high) - 1
        while place >= 0 and reach[place] >= low:
            if by_start[place].to_id >= low:
                about.append(by_start[place])
            place -= 1
        about.sort(key=lambda one: one.seq)
        cuts = {low} | {one.from_id for one in about} | {one.to_id + 1 for one in about}
        edges = [*sorted(edge for edge in cuts if low <= edge <= high), high + 1]
        pieces = [_explain_piece(from_id, until - 1, hole, about) for from_id, until in pairwise(edges)]
        missing += _joined(pieces)
    return missing


def explain_depth(holes: Iterable[Hole], breaks: Iterable[Break], rule: DepthRule) -> list[Missing]:
    """Find for each hole of the chain the break that names exactly its ends."""
    known = {(one.from_id, one.to_id): one for one in breaks}
    missing = []
    for hole in holes:
        from_id, to_id = hole.after, hole.to if rule == "usdm" else hole.to + 1
        found = known.get((from_id, to_id))
        if found is None:
            why = UNEXPLAINED if hole.same_run else DOWNTIME
            missing.append(Missing(from_id, to_id, hole.from_ns, hole.to_ns, why))
        else:
            from_ns = hole.from_ns if found.from_ns is None else found.from_ns
            missing.append(Missing(from_id, to_id, from_ns, found.to_ns, found.reason))
    return missing


def _explain_piece(from_id: int, to_id: int, hole: Hole, about: list[Break]) -> Missing:
    covering = [one for one in about if one.from_id <= from_id and one.to_id >= to_id]
    if not covering:
        why = UNEXPLAINED if hole.same_run else DOWNTIME
        return Missing(from_id, to_id, hole.from_ns, hole.to_ns, why)
    from_ns = next((one.from_ns for one in covering if one.from_ns is not None), hole.from_ns)
    return Missing(from_id, to_id, from_ns, covering[0].to_ns, covering[-1].reason)


def _joined(pieces: list[Missing]) -> list[Missing]:
    """Join neighbours of which the same is said."""
    joined: list[Missing] = []
    for piece in pieces:
        last = joined[-1] if joined else None
        if last is not None and (last.why, last.from_ns, last.to_ns) == (
            piece.why,
            piece.from_ns,
            piece.to_ns,
        ):
            joined[-1] = msgspec.structs.replace(last, to_id=piece.to_id)
        else:
            joined.append(piece)
    return joined
