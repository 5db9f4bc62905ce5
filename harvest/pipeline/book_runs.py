"""Diffs that came together, made ready to be followed all at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import numpy as np

from harvest.book.levels import FlatLevels, LevelLists
from harvest.pipeline.times import all_to_us
from harvest.storage.tables import DAY_US

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from harvest.market import DiffRun

    Integers = NDArray[np.int64]
    Floats = NDArray[np.float64]


@attrs.frozen(eq=False)
class PlainRun:
    """Diffs of one date, all prices of which are above 0. Times are in microseconds."""

    diffs: DiffRun
    day: int
    event_us: Integers
    trade_us: Integers | None
    bids: LevelLists
    asks: LevelLists

    @classmethod
    def of(cls, run: DiffRun) -> PlainRun | None:
        """Make a run ready; None where it is another one."""
        event_us = all_to_us(run.event_time)
        day = int(event_us[0]) // DAY_US
        if (event_us // DAY_US != day).any() or not ((run.bid_px > 0).all() and (run.ask_px > 0).all()):
            return None
        return cls(
            run,
            day,
            event_us,
            None if run.trade_time is None else all_to_us(run.trade_time),
            _lists(run.bid_counts, run.bid_px, run.bid_qty),
            _lists(run.ask_counts, run.ask_px, run.ask_qty),
        )


def _lists(counts: Integers, px: Floats, qty: Floats) -> LevelLists:
    return LevelLists.of(FlatLevels(np.append(0, np.cumsum(counts)), px, qty))
