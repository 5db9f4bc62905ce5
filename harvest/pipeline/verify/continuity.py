"""Which ids are stored, over all files, dates and runs, and which are missing between them."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from harvest.storage.kinds import UNKNOWN
from harvest.storage.spans import span_starts

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from harvest.storage.spans import Links

    Ids = NDArray[np.int64]

#: Spans that are gathered before those that meet are joined.
MAX_LOOSE = 8_192


class _Span(NamedTuple):
    """Ids after ``after`` up to ``to``; when, over the stream, and in which run its first and its last were received."""

    after: int
    to: int
    first_ns: int
    last_ns: int
    first_run: int
    last_run: int


class Hole(NamedTuple):
    """Nothing is stored after ``after`` up to ``to``, inclusive.

    ``from_ns`` and ``to_ns`` are the receive times of the last message of the stream before it and the first one after it,
    None where unknown; ``same_run`` says whether one run stored both.
    """

    after: int
    to: int
    from_ns: int | None
    to_ns: int | None
    same_run: bool


class StoredIds:
    """Gathers the links of rows in any order. Memory is that of the holes, not of the ids.

    ``may_overlap`` is for diffs, which may begin before their predecessor's end; where it is False every id that comes twice
    is a duplicate.
    """

    def __init__(self, *, may_overlap: bool) -> None:
        #: Ids that came more than once, as (from, to), both inclusive (trades alone).
        self.duplicates: list[tuple[int, int]] = []
        self._may_overlap = may_overlap
        self._spans: list[_Span] = []
        self._loose: list[_Span] = []

    def add(self, links: Links, recv_ns: Ids, runs: Ids) -> None:
        """Take the links of rows. The receive time of what did not come over the stream is UNKNOWN."""
        if not len(links.to):
            return
        if not self._may_overlap and (links.to[1:] < links.to[:-1]).any():
            order = np.argsort(links.to, kind="stable")
            links, recv_ns, runs = (
                type(links)(links.after[order], links.to[order]),
                recv_ns[order],
                runs[order],
            )
        starts = span_starts(links, may_overlap=self._may_overlap)
        ends = np.append(starts[1:], len(links.to)) - 1
        first_ns, last_ns = _first_known(recv_ns, starts, ends), _last_known(recv_ns, starts, ends)
        columns = (links.after[starts], links.to[ends], first_ns, last_ns, runs[starts], runs[ends])
        self._loose += map(_Span._make, zip(*(column.tolist() for column in columns), strict=True))
        if len(self._loose) > MAX_LOOSE:
            self._join()

    def holds(self, ids: Ids) -> NDArray[np.bool_]:
        """Tell which ids are within what was added so far."""
        self._join()
        if not self._spans:
            return np.zeros(len(ids), np.bool_)
        after = np.array([span.after for span in self._spans])
        to = np.array([span.to for span in self._spans])
        at = np.searchsorted(after, ids, side="left") - 1
        found: NDArray[np.bool_] = (at >= 0) & (ids <= to[at])
        return found

    def holes(self) -> list[Hole]:
        """Return what is missing between the first id and the last, ascending."""
        self._join()
        return [
            Hole(
                before.to,
                then.after,
                _known(before.last_ns),
                _known(then.first_ns),
                before.last_run == then.first_run,
            )
            for before, then in pairwise(self._spans)
        ]

    @property
    def bounds(self) -> tuple[int, int] | None:
        """What the first id follows, and the last id; None if there are none."""
        self._join()
        return (self._spans[0].after, self._spans[-1].to) if self._spans else None

    def _join(self) -> None:
        if not self._loose:
            return
        joined: list[_Span] = []
        for span in sorted(self._spans + self._loose, key=lambda one: (one.after, one.to)):
            last = joined[-1] if joined else None
            if last is None or span.after > last.to:
                joined.append(span)
                continue
            if span.after < last.to and not self._may_overlap:
                self.duplicates.append((span.after + 1, min(span.to, last.to)))
            if span.to > last.to:
                joined[-1] = _Span(
                    last.after,
                    span.to,
                    last.first_ns if last.first_ns != UNKNOWN else span.first_ns,
                    span.last_ns if span.last_ns != UNKNOWN else last.last_ns,
                    last.first_run,
                    span.last_run,
                )
        self._spans, self._loose = joined, []


def _first_known(recv_ns: Ids, starts: Ids, ends: Ids) -> Ids:
    places = np.where(recv_ns == UNKNOWN, len(recv_ns), np.arange(len(recv_ns)))
    at = np.minimum.accumulate(places[::-1])[::-1][starts]
    return np.where(at <= ends, recv_ns[np.minimum(at, ends)], UNKNOWN)


def _last_known(recv_ns: Ids, starts: Ids, ends: Ids) -> Ids:
    places = np.where(recv_ns == UNKNOWN, -1, np.arange(len(recv_ns)))
    at = np.maximum.accumulate(places)[ends]
    return np.where(at >= starts, recv_ns[np.maximum(at, starts)], UNKNOWN)


def _known(value: int) -> int | None:
    return None if value == UNKNOWN else value
