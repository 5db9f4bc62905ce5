"""Recovery: the rows that a dead run had in memory, made again from the records that its journal kept.

It is the run's own state machine that makes them: each symbol goes on from its first checkpoint, and what a file of the same
directory holds already is left out. So recovering twice, or dying half-way and recovering again, gives the same rows, none of
them twice.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import msgspec

from harvest.market import IdSpace
from harvest.metrics import Metrics
from harvest.pipeline.checkpoint import CheckpointError
from harvest.pipeline.events import Malformed
from harvest.pipeline.records import Checkpoint, Frames, Opened, Overload, Resumed, Symbols
from harvest.pipeline.recovered_files import RecoveredFiles
from harvest.pipeline.restoration import RestoredPipeline
from harvest.storage.quarantine import Quarantine
from harvest.venues.blocks import payloads

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

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


@attrs.define(eq=False)
class RecoveryReport:
    """What became of the records of one dead run."""

    run: str
    records: int = 0
    #: Rows that were made again and published, and rows that files held already, by kind.
    rows: dict[str, int] = attrs.Factory(dict)
    rows_held: dict[str, int] = attrs.Factory(dict)
    files: int = 0
    #: Symbols that went on from a checkpoint, and those whose connections were opened but which have none.
    symbols: list[str] = attrs.Factory(list)
    without_checkpoint: list[str] = attrs.Factory(list)
    #: Stretches of ``seq``, inclusive, of which there is no record.
    holes: list[tuple[int, int]] = attrs.Factory(list)
    malformed: int = 0
    #: One line for each thing that could not be made good.
    problems: list[str] = attrs.Factory(list)


def recover(
    records: Iterable[Record],
    *,
    venue: Venue,
    facts: RunFacts,
    catalog: Catalog,
    directory: DataDirectory,
    provenance: Provenance,
    symbols: Collection[str] | None = None,
    max_rows: int = 100_000,
    seal_bytes: int = SEAL_BYTES,
    next_run_seq: int | None = None,
) -> RecoveryReport:
    """Publish what is in no file yet of the ``records`` of one dead run, under its id (that of ``provenance``).

    ``catalog`` is a scan of ``directory``, not older than the last file of that run; what is published is added to it.
    ``symbols`` are those to be recovered, all if None: processes may share the symbols among them. A record more than the
    last is used up, for the end of the run: the ``seq`` after it. ``next_run_seq`` is the first of a run whose rows are not all
    in files either, one that goes on or is to be recovered next. It blocks on the disk.

    Raises:
        OSError: a file could not be written; what was published is whole, and the same call goes on from there.
        StorageError: a file does not read back as it was written.
    """
    recovery = _Recovery(venue, facts, catalog, directory, provenance, symbols, max_rows)
    return recovery.run(records, seal_bytes, next_run_seq)


class _Recovery:
    def __init__(
        self,
        venue: Venue,
        facts: RunFacts,
        catalog: Catalog,
        directory: DataDirectory,
        provenance: Provenance,
        symbols: Collection[str] | None,
        max_rows: int,
    ) -> None:
        self._venue = venue
        self._wanted = None if symbols is None else frozenset(symbols)
        self._report = RecoveryReport(provenance.run)
        self._files = RecoveredFiles(
            directory, catalog, provenance, self._report.rows, self._report.rows_held
        )
        self._quarantine = Quarantine(directory.root, provenance.run)
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
        self._opened: set[str] = set()
        self._restored: set[str] = set()
        self._last: Record | None = None

    def run(self, records: Iterable[Record], seal_bytes: int, next_run_seq: int | None) -> RecoveryReport:
        report, tables = self._report, self._pipeline.tables
        first_seq = 0
        for record in records:
            first_seq = first_seq or record.seq
            if self._last is not None and record.seq > self._last.seq + 1:
                self._pass_over(self._last, record)
            self._last = record
            report.records += 1
            self._take(record)
            if report.records % RECORDS_PER_MEASURE == 0 and tables.size_bytes > seal_bytes:
                self._write()
        if self._last is not None:
            self._resume_late(self._last, first_seq)
            self._pipeline.end(self._last.seq + 1, self._last.recv_ns)
        self._write()
        self._files.derive_cvd(self._wanted, next_run_seq)
        self._files.complete_ledger(self._wanted)
        self._quarantine.leave_out_known()
        self._quarantine.flush()
        report.files = self._files.count
        report.problems += self._files.problems
        report.symbols = sorted(self._restored)
        report.without_checkpoint = sorted(self._opened - self._restored)
        return report

    def _take(self, record: Record) -> None:
        if isinstance(record, Frames):
            if self._wanted is not None:
                record = msgspec.structs.replace(record, frames=self._wanted_frames(payloads(record.frames)))
        elif isinstance(record, Checkpoint):
            if self._is_wanted(record.symbol):
                self._take_checkpoint(record)
            return
        elif isinstance(record, Symbols):
            # What is added has a checkpoint of its own soon after; until then it begins as it did in the run.
            record = msgspec.structs.replace(
                record,
                added={symbol: last for symbol, last in record.added.items() if self._is_wanted(symbol)},
                removed=tuple(filter(self._is_wanted, record.removed)),
            )
        elif isinstance(record, Opened):
            self._opened.update(filter(self._is_wanted, record.symbols))
        for event in self._pipeline.feed(record).events:
            if isinstance(event, Malformed):
                self._report.malformed += 1
                self._quarantine.add(event.recv_ns, event.connection, event.why, event.raw)

    def _take_checkpoint(self, record: Checkpoint) -> None:
        symbol = record.symbol
        if symbol in self._restored:
            return
        try:
            self._pipeline.restore(symbol, record.state)
            self._restored.add(symbol)
        except CheckpointError as error:
            self._report.problems.append(str(error))

    def _pass_over(self, before: Record, after: Record) -> None:
        """Let what is missing from here on be explained: there are records that the journal does not have.

        A book stays suspect until a snapshot comes. A later checkpoint has the right book, but whoever rebuilds it from
        ``depth`` has not.
        """
        self._report.holes.append((before.seq + 1, after.seq - 1))
        symbols = tuple(self._restored)
        for feed in ("trade", "orderbook"):
            self._pipeline.feed(
                Overload(after.seq, after.recv_ns, after.mono_ns, "", feed, symbols, before.recv_ns, 0)
            )

    def _resume_late(self, last: Record, first_seq: int) -> None:
        """Judge the trades between this run and those before it, where it has died before it could do so itself."""
        last_ids = {
            symbol: last_id
            for symbol in sorted(self._restored)
            if self._pipeline.begins_alone(symbol)
            and (last_id := self._files.last_trade_id(symbol, first_seq)) is not None
        }
        if last_ids:
            self._pipeline.feed(Resumed(last.seq + 1, last.recv_ns, last.mono_ns, last_ids, False))

    def _wanted_frames(self, frames: list[bytes]) -> list[bytes]:
        symbol_of = self._venue.symbol_of
        return [frame for frame in frames if (symbol := symbol_of(frame)) is None or self._is_wanted(symbol)]

    def _is_wanted(self, symbol: str) -> bool:
        return self._wanted is None or symbol in self._wanted

    def _write(self) -> None:
        tables = self._pipeline.tables
        tables.seal_all()
        for sealed in tables.take_sealed():
            self._files.write(sealed)
