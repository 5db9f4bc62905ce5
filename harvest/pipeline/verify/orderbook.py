"""The order book of one symbol: its chain of diffs, and ``orderbook`` and ``ofi`` as they follow from them."""

from __future__ import annotations

from collections import defaultdict
from itertools import groupby
from operator import attrgetter
from typing import TYPE_CHECKING

import numpy as np

from harvest.pipeline.verify.comparison import Comparison
from harvest.pipeline.verify.continuity import StoredIds
from harvest.pipeline.verify.explain import explain_depth
from harvest.pipeline.verify.latency import Latencies
from harvest.pipeline.verify.merge import in_order
from harvest.pipeline.verify.reading import levels_of, max_pending_diffs_of
from harvest.pipeline.verify.replay import Replay
from harvest.pipeline.verify.rows import cut, stretches, widened
from harvest.pipeline.verify.stretches import Stretches
from harvest.settings import BookSettings
from harvest.storage.kinds import UNKNOWN
from harvest.storage.spans import diff_links
from harvest.storage.tables import DAY_US

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from numpy.typing import NDArray

    from harvest.pipeline.verify.discovery import DataFile
    from harvest.pipeline.verify.explain import Break
    from harvest.pipeline.verify.findings import Findings, Missing
    from harvest.pipeline.verify.reading import Reading
    from harvest.pipeline.verify.replay import Drift
    from harvest.pipeline.verify.rows import Rows
    from harvest.venues.protocol import Venue

DERIVED = ("orderbook", "ofi")
#: Of ``orderbook``, where no file of it says how many it has.
DEFAULT_LEVELS = 5
#: Diffs that could wait for a snapshot, where no file says how many.
DEFAULT_PENDING = BookSettings().max_pending_diffs


class Orderbook:
    """Verifies kinds ``depth``, ``orderbook`` and ``ofi`` of one series; make it, ``read`` all, then ask."""

    def __init__(
        self,
        venue: Venue,
        symbol: str,
        reading: Reading,
        findings: Findings,
        breaks: Iterable[Break],
        drifts: Mapping[str, list[Drift]],
    ) -> None:
        self.latencies = Latencies()
        self.duplicates = dict.fromkeys(("depth", *DERIVED), 0)
        self.stretches = {kind: Stretches() for kind in DERIVED}
        #: By date: ids on spot, links on USD-M.
        self.stored_by_day: dict[int, int] = defaultdict(int)
        #: The least and the greatest id of the diffs.
        self.bounds: tuple[int, int] | None = None
        #: Receive times of the first and the last of them.
        self.time_bounds: tuple[int, int] | None = None
        self._venue, self._symbol = venue, symbol
        self._reading, self._findings = reading, findings
        self._breaks = [one for one in breaks if one.feed == "orderbook"]
        self._drifts = drifts
        self._ids = StoredIds(may_overlap=True)

    def read(self, files: Mapping[str, list[DataFile]]) -> None:
        """Read all files, run by run in the order of their records: each run begins without a book."""
        runs: dict[str, dict[str, list[DataFile]]] = defaultdict(dict)
        for kind in ("depth", *DERIVED):
            for run, of_run in groupby(sorted(files.get(kind, ()), key=_by_run), attrgetter("run")):
                runs[run][kind] = list(of_run)
        for run in sorted(runs, key=lambda run: min(files[0].first_seq for files in runs[run].values())):
            self._read_run(run, runs[run])

    def _read_run(self, run: str, files: Mapping[str, list[DataFile]]) -> None:
        levels = levels_of(files.get("orderbook", ()))
        max_pending = max_pending_diffs_of(files.get("depth", ()))
        replay = Replay(
            self._venue,
            self._symbol,
            self._findings,
            known_breaks={(one.from_id, one.to_id) for one in self._breaks},
            drifts=self._drifts.get(run, []),
            levels=DEFAULT_LEVELS if levels is None else levels,
            max_pending_diffs=DEFAULT_PENDING if max_pending is None else max_pending,
        )
        comparisons = {
            kind: Comparison(
                kind,
                "update_id",
                self._stored(kind, files.get(kind, ()), levels),
                self._findings,
                origin="replaying depth",
                exempt=exempt,
            )
            for kind, exempt in zip(DERIVED, (replay.cannot_judge, replay.cannot_judge_flow), strict=True)
        }
        last_id = UNKNOWN
        opened = [self._reading.open(file) for file in files.get("depth", ())]
        # A date's whole book stands after the last diff of the date before, whose id it has.
        for rows in in_order(opened, "last_update_id", "is_snapshot"):
            self._reading.watch_clock("depth", rows)
            last_id = self._follow_chain(rows, last_id)
            for kind, following in replay.feed(rows).items():
                comparisons[kind].expect(following)
        for kind, comparison in comparisons.items():
            comparison.finish()
            self.duplicates[kind] += comparison.duplicates
        for low, high in replay.lost:
            self._findings.warn(
                f"{self._venue.name} {self._symbol}: rows of depth are lost, so orderbook and ofi cannot be judged from "
                f"update {low} to {high}",
                sort="lost",
            )

    def _follow_chain(self, rows: Rows, last_id: int) -> int:
        """Take the diffs among the rows into account; returns the greatest id of the run so far."""
        diffs = cut(rows, ~rows["is_snapshot"])
        ids = diffs["last_update_id"]
        if not len(ids):
            return last_id
        timed = diffs["event_time"] != UNKNOWN
        self.latencies.add(diffs["recv_ns"][timed], diffs["event_time"][timed])
        greatest = np.maximum.accumulate(np.concatenate(([last_id], ids)))
        is_again = (ids <= greatest[:-1]) | self._ids.holds(ids)
        if is_again.any():
            self._report_duplicates(ids, is_again)
            diffs = cut(diffs, ~is_again)
        firsts, lasts = diffs["first_update_id"], diffs["last_update_id"]
        links = diff_links(firsts, lasts, diffs["prev_update_id"])
        self._ids.add(links, diffs["recv_ns"], diffs["run"])
        self._count_stored(diffs, links.after)
        self.bounds = widened(widened(self.bounds, firsts), lasts)
        self.time_bounds = widened(self.time_bounds, diffs["recv_ns"])
        return int(greatest[-1])

    def _count_stored(self, diffs: Rows, after: NDArray[np.int64]) -> None:
        days = diffs["event_time"] // DAY_US
        for day in np.unique(days).tolist():
            here = days == day
            if self._venue.depth_rule == "usdm":
                self.stored_by_day[day] += int(here.sum())
            else:
                self.stored_by_day[day] += int((diffs["last_update_id"] - after)[here].sum())

    def _report_duplicates(self, ids: NDArray[np.int64], is_again: NDArray[np.bool_]) -> None:
        self.duplicates["depth"] += int(is_again.sum())
        for start, end in stretches(is_again):
            here = ids[start:end]
            bounds = int(here.min()), int(here.max())
            detail = "diffs that are stored already"
            self._findings.damaged("duplicate", detail, kind="depth", ids=bounds, rows=end - start)

    def missing(self) -> list[Missing]:
        """Say what is missing, ascending, and why."""
        return explain_depth(self._ids.holes(), self._breaks, self._venue.depth_rule)

    def _stored(self, kind: str, files: Iterable[DataFile], levels: int | None) -> Iterator[Rows]:
        levels = levels if kind == "orderbook" else None
        opened = [self._reading.open(file, levels=levels) for file in files]
        for rows in in_order(opened, "update_id"):
            self.stretches[kind].add(rows)
            if kind == "orderbook":
                self._check_crossed(rows)
            yield rows

    def _check_crossed(self, rows: Rows) -> None:
        if "bid_px_0" not in rows:
            return
        crossed = (rows["bid_px_0"] >= rows["ask_px_0"]) & ~rows["suspect"]
        for start, end in stretches(crossed):
            ids = rows["update_id"][start:end]
            bounds = int(ids.min()), int(ids.max())
            detail = "the best bid reaches the best ask"
            self._findings.damaged("crossed", detail, kind="orderbook", ids=bounds, rows=end - start)


def _by_run(file: DataFile) -> tuple[str, int]:
    return file.run, file.first_seq
