"""What must be so after a crash: promises that were given before it, held against what is there."""

from __future__ import annotations

import json
from collections import Counter
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq

from bench.faults.workload import RUN, VENUE, table_rows
from harvest.storage import ledger
from harvest.storage.catalog import scan
from harvest.storage.journal import JournalError, read_run
from harvest.storage.layout import date_directory, parse_date, parse_file_name
from harvest.storage.quarantine import Quarantine
from harvest.storage.sources import intervals_of_file, is_replaced

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from bench.faults.workload import Rows, Workload

    RowCounts = Counter[tuple[Any, ...]]


def read_rows(root: Path, found: list[str]) -> Rows:
    """Read every visible file; what is wrong is added to ``found``: two files of a directory must not cover the same records."""
    catalog, stored = scan(root, VENUE), {}
    found += [f"{damage.path}: {damage.why}" for damage in catalog.damage]
    for kind, symbol, day in _directories(catalog):
        files = catalog.files(kind, symbol, day)
        if any(one.last_seq >= other.first_seq for one, other in pairwise(files)):
            found.append(f"files of {kind} {symbol} overlap")
        for file in files:
            try:
                table = pq.ParquetFile(file.path).read(use_threads=False)
            except Exception as error:
                found.append(f"{file.path.relative_to(root)} cannot be read: {error}")
            else:
                stored.setdefault((kind, symbol), Counter()).update(table_rows(table))
    return stored


def _directories(catalog: Any) -> Iterator[tuple[str, str, int]]:
    for kind in catalog.kinds():
        for symbol in catalog.symbols(kind):
            for day in catalog.days(kind, symbol):
                yield kind, symbol, day


def last_record(root: Path) -> int:
    """Return the ``seq`` up to which the journal of the run goes on without a hole, from where it begins; 0 if there is none."""
    last = 0
    try:
        for entry in read_run(root, VENUE, RUN):
            if last and entry.seq > last + 1:
                break
            last = entry.seq
    except JournalError:
        return 0
    return last


def check_readers(workload: Workload, calls: int, root: Path) -> list[str]:
    """Hold what readers see at the moment of a crash against the files that were published before it: each row once."""
    found: list[str] = []
    stored = read_rows(root, found)
    for series, every in workload.rows.items():
        here = stored.get(series, Counter())
        found += _lost(series, _published(workload, calls, series), here, "published")
        found += _twice(series, every, here)
    return found


def check_rows(workload: Workload, calls: int, stored: Rows, reached: int, *, is_whole: bool) -> list[str]:
    """Hold what is stored against what was promised before the call, and against the run that was not interrupted."""
    found = []
    durable_seq = max((one.seq for one in workload.journalled if one.calls <= calls), default=0)
    if is_whole:
        durable_seq = max(durable_seq, reached)
    ends: Rows = workload.rows_with_end(reached) if reached else {}
    for series, every in workload.rows.items():
        journalled = Counter({row: count for row, count in every.items() if row[0] <= durable_seq})
        must = journalled | _published(workload, calls, series)
        found += _lost(series, must, stored.get(series, Counter()), "durable")
    for series, here in stored.items():
        every = workload.rows.get(series, Counter())
        found += _twice(series, every, here)
        known = every | ends.get(series, Counter())
        # Sums go on over what was lost in between.
        up_to = durable_seq if series[0] == "cvd" else 2**63
        more = [row for row in (here - known) if row[0] <= up_to]
        if more and is_whole:
            found.append(f"{series}: {len(more)} rows are not the run's, first {min(more, key=_seq)}")
    return found


def _published(workload: Workload, calls: int, series: tuple[str, str]) -> RowCounts:
    files = (one.rows for one in workload.published if one.calls <= calls and one.series == series)
    return sum(files, Counter())


def _lost(series: tuple[str, str], must: RowCounts, here: RowCounts, what: str) -> list[str]:
    lost = must - here
    if not lost:
        return []
    return [f"{series}: {lost.total()} rows that were {what} are lost, first {min(lost, key=_seq)[:4]}"]


def _twice(series: tuple[str, str], every: RowCounts, here: RowCounts) -> list[str]:
    twice = [row for row, count in (here - every).items() if count > 1]
    return [f"{series}: {len(twice)} rows are stored twice, first {twice[0][:4]}"] if twice else []


def _seq(row: tuple[Any, ...]) -> int:
    return int(row[0])


def check_ledger(root: Path, *, is_complete: bool, is_compacted: bool = False) -> list[str]:
    """Say which files the ledger knows that are not there, and which it knows twice; or not, where it must be complete.

    Before the next compaction has put it right, it may know the files of which a compacted one was made.
    """
    files = set(_visible(root))
    entries = [
        root / date_directory(entry.kind, entry.venue, entry.symbol, parse_date(entry.date)) / entry.file_name
        for entry in ledger.read(root).entries
    ]
    lost = sorted(set(entries) - files)
    if not is_compacted:
        lost = [path for path in lost if not _is_replaced(path)]
    found = [f"the ledger knows {path.relative_to(root)}, which is lost" for path in lost]
    found += [
        f"the ledger knows {path} {count} times" for path, count in Counter(entries).items() if count > 1
    ]
    if is_complete:
        found += [f"the ledger does not know {path}" for path in sorted(files - set(entries))]
    return found


def _is_replaced(path: Path) -> bool:
    there = {other: parse_file_name(other.name) for other in path.parent.glob("*.parquet")}
    compacted = {
        name: frozenset(intervals_of_file(other, name))
        for other, name in there.items()
        if name and name.generation
    }
    name = parse_file_name(path.name)
    return name is not None and is_replaced(name, compacted.items())


def _visible(root: Path) -> Iterator[Path]:
    for path in root.glob("*/venue=*/symbol=*/date=*/*.parquet"):
        if path.name[0] != "." and path.relative_to(root).parts[0][0] != "_":
            yield path


def check_quarantine(workload: Workload, calls: int, reached: int, root: Path) -> list[str]:
    """Say what is malformed and not in the quarantine, though it was flushed before the call, or stood in the journal up to ``reached``."""
    kept_seq = max((reached, *(one.seq for one in workload.kept if one.calls <= calls)))
    texts = Counter(quarantined(Quarantine(root, RUN).path))
    found = []
    for seq, text in workload.malformed.items():
        if seq <= kept_seq and not texts[text]:
            found.append(f"what was malformed in the record {seq} is not in the quarantine")
        if texts[text] > 1:
            found.append(f"what was malformed in the record {seq} is there {texts[text]} times")
    return found


def quarantined(path: Path) -> Iterator[str]:
    """Give the messages of a quarantine, but for what is torn."""
    for line in path.read_bytes().split(b"\n") if path.exists() else ():
        try:
            yield json.loads(line)["text"]
        except (ValueError, LookupError, TypeError):
            continue  # Torn by the crash.
