"""The rows of one channel of one symbol: in their order, each once, of sane values, and when none could come."""

from __future__ import annotations

from collections import deque
from itertools import pairwise
from typing import TYPE_CHECKING, Final

import numpy as np

from harvest.pipeline.verify.findings import DOWNTIME, Uncovered
from harvest.pipeline.verify.latency import Latencies
from harvest.pipeline.verify.merge import in_order
from harvest.pipeline.verify.rows import cut, stretches, widened
from harvest.storage.kinds import LIQUIDATIONS, UNKNOWN

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from numpy.typing import NDArray

    from harvest.pipeline.verify.discovery import DataFile
    from harvest.pipeline.verify.findings import Findings
    from harvest.pipeline.verify.reading import Reading
    from harvest.pipeline.verify.rows import Rows

#: The column that grows from row to row within a run, by kind.
_GROWS: Final = {
    "bbo": "update_id",
    "partial_depth": "update_id",
    "mark": "event_time",
    "open_interest": "event_time",
}
#: What makes a liquidation the same as another one: all that the venue says of the order.
_ORDER: Final = tuple(
    column.name
    for column in LIQUIDATIONS.columns
    if column.name not in ("seq", "event_time", "recv_ns", "source")
)
#: Liquidations among which one may be stored twice: there is one a second at most.
_RECENT: Final = 64


class ChannelRows:
    """Verifies the files of one channel (``kind``); make it, ``read`` them, then ask."""

    def __init__(self, kind: str, reading: Reading, findings: Findings) -> None:
        self.latencies = Latencies()
        self.duplicates = 0
        #: The least and greatest update id, of kinds that have one.
        self.bounds: tuple[int, int] | None = None
        #: Receive times of the first and the last row.
        self.time_bounds: tuple[int, int] | None = None
        self._kind, self._reading, self._findings = kind, reading, findings
        #: By run: receive times of its first and last row.
        self._runs: dict[int, tuple[int, int]] = {}
        self._greatest: dict[int, int] = {}
        self._orders: dict[int, deque[tuple[object, ...]]] = {}

    def read(self, files: Sequence[DataFile], *, follow: Callable[[Rows], None] = lambda _rows: None) -> None:
        """Read all files; ``follow`` gets the rows in the order of ``seq``."""
        tie = _GROWS.get(self._kind, "trade_time")
        for rows in in_order([self._reading.open(file) for file in files], tie):
            self._reading.watch_clock(self._kind, rows)
            timed = rows["event_time"] != UNKNOWN
            if self._kind != "open_interest":
                # What was asked for tells how often it was asked for, not how late it came.
                self.latencies.add(rows["recv_ns"][timed], rows["event_time"][timed])
            self.time_bounds = widened(self.time_bounds, rows["recv_ns"])
            if "update_id" in rows:
                self.bounds = widened(self.bounds, rows["update_id"])
            for run in np.unique(rows["run"]).tolist():
                here = cut(rows, rows["run"] == run)
                bounds = widened(self._runs.get(run), here["recv_ns"])
                assert bounds is not None
                self._runs[run] = bounds
                self._check_order(here, run)
            self._check_crossed(rows)
            follow(rows)

    def uncovered(self, breaks: Iterable[Uncovered]) -> list[Uncovered]:
        """Return when no row could come: what ``breaks`` say, and what lies between two runs; ascending."""
        found = list(breaks)
        times = sorted(self._runs.values())
        for (_, ended_ns), (began_ns, _) in pairwise(times):
            if ended_ns < began_ns:
                found.append(Uncovered(ended_ns, began_ns, DOWNTIME))
        return sorted(found, key=lambda one: (one.to_ns, one.from_ns or 0))

    def _check_order(self, rows: Rows, run: int) -> None:
        column = _GROWS.get(self._kind)
        if column is None:
            self._check_orders(rows, run)
            return
        values = rows[column]
        greatest = np.maximum.accumulate(np.concatenate(([self._greatest.get(run, UNKNOWN)], values)))
        self._greatest[run] = int(greatest[-1])
        self._report_again(rows, values == greatest[:-1], f"rows whose {column} is stored already")
        self._damaged("order", f"{column} goes back", rows, values < greatest[:-1])

    def _check_orders(self, rows: Rows, run: int) -> None:
        recent = self._orders.setdefault(run, deque(maxlen=_RECENT))
        again = np.zeros(len(rows["seq"]), np.bool_)
        for place, order in enumerate(zip(*(rows[name].tolist() for name in _ORDER), strict=True)):
            again[place] = order in recent
            recent.append(order)
        self._report_again(rows, again, "liquidations that are stored already")

    def _report_again(self, rows: Rows, again: NDArray[np.bool_], detail: str) -> None:
        self.duplicates += int(again.sum())
        self._damaged("duplicate", detail, rows, again)

    def _check_crossed(self, rows: Rows) -> None:
        if self._kind == "bbo":
            # A side without a level is told as 0.
            both = (rows["bid_px"] > 0) & (rows["ask_px"] > 0)
            crossed = both & (rows["bid_px"] >= rows["ask_px"])
        elif self._kind == "partial_depth":
            crossed = rows["bids"].first_px() >= rows["asks"].first_px()
        else:
            return
        self._damaged("crossed", "the best bid reaches the best ask", rows, crossed)

    def _damaged(self, what: str, detail: str, rows: Rows, wrong: NDArray[np.bool_]) -> None:
        for start, end in stretches(wrong):
            ids = None
            if "update_id" in rows:
                concerned = rows["update_id"][start:end]
                ids = int(concerned.min()), int(concerned.max())
            self._findings.damaged(what, detail, kind=self._kind, ids=ids, rows=end - start)
