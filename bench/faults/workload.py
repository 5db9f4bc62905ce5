"""What a crash interrupts: a short run that journals, publishes, enters into the ledger, takes checkpoints, lets go and compacts.

It does on a ``CrashDisk`` what ``harvest run`` does, with the parts that ``harvest run`` is made of, and notes what was said to
be durable, and after which call.
"""

from __future__ import annotations

import io
import random
from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple

import attrs
import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from bench.faults.crash_disk import CrashDisk
from harvest.pipeline.checkpoint_rounds import CheckpointRounds
from harvest.pipeline.events import Malformed
from harvest.pipeline.journal_records import encode_record
from harvest.pipeline.records import Checkpoint, Frames
from harvest.pipeline.recover import RunFacts
from harvest.settings import JournalSettings
from harvest.storage import ledger
from harvest.storage.compaction import Options, compact
from harvest.storage.files import DataDirectory
from harvest.storage.journal import Journal
from harvest.storage.parquet import Provenance, encode
from harvest.storage.quarantine import Quarantine
from tests.pipeline.troubled import LEVELS, MAX_PENDING, PATIENCE_S, SYMBOLS, Troubled, machine

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from harvest.pipeline.records import Record
    from harvest.storage.tables import Sealed

VENUE, RUN = "binance-usdm", "20240718T235900Z0001"
FACTS = RunFacts(LEVELS, MAX_PENDING, PATIENCE_S, "raw")
PROVENANCE = Provenance(VENUE, RUN, "raw", MAX_PENDING)
#: Records in which each symbol's state is journalled once.
ROUND = 10
FLUSH_S = 30.0
#: Segments of a few dozen records, so that some are let go.
SEGMENT_BYTES = 6 * 1024
#: A compaction that takes every date for one that is over.
COMPACTS_ALL = Options(closed_before=2**31)

#: Rows by kind and symbol, all of their columns; the first is ``seq``.
Rows = dict[tuple[str, str], Counter[tuple[Any, ...]]]


class Journalled(NamedTuple):
    """After so many calls all records up to ``seq`` were said to be durable."""

    calls: int
    seq: int


class Kept(NamedTuple):
    """After so many calls what is malformed up to ``seq`` was said to be durable in the quarantine."""

    calls: int
    seq: int


class Published(NamedTuple):
    """After so many calls a file was said to be durable: its kind and symbol, and its rows."""

    calls: int
    series: tuple[str, str]
    rows: Counter[tuple[Any, ...]]


@attrs.frozen(eq=False)
class Workload:
    """One run: its records, its calls, what it was promised, and the rows that it would have made."""

    seed: int
    disk: CrashDisk
    records: list[Record]
    journalled: list[Journalled]
    published: list[Published]
    kept: list[Kept]
    #: What is malformed, by the ``seq`` of its record.
    malformed: dict[int, str]
    released: int
    compacted: int
    rows: Rows
    _ends: dict[int, Rows] = attrs.field(factory=dict, init=False)

    def rows_with_end(self, count: int) -> Rows:
        """Return the rows of the first ``count`` records, and what the end of a run adds: what it still waited for."""
        if count not in self._ends:
            self._ends[count] = _rows(self.records[:count], count + 1)
        return self._ends[count]


def work(seed: int, root: Path) -> Workload:
    """Run, in ``root``, which is made. With an odd seed the journal's threads keep a time of their own."""
    dice = random.Random(seed)
    is_own_time = bool(seed % 2)
    disk = CrashDisk(root)
    root.mkdir()
    pipeline = machine(with_cvd=True, max_rows=dice.choice((25, 10**6)))
    rounds = CheckpointRounds(SYMBOLS, ROUND)
    settings = JournalSettings(
        write_ms=0.2 if is_own_time else 60_000,
        sync_ms=1 if is_own_time else 60_000,
        segment_bytes=SEGMENT_BYTES,
        reserve_bytes=4096 if is_own_time else 0,
    )
    told = {"venue": VENUE, "symbols": SYMBOLS} | msgspec.to_builtins(FACTS)
    journal = Journal(root, venue=VENUE, run=RUN, facts=told, settings=settings, filesystem=disk)
    directory = DataDirectory(root, filesystem=disk)
    quarantine = Quarantine(root, RUN, filesystem=disk)
    done = Workload(seed, disk, [], [], [], [], {}, 0, 0, {})
    released = compacted = 0
    compact_share = dice.choice((0.0, 0.06))

    def take(record: Record) -> None:
        done.records.append(record)
        if not journal.append(*encode_record(record)):
            raise RuntimeError("the journal has let go of a record, which it must not")
        for event in pipeline.feed(record).events:
            if isinstance(event, Malformed):
                quarantine.add(event.recv_ns, event.connection, event.why, event.raw)

    def flush_quarantine() -> None:
        quarantine.flush()
        done.kept.append(Kept(len(disk.calls), len(done.records)))

    journal.start()
    for made in Troubled(dice, dice.randint(30, 50), checkpoint_share=0).records[len(SYMBOLS) :]:
        while (due := rounds.due(float(len(done.records)))) is not None:
            seq = len(done.records) + 1
            take(Checkpoint(seq, made.recv_ns, seq, *due, pipeline.checkpoint(due.symbol)))
            rounds.taken(due, seq)
        seq = len(done.records) + 1
        if isinstance(made, Frames) and dice.random() < 0.2:
            done.malformed[seq] = f"malformed, 牛 {seq}"
            made = msgspec.structs.replace(made, frames=[*made.frames, done.malformed[seq].encode()])
        take(msgspec.structs.replace(made, seq=seq))
        if dice.random() < 0.1 and journal.flush(FLUSH_S):
            done.journalled.append(Journalled(len(disk.calls), len(done.records)))
        if dice.random() < 0.04:
            pipeline.tables.seal_all()
        publish(pipeline.tables.take_sealed(), directory, journal, done, is_hurried=not is_own_time)
        if dice.random() < 0.1:
            first = pipeline.tables.first_seq
            committed_seq = len(done.records) if first is None else first - 1
            if needed_from := rounds.needed_from(committed_seq):
                flush_quarantine()
                released += len(journal.release(needed_from))
        if dice.random() < 0.05:
            flush_quarantine()
        if dice.random() < compact_share:
            done_now = compact(root, COMPACTS_ALL, filesystem=disk)
            if done_now.problems:
                raise RuntimeError(f"the compaction has failed: {done_now.problems}")
            compacted += done_now.directories
    journal.close(FLUSH_S)
    journal.check()
    return attrs.evolve(done, released=released, compacted=compacted, rows=_rows(done.records, None))


def publish(
    every: Iterable[Sealed], directory: DataDirectory, journal: Journal, done: Workload, *, is_hurried: bool
) -> None:
    """Publish as the writer does, once the records are durable, and enter it into the ledger."""
    for sealed in every:
        if not (journal.flush(FLUSH_S) if is_hurried else journal.wait_durable(sealed.last_seq, FLUSH_S)):
            raise RuntimeError("the journal does not become durable")
        path = directory.path_of(sealed, venue=VENUE, run=RUN)
        encoded = encode(sealed, PROVENANCE)
        directory.publish(path, encoded.data)
        directory.read_back(path, encoded.data)
        calls = len(done.disk.calls)
        done.published.append(
            Published(calls, (sealed.kind.name, sealed.symbol), Counter(_rows_of(encoded.data)))
        )
        ledger.append(directory.root, [ledger.entry_of_file(encoded.data)], filesystem=directory.filesystem)


def store_uninterrupted(workload: Workload, root: Path) -> None:
    """Publish into ``root`` what the run would have left, had nothing happened."""
    directory = DataDirectory(root, filesystem=CrashDisk(root))
    root.mkdir()
    entries = []
    for sealed in _sealed(workload.records, len(workload.records) + 1):
        encoded = encode(sealed, PROVENANCE)
        directory.publish(directory.path_of(sealed, venue=VENUE, run=RUN), encoded.data)
        entries.append(ledger.entry_of_file(encoded.data))
    ledger.append(root, entries, filesystem=directory.filesystem)


def _sealed(records: list[Record], end_seq: int | None) -> list[Sealed]:
    pipeline = machine(with_cvd=True)
    for record in records:
        pipeline.feed(record)
    if end_seq is not None and records:
        pipeline.end(end_seq, records[-1].recv_ns)
    pipeline.tables.seal_all()
    return pipeline.tables.take_sealed()


def _rows(records: list[Record], end_seq: int | None) -> Rows:
    found: Rows = {}
    for sealed in _sealed(records, end_seq):
        rows = _rows_of(encode(sealed, PROVENANCE).data)
        found.setdefault((sealed.kind.name, sealed.symbol), Counter()).update(rows)
    return found


def _rows_of(file: pa.Buffer) -> list[tuple[Any, ...]]:
    return table_rows(pq.ParquetFile(io.BytesIO(file)).read(use_threads=False))


def table_rows(table: pa.Table) -> list[tuple[Any, ...]]:
    """Return the rows of a table as tuples, ``seq`` first; times are integers."""
    names = ["seq", *sorted(name for name in table.column_names if name != "seq")]
    return list(zip(*(_values(table[name]) for name in names), strict=True))


def _values(column: pa.ChunkedArray) -> list[Any]:
    if pa.types.is_timestamp(column.type):
        column = column.cast(pa.int64())
    values = column.to_pylist()
    # NaN is nothing that equals itself, and lists cannot be counted.
    return [repr(value) if isinstance(value, (list, float)) else value for value in values]
