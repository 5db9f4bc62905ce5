"""Recovery: the rows that a dead run had in memory, made again from the records that its journal kept.

It is the run's own state machine that makes them: each symbol goes on from its first checkpoint, and what a file of the same
directory holds already is left out. So recovering twice, or dying half-way and recovering again, gives the same rows, none of
them twice.

A checkpoint in the middle is as good a beginning as the first one. So processes may share the records, a slice each: where one
comes to a symbol's checkpoint, the other has gone on from it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import attrs
import msgspec

from harvest.market import IdSpace
from harvest.metrics import Metrics
from harvest.pipeline.checkpoint import CheckpointError, decode_state
from harvest.pipeline.events import Malformed
from harvest.pipeline.records import Checkpoint, Frames, Opened, Overload, Resumed
from harvest.pipeline.recovered_files import RecoveredFiles
from harvest.pipeline.restoration import RestoredPipeline
from harvest.storage.quarantine import Quarantine

if TYPE_CHECKING:
    from collections.abc import Iterable

    from harvest.pipeline.records import Record
    from harvest.storage.catalog import Catalog
    from harvest.storage.files import DataDirectory
    from harvest.storage.parquet import Provenance
    from harvest.venues.protocol import Venue

#: Buffers beyond this are written, so that a journal of any length takes bounded memory.
SEAL_BYTES = 64 * 2**20
#: Between two looks at the size of the buffers.
RECORDS_PER_MEASURE = 1024


class RunFacts(msgspec.Struct, frozen=True):
    """The settings of a run that decide its rows, as its journal keeps them."""

    levels: int
    max_pending_diffs: int
    patience_s: float
    id_space: IdSpace | None = None


class Slice(NamedTuple):
    """The part of a run's records that one process makes rows of.

    Each symbol begins with its first usable checkpoint that is not before the record ``from_seq``, and is the next slice's from its
    first one not before ``until_seq``; None: there is no next slice. In between other symbols are still, or already, another's.
    """

    from_seq: int = 0
    until_seq: int | None = None


WHOLE = Slice()


@attrs.define(eq=False)
class RecoveryReport:
    """What became of the records of one dead run, or of a slice of them."""

    run: str
    records: int = 0
    #: Rows that were made again and published, and rows that files held already, by kind.
    rows: dict[str, int] = attrs.Factory(dict)
    rows_held: dict[str, int] = attrs.Factory(dict)
    files: int = 0
    #: Symbols that went on from a checkpoint, and those whose connections were opened.
    restored: set[str] = attrs.Factory(set)
    opened: set[str] = attrs.Factory(set)
    #: Stretches of ``seq``, inclusive, of which there is no record.
    holes: list[tuple[int, int]] = attrs.Factory(list)
    malformed: int = 0
    #: One line for each thing that could not be made good.
    problems: list[str] = attrs.Factory(list)

    @property
    def symbols(self) -> list[str]:
        """The symbols that went on from a checkpoint."""
        return sorted(self.restored)

    @property
    def without_checkpoint(self) -> list[str]:
        """The symbols whose connections were opened but which have none."""
        return sorted(self.opened - self.restored)

    def add(self, other: RecoveryReport) -> None:
        """Take in what became of another part; records and holes, which parts share, are left out."""
        for mine, theirs in ((self.rows, other.rows), (self.rows_held, other.rows_held)):
            for kind, count in theirs.items():
                mine[kind] = mine.get(kind, 0) + count
        self.files += other.files
        self.restored |= other.restored
        self.opened |= other.opened
        self.malformed += other.malformed
        self.problems += [problem for problem in other.problems if problem not in self.problems]


def recover(
    records: Iterable[Record],
    *,
    venue: Venue,
    facts: RunFacts,
    catalog: Catalog,
    directory: DataDirectory,
    provenance: Provenance,
    part: Slice = WHOLE,
    first_seq: int | None = None,
    max_rows: int = 100_000,
    seal_bytes: int = SEAL_BYTES,
) -> RecoveryReport:
    """Publish what is in no file yet of the ``records`` of one dead run, under its id (that of ``provenance``).

    ``catalog`` is a scan of ``directory``, not older than the last file of that run; what is published is added to it.
    ``records`` are those of the run from ``part.from_seq`` on, and no more of them are taken than ``part`` needs; ``first_seq`` is
    that of the run's first, if that is another. A record more than the last is used up, for the end of the run: the ``seq`` after it.
    When all parts are through, ``complete`` does the rest. It blocks on the disk.

    Raises:
        OSError: a file could not be written; what was published is whole, and the same call goes on from there.
        StorageError: a file does not read back as it was written.
    """
    recovery = _Recovery(venue, facts, catalog, directory, provenance, part, max_rows)
    return recovery.run(records, seal_bytes, first_seq)


def complete(
    *, catalog: Catalog, directory: DataDirectory, provenance: Provenance, next_run_seq: int | None = None
) -> RecoveryReport:
    """Publish what follows from the rows of all parts, the sums, and tell the ledger of each file of the run that it does not know.

    ``catalog`` is a scan of ``directory``, not older than the last file of any part. ``next_run_seq`` is the first of a run whose rows
    are not all in files either, one that goes on or is to be recovered next. It blocks on the disk.

    Raises: as ``recover``.
    """
    report = RecoveryReport(provenance.run)
    files = RecoveredFiles(directory, catalog, provenance, report.rows, report.rows_held)
    files.derive_cvd(next_run_seq)
    files.complete_ledger()
    report.files, report.problems = files.count, files.problems
    return report


class _Recovery:
    def __init__(
        self,
        venue: Venue,
        facts: RunFacts,
        catalog: Catalog,
        directory: DataDirectory,
        provenance: Provenance,
        part: Slice,
        max_rows: int,
    ) -> None:
        self._part = part
        self._report = RecoveryReport(provenance.run)
        self._files = RecoveredFiles(
            directory, catalog, provenance, self._report.rows, self._report.rows_held
        )
        self._quarantine = Quarantine(directory.root, provenance.run, filesystem=directory.filesystem)
        self._pipeline = RestoredPipeline(
            venue,
            metrics=Metrics(),
            levels=facts.levels,
            max_rows=max_rows,
            max_pending_diffs=facts.max_pending_diffs,
            # It follows from the files of ``prices`` when these are whole.
            resume_cvd=None,
            # Each is recorded from its checkpoint on.
            symbols=(),
            id_space=facts.id_space,
            patience_s=facts.patience_s,
        )
        #: Symbols that the next slice has gone on with.
        self._released: set[str] = set()
        self._last: Record | None = None

    def run(self, records: Iterable[Record], seal_bytes: int, first_seq: int | None) -> RecoveryReport:
        report, tables = self._report, self._pipeline.tables
        for record in records:
            first_seq = first_seq or record.seq
            if self._last is not None and record.seq > self._last.seq + 1:
                self._pass_over(self._last, record)
            self._last = record
            report.records += 1
            self._take(record)
            if report.records % RECORDS_PER_MEASURE == 0 and tables.size_bytes > seal_bytes:
                self._write()
            if self._is_over(record) and self._pipeline.is_idle:
                break
        if self._last is not None and first_seq is not None:
            self._resume_late(self._last, first_seq)
            self._pipeline.end(self._last.seq + 1, self._last.recv_ns)
        self._write()
        self._files.enter()
        self._quarantine.leave_out_known()
        self._quarantine.flush()
        report.files = self._files.count
        report.problems += self._files.problems
        return report

    def _take(self, record: Record) -> None:
        if isinstance(record, Checkpoint):
            self._take_checkpoint(record)
            return
        if isinstance(record, Opened):
            self._report.opened.update(record.symbols)
        # What a block holds is malformed for whoever decodes it, and the next slice decodes it too.
        is_ours = not (isinstance(record, Frames) and self._is_over(record))
        for event in self._pipeline.feed(record).events:
            if isinstance(event, Malformed) and is_ours:
                self._report.malformed += 1
                self._quarantine.add(event.recv_ns, event.connection, event.why, event.raw)

    def _take_checkpoint(self, record: Checkpoint) -> None:
        symbol, restored = record.symbol, self._report.restored
        is_over = self._is_over(record)
        if symbol in self._released or (symbol in restored and not is_over):
            return
        try:
            if is_over:
                decode_state(symbol, record.state)
                self._pipeline.release(symbol)
                self._released.add(symbol)
            else:
                self._pipeline.restore(symbol, record.state)
                restored.add(symbol)
        except CheckpointError as error:
            self._report.problems.append(str(error))

    def _is_over(self, record: Record) -> bool:
        """Tell whether a symbol that has a usable checkpoint from here on is the next slice's from there."""
        return self._part.until_seq is not None and record.seq >= self._part.until_seq

    def _pass_over(self, before: Record, after: Record) -> None:
        """Let what is missing from here on be explained: there are records that the journal does not have.

        A book stays suspect until a snapshot comes. A later checkpoint has the right book, but whoever rebuilds it from
        ``depth`` has not.
        """
        self._report.holes.append((before.seq + 1, after.seq - 1))
        symbols = tuple(self._report.restored)
        for feed in ("trade", "orderbook"):
            self._pipeline.feed(
                Overload(after.seq, after.recv_ns, after.mono_ns, "", feed, symbols, before.recv_ns, 0)
            )

    def _resume_late(self, last: Record, first_seq: int) -> None:
        """Judge the trades between this run and those before it, where it has died before it could do so itself."""
        last_ids = {
            symbol: last_id
            for symbol in self._report.symbols
            if self._pipeline.begins_alone(symbol)
            and (last_id := self._files.last_trade_id(symbol, first_seq)) is not None
        }
        if last_ids:
            self._pipeline.feed(Resumed(last.seq + 1, last.recv_ns, last.mono_ns, last_ids, False))

    def _write(self) -> None:
        tables = self._pipeline.tables
        tables.seal_all()
        for sealed in tables.take_sealed():
            self._files.write(sealed)
