"""Ingest: recordings through the very same state machine as a run, as fast as the machine allows.

The run's id follows from what is ingested, so the same input gives the same rows under the same names, and what is there
already is refused rather than stored twice. What an ingest has left that did not come to its end is made again.
"""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import TYPE_CHECKING, Any

from harvest.errors import HarvestError, MalformedMessageError
from harvest.market import CHANNEL
from harvest.metrics import Metrics
from harvest.pipeline.dead_runs import refuse_dead_runs
from harvest.pipeline.events import Malformed
from harvest.pipeline.machine import Pipeline
from harvest.pipeline.recordings import PlainLines, Recording, in_order, read_at_once
from harvest.pipeline.records import Frames, SnapshotBody
from harvest.pipeline.resume import check_id_space, resume_cvd
from harvest.pipeline.summary import Summary
from harvest.storage import ledger
from harvest.storage.catalog import scan
from harvest.storage.files import DataDirectory
from harvest.storage.layout import new_run_id
from harvest.storage.parquet import Provenance, encode
from harvest.storage.quarantine import Quarantine
from harvest.storage.unfinished import DIGEST, remove_unfinished
from harvest.venues import VENUES

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from harvest.market import Channel, IdSpace
    from harvest.pipeline.recordings import Line
    from harvest.settings import Settings
    from harvest.storage.tables import Sealed

#: Between two looks at the size of the buffers, and two reports of progress.
LINES_PER_MEASURE = 2048
#: Buffers beyond this are sealed, so that a recording of any length takes bounded memory.
SEAL_BYTES = 128 * 2**20
#: Of streams that may be most of a recording: the channel that stores them.
_CHANNEL_OF: dict[str, Channel] = {"bookTicker": "bbo"}
_ID_SPACES: dict[str, IdSpace] = {"aggTrade": "aggregate", "trade": "raw"}


class AlreadyIngestedError(HarvestError):
    """The data directory holds these very recordings already."""

    def __init__(self, root: Path, run: str) -> None:
        self.root, self.run = root, run
        super().__init__(
            f"{root} holds these recordings already, as run {run}; nothing was written. To ingest them anew, use "
            f"another --data directory, or remove the files whose names begin with {run}."
        )


class MixedTradesError(HarvestError):
    """Recordings that hold both aggregate and raw trades."""

    def __init__(self) -> None:
        super().__init__(
            "these recordings hold aggregate and raw trades, whose ids never meet: ingest them apart"
        )


class Ingest:
    """One ingest of ``paths`` into ``settings.capture.output_dir``. Make it, then ``run`` it once.

    Raises:
        RecordingError: a file cannot be read, or is no recording.
        RunsWaitError: runs that died wait to be recovered.
        AlreadyIngestedError: these files are in the data directory already.
        IdSpaceError: the data directory holds the other kind of trade ids.
        MixedTradesError: the files hold both kinds.
    """

    def __init__(self, paths: Sequence[Path], settings: Settings) -> None:
        self.recordings = in_order(paths)
        self.total_bytes = sum(recording.size_bytes for recording in self.recordings)
        self.metrics = Metrics()
        self._settings = settings
        self._root = settings.capture.output_dir
        self._venue = VENUES[settings.capture.venue]
        refuse_dead_runs(self._root)
        catalog = scan(self._root, self._venue.name)
        digest = _digest(self.recordings)
        self.run_id = new_run_id(self.recordings[0].first_recv_ns)[:-4] + digest[:4]
        if self.run_id in catalog.runs:
            if not remove_unfinished(catalog, self.run_id, digest):
                raise AlreadyIngestedError(self._root, self.run_id)
            catalog = scan(self._root, self._venue.name)
        events = frozenset().union(*(recording.events for recording in self.recordings))
        spaces = [space for event, space in _ID_SPACES.items() if event in events]
        if len(spaces) > 1:
            raise MixedTradesError
        symbols = {symbol for recording in self.recordings for symbol in recording.symbols}
        if spaces:
            check_id_space(catalog, symbols, spaces[0])
        #: That of the record before.
        self._seq = catalog.next_seq - 1
        #: The recording that is read, and what was received at one time that is not fed yet.
        self._name = ""
        self._frames: list[bytes] = []
        self._block_ns: int | None = None
        self.pipeline = Pipeline(
            self._venue,
            metrics=self.metrics,
            levels=settings.book.levels,
            max_rows=settings.rotation.max_rows_per_file,
            max_pending_diffs=settings.book.max_pending_diffs,
            resume_cvd=resume_cvd(catalog),
            id_space=spaces[0] if spaces else None,
            channels=settings.channels.record or (),
        )
        self._quarantine = Quarantine(self._root, self.run_id)
        self._files = _Files(
            DataDirectory(self._root),
            Provenance(
                self._venue.name,
                self.run_id,
                trade_ids=spaces[0] if spaces else None,
                max_pending_diffs=settings.book.max_pending_diffs,
                extra={DIGEST: digest},
            ),
            settings.writer.save_concurrency,
        )

    def run(self, on_progress: Callable[[int], None] = lambda _bytes: None) -> Summary:
        """Ingest everything; ``on_progress`` gets the bytes read so far, of ``total_bytes``.

        Raises:
            OSError: a file could not be read or written; what was published is whole.
        """
        started = time.monotonic()
        done_bytes = 0
        with self._files:
            for recording in self.recordings:
                self._ingest(recording, done_bytes, on_progress)
                done_bytes += recording.size_bytes
                on_progress(done_bytes)
            self.pipeline.tables.seal_all()
            self._files.write(self.pipeline.tables.take_sealed())
        self._quarantine.flush()
        return Summary(
            run=self.run_id,
            root=str(self._root),
            venue=self._venue.name,
            seconds=time.monotonic() - started,
            rows=self._files.rows,
            files=self._files.count,
            bytes=self._files.bytes,
            metrics=self.metrics,
        )

    def _ingest(self, recording: Recording, before_bytes: int, on_progress: Callable[[int], None]) -> None:
        def measure() -> None:
            self._make_room()
            on_progress(before_bytes + file.tell())

        recorded = self._settings.channels.record or ()
        left_out = tuple(
            head
            for head, event in recording.heads
            if event in _CHANNEL_OF and _CHANNEL_OF[event] not in recorded
        )
        self._name = recording.path.name
        with recording.path.open("rb") as file:
            for lines in read_at_once(file, ahead=True):
                if isinstance(lines, PlainLines):
                    for part in lines.parts(LINES_PER_MEASURE):
                        if part.first % LINES_PER_MEASURE == 0:
                            measure()
                        self._take_plain(part, left_out)
                    continue
                for line in lines:
                    if line.number % LINES_PER_MEASURE == 0:
                        measure()
                    self._take_line(line, recording)
        self._end_block()

    def _take_plain(self, lines: PlainLines, left_out: tuple[bytes, ...]) -> None:
        """Take messages; of streams whose frames begin like ``left_out`` nothing is stored."""
        decode, others = self._venue.decode, self.metrics.other_events
        frames, block_ns = self._frames, self._block_ns
        for recv_ns, frame in zip(lines.recv_ns, lines.frames, strict=True):
            if recv_ns != block_ns:
                if frames:
                    self._end_block()
                    frames = self._frames
                self._block_ns = block_ns = recv_ns
                self._seq += 1
            if frame.startswith(left_out):
                # Most of a recording may be such: the machine would count it, and have a record made for nothing.
                try:
                    message: Any = decode(frame)
                except MalformedMessageError:
                    pass
                else:
                    if message.shape == CHANNEL:
                        others[message.name] += 1
                        continue
            frames.append(frame)

    def _take_line(self, line: Line, recording: Recording) -> None:
        if line.why is not None:
            self._end_block()
            self._reject(line, self._name, line.why)
        elif line.is_snapshot:
            self._end_block()
            self._take_snapshot(line, recording)
        else:
            self._take_plain(PlainLines(line.number, [line.recv_ns], [line.frame]), ())

    def _end_block(self) -> None:
        """Feed what was received at one time: the record whose ``seq`` was the last one given."""
        frames, block_ns = self._frames, self._block_ns
        self._frames, self._block_ns = [], None
        if frames:
            assert block_ns is not None
            events = self.pipeline.feed(Frames(self._seq, block_ns, block_ns, self._name, frames)).events
            self._take(events)

    def _take_snapshot(self, line: Line, recording: Recording) -> None:
        if len(recording.symbols) != 1:
            why = f"a snapshot names no symbol, and this file holds {len(recording.symbols)}"
            self._reject(line, recording.path.name, why)
            return
        (symbol,) = recording.symbols
        self._seq += 1
        body = SnapshotBody(self._seq, line.recv_ns, line.recv_ns, symbol, line.frame)
        self._take(self.pipeline.feed(body).events)

    def _take(self, events: Sequence[object]) -> None:
        for event in events:
            if isinstance(event, Malformed):
                self._quarantine.add(event.recv_ns, event.connection, event.why, event.raw)

    def _reject(self, line: Line, name: str, why: str) -> None:
        self.metrics.malformed += 1
        self._quarantine.add(line.recv_ns, f"{name}:{line.number}", why, line.frame)

    def _make_room(self) -> None:
        tables = self.pipeline.tables
        if tables.size_bytes > SEAL_BYTES:
            tables.seal_all()
        self._files.write(tables.take_sealed())


class _Files:
    """Writes sealed tables, ``concurrency`` at once in threads; ``write`` waits while more than that are under way."""

    def __init__(self, directory: DataDirectory, provenance: Provenance, concurrency: int) -> None:
        self.rows: Counter[tuple[str, str]] = Counter()
        self.count = 0
        self.bytes = 0
        self._directory = directory
        self._provenance = provenance
        self._concurrency = concurrency
        self._entries: list[ledger.Entry] = []
        self._pool = ThreadPoolExecutor(concurrency, thread_name_prefix="ingest")
        self._under_way: set[Future[tuple[Sealed, int, ledger.Entry]]] = set()

    def __enter__(self) -> _Files:
        return self

    def __exit__(self, error: type[BaseException] | None, *_details: object) -> None:
        try:
            self._collect(at_most=0)
            if error is not None:
                # Whoever ingests the same again knows by the ledger that this did not come to its end.
                return
            # In an order of their own, whatever the threads did: the same input gives the same ledger.
            entries = sorted(self._entries, key=lambda one: (one.kind, one.first_seq))
            ledger.append(self._directory.root, entries)
        finally:
            self._pool.shutdown(cancel_futures=True)

    def write(self, sealed: Sequence[Sealed]) -> None:
        for table in sealed:
            self._collect(at_most=2 * self._concurrency)
            self._under_way.add(self._pool.submit(self._write_one, table))

    def _write_one(self, sealed: Sealed) -> tuple[Sealed, int, ledger.Entry]:
        path = self._directory.path_of(sealed, venue=self._provenance.venue, run=self._provenance.run)
        encoded = encode(sealed, self._provenance)
        self._directory.publish(path, encoded.data)
        return sealed, encoded.size_bytes, ledger.entry_of_file(encoded.data)

    def _collect(self, *, at_most: int) -> None:
        while len(self._under_way) > at_most:
            done, self._under_way = wait(self._under_way, return_when=FIRST_COMPLETED)
            for future in done:
                sealed, size_bytes, entry = future.result()
                self._entries.append(entry)
                self.rows[sealed.kind.name, sealed.symbol] += sealed.count
                self.count += 1
                self.bytes += size_bytes


def _digest(recordings: Sequence[Recording]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for recording in recordings:
        with recording.path.open("rb") as file:
            digest.update(hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).digest())
    return digest.hexdigest()
