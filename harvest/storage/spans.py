"""Intervals of ids, by vectors: each row is a link (after, to], and links that meet are one span.

A trade links its predecessor's id to its own. A diff links the id before it to its last one: on USD-M the predecessor
that it names, on spot the id before its first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from harvest.storage.kinds import UNKNOWN

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Ids = NDArray[np.int64]


class Links(NamedTuple):
    """One link a row: from after ``after`` up to ``to``, inclusive."""

    after: Ids
    to: Ids


def trade_links(trade_ids: Ids) -> Links:
    """Make the links of trades."""
    return Links(trade_ids - 1, trade_ids)


def diff_links(first_ids: Ids, last_ids: Ids, prev_ids: Ids) -> Links:
    """Make the links of diffs, by the fields of ``depth``."""
    return Links(np.where(prev_ids == UNKNOWN, first_ids - 1, prev_ids), last_ids)


def span_starts(links: Links, *, may_overlap: bool) -> Ids:
    """Return the indices of the rows that do not go on from the row before.

    ``may_overlap``: a link may begin before the end of the one before it, as long as it goes beyond (diffs).
    """
    after, to = links.after[1:], links.to
    follows = (after <= to[:-1]) & (to[1:] > to[:-1]) if may_overlap else after == to[:-1]
    starts = np.flatnonzero(~follows) + 1
    return np.concatenate(([0], starts)) if len(to) else starts
