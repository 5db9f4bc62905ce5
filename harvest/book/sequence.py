"""The gap rules: what an id says about those before it. Pure, one object an instrument.

Three questions are kept apart: does a trade follow the last (``TradeSequence``), does a diff follow the last
(``DepthChain``), and does a diff continue a snapshot (``judge_bridge``).
"""

from __future__ import annotations

from bisect import bisect_right
from enum import IntEnum
from typing import TYPE_CHECKING, Literal

import msgspec
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Integers = NDArray[np.int64]

DepthRule = Literal["spot", "usdm"]

#: Holes that are remembered for late ids. A stream with more of them has other troubles.
MAX_HOLES = 10_000


class TradeVerdict(IntEnum):
    """What a trade id is to those that came before."""

    IN_ORDER = 0
    FIRST = 1
    DUPLICATE = 2
    #: Ids between the greatest so far and this one are missing.
    GAP = 3
    #: It fills a hole that a gap left.
    LATE = 4
    #: It is older than the first id of the run, and new.
    EARLY = 5


class TradeSequenceState(msgspec.Struct, array_like=True):
    """Everything that a ``TradeSequence`` goes on from."""

    next_id: int | None
    first_id: int
    holes: list[list[int]]


class TradeSequence:
    """The trade ids of one instrument: which were seen, and which are missing.

    ``next_id`` is the id that would follow in order (None before the first). Where it comes, the caller may move it on
    itself and spare the call of ``accept``.
    """

    __slots__ = ("_first_id", "_holes", "next_id")

    def __init__(self) -> None:
        self.next_id: int | None = None
        self._first_id = 0
        #: Missing ids below ``next_id`` as [from, to], both inclusive, ascending.
        self._holes: list[list[int]] = []

    def accept(self, trade_id: int) -> TradeVerdict:
        """Judge an id and remember it; whatever is not a DUPLICATE is new."""
        expected = self.next_id
        if expected is None:
            self.next_id = trade_id + 1
            self._first_id = trade_id
            if trade_id > 0:
                self._holes.append([0, trade_id - 1])
            return TradeVerdict.FIRST
        if trade_id < expected:
            return self._fill(trade_id)
        self.next_id = trade_id + 1
        if trade_id == expected:
            return TradeVerdict.IN_ORDER
        self._holes.append([expected, trade_id - 1])
        if len(self._holes) > MAX_HOLES:
            del self._holes[0]
        return TradeVerdict.GAP

    @property
    def first_id(self) -> int | None:
        """The first id that was seen, or that would follow what is stored; None if none was and nothing is."""
        return None if self.next_id is None else self._first_id

    @property
    def begins_alone(self) -> bool:
        """Whether nobody has said yet what is stored from before the first id."""
        return self.next_id is None or bool(self._holes and self._holes[0][0] == 0)

    def resume(self, last_id: int) -> None:
        """Begin after ``last_id``, the greatest id that is stored from before; older ones count as stored.

        Where ids were seen meanwhile, what is not among them is missing.
        """
        self.next_id = last_id + 1 if self.next_id is None else max(self.next_id, last_id + 1)
        self._first_id = last_id + 1
        self._holes = [[max(low, last_id + 1), high] for low, high in self._holes if high > last_id]

    def reopen(self, gaps: Sequence[tuple[int, int]]) -> None:
        """Let ids be missing that earlier runs have left out, below the first of this one: (from, to), both inclusive, ascending."""
        if gaps:
            self._holes = [[low, high] for low, high in gaps] + [
                hole for hole in self._holes if hole[0] > gaps[-1][1]
            ]
            self._first_id = min(self._first_id, gaps[0][0])

    def state(self) -> TradeSequenceState:
        """Return what ``restore`` goes on from; it is not to be changed, and of use until the next id is judged."""
        return TradeSequenceState(self.next_id, self._first_id, self._holes)

    def restore(self, state: TradeSequenceState) -> None:
        """Go on from what another sequence came to. The state becomes ours."""
        self.next_id, self._first_id, self._holes = state.next_id, state.first_id, state.holes

    def is_missing(self, trade_id: int) -> bool:
        """Tell whether ``trade_id`` is in a hole that a gap left."""
        index = bisect_right(self._holes, trade_id, key=_low) - 1
        return trade_id >= self._first_id and index >= 0 and trade_id <= self._holes[index][1]

    def misses_any(self, from_id: int, to_id: int) -> bool:
        """Tell whether any id between two, both inclusive, was never seen."""
        index = bisect_right(self._holes, to_id, key=_low) - 1
        return index >= 0 and self._holes[index][1] >= from_id

    def missing_between(self, from_id: int, to_id: int) -> list[tuple[int, int]]:
        """Return the holes between two ids, cut to them, as (from, to), all inclusive, ascending."""
        cut = ((max(low, from_id), min(high, to_id)) for low, high in self.missing())
        return [(low, high) for low, high in cut if low <= high]

    def missing(self) -> list[tuple[int, int]]:
        """Return the ids that are missing since the first, as (from, to), both inclusive, ascending."""
        return [(low, high) for low, high in self._holes if low >= self._first_id]

    def _fill(self, trade_id: int) -> TradeVerdict:
        holes = self._holes
        index = bisect_right(holes, trade_id, key=_low) - 1
        if index < 0 or trade_id > holes[index][1]:
            return TradeVerdict.DUPLICATE
        low, high = holes[index]
        rest = [[low, trade_id - 1], [trade_id + 1, high]]
        holes[index : index + 1] = [hole for hole in rest if hole[0] <= hole[1]]
        return TradeVerdict.EARLY if trade_id < self._first_id else TradeVerdict.LATE


def _low(hole: list[int]) -> int:
    return hole[0]


class ChainVerdict(IntEnum):
    """What a diff is to the one before it."""

    IN_ORDER = 0
    FIRST = 1
    #: Everything in it was seen.
    DUPLICATE = 2
    #: Something between the one before and this one is missing; the chain goes on from this one.
    GAP = 3


class DepthChain:
    """The chain of one instrument's diffs. On spot ids are contiguous; on USD-M they are sparse, and each diff names
    the last id of its predecessor.
    """  # noqa: D205 - one sentence too long for a line

    __slots__ = ("_is_usdm", "gap", "last_update_id")

    def __init__(self, rule: DepthRule) -> None:
        self._is_usdm = rule == "usdm"
        self.last_update_id: int | None = None
        #: Of the last GAP. Spot: last id before and first after, both exclusive. USD-M: the last id before, and the
        #: predecessor that the diff named.
        self.gap = (0, 0)

    def has_gap_before(self, first_update_id: int, prev_update_id: int | None) -> bool:
        """Tell whether something between the last diff and this one is missing; changes nothing."""
        last = self.last_update_id
        if last is None:
            return False
        if self._is_usdm:
            return prev_update_id is not None and prev_update_id > last
        return first_update_id > last + 1

    def goes_on_with(
        self, first_update_ids: Integers, last_update_ids: Integers, prev_update_ids: Integers | None
    ) -> bool:
        """Tell whether ``accept`` would find all of some diffs in order, one behind the other; changes nothing."""
        predecessors = prev_update_ids if self._is_usdm else first_update_ids - 1
        if self.last_update_id is None or predecessors is None:
            return False
        before = np.append(self.last_update_id, last_update_ids[:-1])
        return bool(follow(before, predecessors, last_update_ids).all())

    def accept(self, first_update_id: int, last_update_id: int, prev_update_id: int | None) -> ChainVerdict:
        """Judge a diff, and go on from it unless it is a DUPLICATE."""
        last = self.last_update_id
        if last is None:
            self.last_update_id = last_update_id
            return ChainVerdict.FIRST
        if last_update_id <= last:
            return ChainVerdict.DUPLICATE
        self.last_update_id = last_update_id
        if self._is_usdm:
            # A predecessor that is older than the last diff overlaps it: quantities are absolute, so nothing is lost.
            if prev_update_id is None or prev_update_id <= last:
                return ChainVerdict.IN_ORDER
            self.gap = (last, prev_update_id)
            return ChainVerdict.GAP
        if first_update_id <= last + 1:
            return ChainVerdict.IN_ORDER
        self.gap = (last, first_update_id)
        return ChainVerdict.GAP


def follow(before: Integers, predecessors: Integers, last_update_ids: Integers) -> NDArray[np.bool_]:
    """Tell of each diff whether it is in order behind the update ``before``.

    Its predecessor is the one that it names, and on spot the update before its first.
    """
    found: NDArray[np.bool_] = (last_update_ids > before) & (predecessors <= before)
    return found


class BridgeVerdict(IntEnum):
    """What a diff is to a snapshot that it is to continue."""

    #: It continues the snapshot, and is to be applied.
    BRIDGES = 0
    #: The snapshot holds it already.
    STALE = 1
    #: Something between the snapshot and it is missing: the snapshot is too old.
    SNAPSHOT_TOO_OLD = 2


def judge_bridge(
    rule: DepthRule, snapshot_id: int, first_update_id: int, last_update_id: int, prev_update_id: int | None
) -> BridgeVerdict:
    """Judge the first diff after a snapshot by the venue's procedure.

    Source: "How to manage a local order book correctly", spot (as corrected on 2025-11-12) and USD-M. Live USD-M streams
    have also been seen to start with ``pu`` equal to the snapshot's id.
    """
    if rule == "usdm":
        if last_update_id < snapshot_id:
            return BridgeVerdict.STALE
        if first_update_id <= snapshot_id or prev_update_id == snapshot_id:
            return BridgeVerdict.BRIDGES
        # ``U`` is sparse: a predecessor within the snapshot leaves nothing out either.
        if prev_update_id is not None and prev_update_id < snapshot_id:
            return BridgeVerdict.BRIDGES
        return BridgeVerdict.SNAPSHOT_TOO_OLD
    if last_update_id <= snapshot_id:
        return BridgeVerdict.STALE
    if first_update_id <= snapshot_id + 1:
        return BridgeVerdict.BRIDGES
    return BridgeVerdict.SNAPSHOT_TOO_OLD
