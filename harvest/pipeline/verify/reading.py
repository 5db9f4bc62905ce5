"""How the files of one series are read: each once, counted, held against the ledger, with progress."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING

import attrs
import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from harvest.pipeline.verify.checked_file import CheckedFile
from harvest.storage.layout import date_text
from harvest.storage.ledger import page_path, read_page
from harvest.storage.parquet import read_facts
from harvest.storage.sources import is_replaced

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from harvest.pipeline.verify.discovery import DataFile, Series
    from harvest.pipeline.verify.findings import Findings
    from harvest.pipeline.verify.rows import Rows
    from harvest.storage.account import Entry
    from harvest.storage.layout import FileName

#: Receive times may go back by this much within a run: what waits for another connection keeps its own. More is a step of
#: the clock.
CLOCK_STEP_NS = 10**9
#: Dates whose page of the ledger is kept: files of two dates are read in turn around midnight.
PAGES_KEPT = 3


@attrs.define(eq=False)
class Tally:
    """What was read of one kind."""

    rows: int = 0
    files: int = 0
    bytes: int = 0
    rows_by_day: dict[int, int] = attrs.Factory(lambda: defaultdict(int))


class Reading:
    """Opens the files of ``series``; ``on_bytes`` gets the size of each that was read."""

    def __init__(
        self, root: Path, series: Series, findings: Findings, on_bytes: Callable[[int], None]
    ) -> None:
        self.tallies: dict[str, Tally] = defaultdict(Tally)
        self._root, self._series, self._findings, self._on_bytes = root, series, findings, on_bytes
        runs = {part.run for files in series.kinds.values() for file in files for part in file.parts}
        #: The runs by name; the place of one is its number in the column ``run``.
        self.runs = sorted(runs)
        self._runs = {run: number for number, run in enumerate(self.runs)}
        self._pages: dict[int, dict[tuple[str, str], Entry]] = {}
        self._latest: dict[tuple[str, int], int] = {}

    def open(self, file: DataFile, *, levels: int | None = None) -> CheckedFile:
        """Make a file ready to be read."""
        return CheckedFile(file, self._findings, runs=self._runs, levels=levels, on_done=self._take_done)

    def watch_clock(self, kind: str, rows: Rows) -> None:
        """Report where receive times go back in the order of ``seq``, within a run: the clock was set."""
        for run in np.unique(rows["run"]).tolist():
            here = rows["run"] == run
            recv_ns = rows["recv_ns"][here]
            greatest = np.maximum.accumulate(
                np.concatenate(([self._latest.get((kind, run), recv_ns[0])], recv_ns))
            )
            self._latest[kind, run] = int(greatest[-1])
            back_ns = greatest[:-1] - recv_ns
            if back_ns.max() > CLOCK_STEP_NS:
                # After a step all that follows lags behind what came before it: one step is one warning.
                place = int(np.argmax(back_ns > CLOCK_STEP_NS))
                seq = int(rows["seq"][here][place])
                self._latest[kind, run] = int(recv_ns[place:].max())
                self._findings.warn(
                    f"{self._series.venue} {self._series.symbol} {kind}: receive times go back by "
                    f"{back_ns[place] / 1e9:.3f}s at seq {seq}: the clock was set",
                    sort="clock",
                )

    def _take_done(self, checked: CheckedFile, entry: Entry | None) -> None:
        file = checked.file
        tally = self.tallies[file.kind]
        tally.rows += checked.rows
        tally.files += 1
        tally.bytes += file.size_bytes
        tally.rows_by_day[file.day] += checked.rows
        if entry is not None:
            self._hold_against_ledger(file, entry)
        self._on_bytes(file.size_bytes)

    def _hold_against_ledger(self, file: DataFile, entry: Entry) -> None:
        page = self._page(file.day)
        if not page:
            return
        said = page.get((file.kind, file.path.name))
        relative = file.path.relative_to(self._root)
        if said is None:
            self._warn_of_ledger(f"{relative}: the ledger does not know this file, which holds")
            return
        # How many were dropped is in no file.
        said = msgspec.structs.replace(said, duplicates=None, expired_ns=None)
        names = [field for field in entry.__struct_fields__ if getattr(said, field) != getattr(entry, field)]
        if names:
            self._warn_of_ledger(
                f"{relative}: the ledger says otherwise ({', '.join(names)}), and the file holds"
            )

    def _page(self, day: int) -> dict[tuple[str, str], Entry]:
        page = self._pages.get(day)
        if page is None:
            while len(self._pages) >= PAGES_KEPT:
                del self._pages[next(iter(self._pages))]
            page = self._pages[day] = self._read_page(self._page_path(day))
        return page

    def _read_page(self, path: Path) -> dict[tuple[str, str], Entry]:
        try:
            contents = read_page(path)
        except OSError as error:
            self._warn_of_ledger(f"the ledger's {path.name} cannot be read: {error.strerror}")
            return {}
        for problem in contents.problems:
            self._warn_of_ledger(problem)
        return {(entry.kind, entry.file_name): entry for entry in contents.entries}

    def _page_path(self, day: int) -> Path:
        return page_path(self._root, self._series.venue, self._series.symbol, date_text(day))

    def report_unkept(self) -> None:
        """Report what the ledger says was stored, and no file holds; call it when all files were read."""
        there = {
            (file.kind, date_text(file.day), file.path.name)
            for files in self._series.kinds.values()
            for file in files
        }
        compacted: dict[tuple[str, str], list[tuple[FileName, frozenset[tuple[int, int]]]]] = {}
        for file in (file for files in self._series.kinds.values() for file in files if file.generation):
            intervals = frozenset((part.first_seq, part.last_seq) for part in file.sources)
            compacted.setdefault((file.kind, date_text(file.day)), []).append((file.name, intervals))
        expired: Counter[str] = Counter()
        for path in sorted(self._page_path(0).parent.glob("date=*.jsonl")):
            for (kind, name), entry in self._read_page(path).items():
                if (kind, entry.date, name) in there:
                    continue
                if entry.expired_ns is not None:
                    expired[entry.date] += entry.rows
                # Between the exchange of the directories and the ledger, a crash leaves the entries of the sources.
                elif not is_replaced(entry.name, compacted.get((kind, entry.date), ())):
                    ids = [span for source in (entry.ws, entry.rest) for span in source]
                    named = f", ids {ids[0].from_id} to {ids[-1].to_id}" if ids else ""
                    self._warn_of_ledger(
                        f"{entry.venue} {entry.symbol} {kind} {entry.date}: the ledger names {name} "
                        f"({entry.rows} rows{named}), which is not there"
                    )
        if expired:
            self._warn_of_ledger(
                f"{self._series.venue} {self._series.symbol}: {sum(expired.values())} rows of {min(expired)} to "
                f"{max(expired)} are no longer kept: they have expired"
            )

    def _warn_of_ledger(self, text: str) -> None:
        if text not in self._findings.warnings:
            self._findings.warn(text, sort="ledger")


#: More than a machine could hold: no file says so but a damaged one.
MOST_PENDING = 10_000_000


def max_pending_diffs_of(files: Iterable[DataFile]) -> int | None:
    """Return how many diffs could wait for a snapshot, as the first ``depth`` file that says so says; None if none does."""
    for file in files:
        try:
            facts = read_facts(pq.read_metadata(file.path).metadata)
        except (OSError, pa.ArrowException):
            continue
        said = facts.get("max_pending_diffs", "")
        if said.isascii() and said.isdigit() and 0 < int(said) <= MOST_PENDING:
            return int(said)
    return None


def levels_of(files: Iterable[DataFile]) -> int | None:
    """Return the number of levels in the first ``orderbook`` file that can be opened, None if none can."""
    for file in files:
        try:
            names: list[str] = pq.read_schema(file.path).names
        except (OSError, pa.ArrowException):
            continue
        return sum(name.startswith("bid_px_") for name in names)
    return None
