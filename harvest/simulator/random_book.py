"""The random market's order book: a function of the seed and the step, at any step without history.

Time is cut into steps of 50 ms from a fixed epoch. A level lives in a cell of ticks; the price decides
which cells are bids and which asks; its quantity is a hash of its cell and the last step it changed at.
What changed at a step is the difference of two books. Update ids grow by a bounded, hashed number a step,
so the id at any step is known too.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Final

import attrs
import numpy as np

from harvest.simulator.noise import ValueNoise, key_of, mix, mix_array

if TYPE_CHECKING:
    from harvest.simulator.listing import Listed
    from harvest.simulator.noise import Hashes, Ints

STEP_NS: Final = 50_000_000

#: Each octave of the price takes a value every so many steps; the slowest turns in about 39 days.
_OCTAVES: Final = tuple((1 << power, 0.12 * 2.0 ** ((power - 26) / 2)) for power in range(4, 27))
#: Levels become sparse with their distance from the touch: every cell up to 120, every 10th to 1000, …
_RINGS: Final = ((1, 0, 120), (10, 120, 1000), (100, 1000, 10_000))
_PERIODS: Final = np.array([20, 80, 320, 1280], dtype=np.int64)
#: A book is compared with the one before; REST may ask for one that is a step ahead of the streams.
_BOOKS_KEPT: Final = 4
#: Streams of several intervals share the changes of the beats: those of the longest, a second, and a few more.
_CHANGES_KEPT: Final = 24
_FIRST_ID: Final = {True: 9_000_000_000_000, False: 80_000_000_000}
_IDS_A_STEP: Final = {True: 1700, False: 64}

#: Levels as {price in ticks: quantity in steps}, best first; in a change, 0 removes the level.
Levels = dict[int, int]


@attrs.frozen
class Change:
    """What one or more steps changed: absolute quantities; ``first_id`` is U, ``last_id`` u."""

    first_id: int
    last_id: int
    prev_id: int
    bids: Levels
    asks: Levels


class RandomBook:
    """The book of one instrument. Pure but for a small cache; ``futures`` decides the rule of the ids."""

    def __init__(self, listed: Listed, seed: int, *, futures: bool) -> None:
        key = key_of(seed, "book", listed.symbol)
        self._listed = listed
        self._futures = futures
        self._price = ValueNoise(mix(key, 1), _OCTAVES)
        self._spread_key, self._cell_key, self._phase_key = mix(key, 2), mix(key, 3), mix(key, 4)
        self._qty_key, self._id_key, self._first_key = mix(key, 5), mix(key, 6), mix(key, 7)
        self._period = listed.book_period
        self._phase = mix(key, 8) % self._period
        self._cell_ticks = max(1, listed.price_ticks // 500_000)
        farthest = listed.price_ticks // self._cell_ticks // 5
        self._rings = [(unit, start, min(end, farthest)) for unit, start, end in _RINGS if start < farthest]
        self._books: OrderedDict[int, tuple[Levels, Levels]] = OrderedDict()
        self._changes: OrderedDict[int, tuple[Levels, Levels]] = OrderedDict()

    def is_active(self, step: int) -> bool:
        """Say whether anything happens at this step."""
        return (step + self._phase) % self._period == 0

    def last_id(self, step: int) -> int:
        """Give the update id that the book has at a step."""
        beat = self._beat(step)
        ids = _IDS_A_STEP[self._futures] * self._period
        return _FIRST_ID[self._futures] + beat * ids + mix(self._id_key, beat) % ids

    def touch(self, step: int) -> tuple[int, int]:
        """Give the best bid and ask in ticks; the bid is always below the ask."""
        bid, ask = self._touch_cells(self._beat(step))
        return self._tick(bid), self._tick(ask)

    def levels(self, step: int) -> tuple[Levels, Levels]:
        """Give all bids and asks at a step, best first. The caller must not change them."""
        return self._levels(self._beat(step))

    def change(self, after: int, step: int) -> Change | None:
        """Give what the steps after ``after`` up to and with ``step`` changed, None if none was active.

        Levels that changed and changed back are in it, for a snapshot may lie between.
        """
        first_beat, last_beat = self._beat(after) + 1, self._beat(step)
        if first_beat > last_beat:
            return None
        bids: Levels = {}
        asks: Levels = {}
        for beat in range(first_beat, last_beat + 1):
            changed = self._changed(beat)
            bids.update(changed[0])
            asks.update(changed[1])
        prev_id, last_id = self.last_id(after), self.last_id(step)
        first_id = prev_id + 1
        if self._futures:
            earliest = self.last_id(self._first_step(first_beat))
            first_id += mix(self._first_key, last_beat) % (earliest - prev_id)
        return Change(first_id, last_id, prev_id, bids, asks)

    def _beat(self, step: int) -> int:
        return (step + self._phase) // self._period

    def _first_step(self, beat: int) -> int:
        return beat * self._period - self._phase

    def _touch_cells(self, beat: int) -> tuple[int, int]:
        ticks = self._listed.price_ticks * (1.0 + self._price.at(beat * self._period))
        bid = int(ticks) // self._cell_ticks
        return bid, bid + (2 if mix(self._spread_key, beat // 16) % 10 == 0 else 1)

    def _tick(self, cell: int) -> int:
        return cell * self._cell_ticks + mix(self._cell_key, cell) % self._cell_ticks

    def _ticks(self, cells: Ints) -> Ints:
        if self._cell_ticks == 1:
            return cells
        offsets: Hashes = mix_array(self._cell_key, cells) % np.uint64(self._cell_ticks)
        return cells * self._cell_ticks + offsets.astype(np.int64)

    def _levels(self, beat: int) -> tuple[Levels, Levels]:
        known = self._books.get(beat)
        if known is None:
            bid, ask = self._touch_cells(beat)
            known = self._side(bid, -1, beat), self._side(ask, 1, beat)
            self._books[beat] = known
            if len(self._books) > _BOOKS_KEPT:
                self._books.popitem(last=False)
        return known

    def _changed(self, beat: int) -> tuple[Levels, Levels]:
        known = self._changes.get(beat)
        if known is None:
            before, now = self._levels(beat - 1), self._levels(beat)
            known = _difference(before[0], now[0]), _difference(before[1], now[1])
            self._changes[beat] = known
            if len(self._changes) > _CHANGES_KEPT:
                self._changes.popitem(last=False)
        return known

    def _side(self, touch: int, direction: int, beat: int) -> Levels:
        parts = []
        for unit, start, end in self._rings:
            first = touch + direction * start
            first += direction * (-direction * first % unit)
            parts.append(np.arange(first, touch + direction * end, direction * unit, dtype=np.int64))
        cells = np.concatenate(parts)
        phases = mix_array(self._phase_key, cells)
        periods = _PERIODS[(phases & np.uint64(3)).astype(np.int64)]
        shifts = (phases >> np.uint64(8)).astype(np.int64) % periods
        changed_at = beat - (beat - shifts) % periods
        # The levels at the touch are the busiest: they change at every beat, or at every second one.
        changed_at[:2] = beat
        changed_at[2:5] = beat - (beat + cells[2:5]) % 2
        hashes = mix_array(mix_array(self._qty_key, cells), changed_at)
        portions = (hashes >> np.uint64(11)).astype(np.float64) / 2.0**53
        quantities = (self._listed.step_base / (portions + 0.02)).astype(np.int64) + 1
        present = (hashes & np.uint64(7)) != 0
        present[0] = True
        ticks = self._ticks(cells)[present]
        return dict(zip(ticks.tolist(), quantities[present].tolist(), strict=True))


def _difference(before: Levels, now: Levels) -> Levels:
    changed = {tick: 0 for tick in before.keys() - now.keys()}
    changed.update(now.items() - before.items())
    return changed
