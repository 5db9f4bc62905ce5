"""The trades of one symbol: every id once or missing with a reason, and ``cvd`` as it follows from them."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING

import numpy as np

from harvest.pipeline.verify.comparison import SumComparison
from harvest.pipeline.verify.continuity import StoredIds
from harvest.pipeline.verify.explain import explain_trades
from harvest.pipeline.verify.latency import Latencies
from harvest.pipeline.verify.merge import in_order
from harvest.pipeline.verify.rows import cut, widened
from harvest.storage.kinds import UNKNOWN
from harvest.storage.spans import trade_links

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from harvest.pipeline.verify.discovery import DataFile
    from harvest.pipeline.verify.explain import Break
    from harvest.pipeline.verify.findings import Findings, Missing
    from harvest.pipeline.verify.reading import Reading
    from harvest.pipeline.verify.rows import Rows

_COPIED = ("seq", "event_time", "recv_ns", "trade_id")


class Trades:
    """Verifies kinds ``prices`` and ``cvd`` of one series; make it, ``read`` all, then ask."""

    def __init__(self, reading: Reading, findings: Findings) -> None:
        self.latencies = Latencies()
        #: Rows of ``cvd`` whose trade id came before in their date.
        self.cvd_duplicates = 0
        #: Receive times of the first and the last message of the stream.
        self.time_bounds: tuple[int, int] | None = None
        self._reading, self._findings = reading, findings
        self._ids = StoredIds(may_overlap=False)
        self._duplicates: list[tuple[int, int]] | None = None

    def read(self, prices: Iterable[DataFile], cvd: Iterable[DataFile]) -> None:
        """Read all files, date by date."""
        by_day: dict[int, tuple[list[DataFile], list[DataFile]]] = defaultdict(lambda: ([], []))
        for place, files in enumerate((prices, cvd)):
            for file in files:
                by_day[file.day][place].append(file)
        for _, (of_prices, of_cvd) in sorted(by_day.items()):
            stored = in_order([self._reading.open(file) for file in of_cvd], "trade_id")
            sums = SumComparison("cvd", "trade_id", stored, self._findings, origin="prices")
            for rows in self._trades(of_prices):
                sums.expect(rows)
            sums.finish()
            self.cvd_duplicates += sums.duplicates

    def _trades(self, files: list[DataFile]) -> Iterator[Rows]:
        """Read the trades of one date, and give what ``cvd`` follows from."""
        for rows in in_order([self._reading.open(file) for file in files], "trade_id"):
            over_stream = rows["source"] == "ws"
            recv_ns = np.where(over_stream, rows["recv_ns"], UNKNOWN)
            self._ids.add(trade_links(rows["trade_id"]), recv_ns, rows["run"])
            self.time_bounds = widened(self.time_bounds, rows["recv_ns"][over_stream])
            self._reading.watch_clock("prices", rows)
            timed = over_stream & (rows["event_time"] != UNKNOWN)
            self.latencies.add(rows["recv_ns"][timed], rows["event_time"][timed])
            kinds = rows["trade_type"]
            counted = (kinds == "MARKET") | (kinds == None)  # noqa: E711 - of each
            expected = {name: rows[name] for name in _COPIED} | {
                # What is no number was reported, and counts as nothing.
                "qty": np.where(np.isfinite(rows["qty"]), rows["qty"], 0.0),
                "sold": rows["side"] == "sell",
            }
            yield expected if counted.all() else cut(expected, counted)

    @property
    def bounds(self) -> tuple[int, int] | None:
        """The first and the last id, None if there are none."""
        bounds = self._ids.bounds
        return None if bounds is None else (bounds[0] + 1, bounds[1])

    def missing(self, breaks: Iterable[Break]) -> list[Missing]:
        """Say what is missing, ascending, and why."""
        return explain_trades(self._ids.holes(), (one for one in breaks if one.feed == "trade"))

    def duplicates(self) -> int:
        """Count the ids that are stored more than once, and report them; each time beyond the first counts."""
        bounds = self._ids.bounds
        if bounds is None:
            return 0
        times: Counter[tuple[int, int]] = Counter(self._ids.duplicates)
        for from_id, to_id in _joined(sorted(times)):
            rows = sum(
                (high - low + 1) * again
                for (low, high), again in times.items()
                if from_id <= low and high <= to_id
            )
            detail = "trades that are stored more than once"
            self._findings.damaged("duplicate", detail, kind="prices", ids=(from_id, to_id), rows=rows)
        return sum((high - low + 1) * again for (low, high), again in times.items())


def _joined(intervals: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Join sorted intervals that overlap or follow each other."""
    joined: list[tuple[int, int]] = []
    for low, high in intervals:
        if joined and low <= joined[-1][1] + 1:
            joined[-1] = (joined[-1][0], max(joined[-1][1], high))
        else:
            joined.append((low, high))
    return joined
