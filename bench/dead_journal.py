"""A journal as a run leaves it that dies under load: real messages, of as many symbols and as many bytes as are wanted.

The recordings of both symbols are spliced by their receive times; each symbol has several copies under names of their own, and when all
is through it comes again, later and with greater ids, so that its books begin anew. Checkpoints are as often as in a run. Without the
recordings a mix of made messages stands for them.
"""

from __future__ import annotations

import heapq
import re
from itertools import count
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from bench.measures.recordings import recordings
from bench.peers.load import SYMBOL, make
from harvest.metrics import Metrics
from harvest.pipeline.journal_records import encode_record
from harvest.pipeline.machine import Pipeline
from harvest.pipeline.recordings import in_order, read
from harvest.pipeline.records import Checkpoint, Frames, Opened, SnapshotBody
from harvest.pipeline.recover import RunFacts
from harvest.settings import Settings
from harvest.storage.journal import Journal
from harvest.venues import VENUES
from harvest.venues.blocks import join, payloads

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from harvest.pipeline.records import Record

VENUE = VENUES["binance-usdm"]
RUN = "20240718T235900Z0001"
FACTS = RunFacts(levels=5, max_pending_diffs=5000, patience_s=0.2, id_space="raw")
#: Made messages, where there are no recordings.
MADE = 40_000
#: Entries between two looks at whether the disk has taken what was appended.
FLUSH_ENTRIES = 2_000

_NUMBERS = re.compile(rb'"(E|T|U|u|pu|t|a|lastUpdateId)":(\d+)')
_TIMES = frozenset({b"E", b"T"})


class _Line(NamedTuple):
    recv_ns: int
    symbol: str
    frame: bytes
    is_snapshot: bool


class Made(NamedTuple):
    """What a journal holds: frames and the bytes of them, and of how many symbols."""

    symbols: int
    frames: int
    frame_bytes: int


def write_journal(root: Path, size_bytes: int, *, copies: int, block: int) -> Made:
    """Leave a journal of about ``size_bytes``: ``copies`` of each symbol, ``block`` frames a record, nothing of it in files."""
    lines = _recorded() or _made()
    id_space = "raw" if recordings() else "aggregate"
    symbols = {line.symbol: [f"X{copy}{line.symbol}" for copy in range(copies)] for line in lines}
    names = [name for of_one in symbols.values() for name in of_one]
    facts = {"venue": VENUE.name, "symbols": names} | msgspec.to_builtins(FACTS) | {"id_space": id_space}
    journal = Journal(root, venue=VENUE.name, run=RUN, facts=facts, settings=Settings().journal)
    journal.start()
    written = frames = frame_bytes = 0
    for record in _Records(lines, symbols, block):
        kind, seq, body = encode_record(record)
        if not journal.append(kind, seq, body):
            raise RuntimeError("the disk takes the journal too slowly")
        written += len(body)
        if isinstance(record, Frames):
            every = payloads(record.frames)
            frames += len(every)
            frame_bytes += sum(map(len, every))
        if seq % FLUSH_ENTRIES == 0:
            journal.flush(60)
        if written >= size_bytes:
            break
    if journal.close(60) is not None:
        raise RuntimeError("the disk does not take the journal")
    return Made(len(names), frames, frame_bytes)


class _Records:
    """Makes records without end. All copies of a symbol have the same state between any two of them, so that one machine will do."""

    def __init__(self, lines: Sequence[_Line], symbols: dict[str, list[str]], block: int) -> None:
        self._lines, self._symbols, self._block = lines, symbols, block
        self._names = [(name, of_one[0]) for of_one in symbols.values() for name in of_one]
        self._first = tuple(of_one[0] for of_one in symbols.values())
        self._machine = Pipeline(
            VENUE,
            metrics=Metrics(),
            levels=FACTS.levels,
            max_rows=10**6,
            max_pending_diffs=FACTS.max_pending_diffs,
            resume_cvd=None,
            symbols=self._first,
        )
        self._seq = 0
        self._recv_ns = lines[0].recv_ns
        self._blocks: dict[str, list[bytes]] = {"trade-1": [], "orderbook-1": []}

    def __iter__(self) -> Iterator[Record]:
        for number in range(len(self._names)):
            yield self._checkpoint(number)
        for feed in ("trade", "orderbook"):
            yield self._fed(Opened, f"{feed}-1", feed, tuple(name for name, _ in self._names))
        lines = self._lines
        ids = [
            int(found[2])
            for line in lines
            for found in _NUMBERS.finditer(line.frame)
            if found[1] not in _TIMES
        ]
        ids_span = max(ids) + 1 - min(ids)
        span_ms = (lines[-1].recv_ns - lines[0].recv_ns) // 10**6 + 1_000
        step_ns = round(Settings().journal.checkpoint_s * 10**9 / len(self._names))
        due, due_ns = 0, self._recv_ns + step_ns
        for turn in count():
            for line in lines:
                self._recv_ns = line.recv_ns + turn * span_ms * 10**6
                yield from self._take(line, _moved(line.frame, turn * ids_span, turn * span_ms))
                if self._recv_ns >= due_ns:
                    for connection in self._blocks:
                        yield from self._flush(connection)
                    yield self._checkpoint(due % len(self._names))
                    due, due_ns = due + 1, due_ns + step_ns

    def _take(self, line: _Line, moved: bytes) -> Iterator[Record]:
        connection = "orderbook-1" if b"@depth" in moved[:60] else "trade-1"
        if line.is_snapshot:
            yield from self._flush("orderbook-1")
        for name in self._symbols[line.symbol]:
            if line.is_snapshot:
                yield self._fed(SnapshotBody, name, moved)
            else:
                frame = moved.replace(line.symbol.encode(), name.encode(), 1)
                self._blocks[connection].append(
                    frame.replace(line.symbol.lower().encode(), name.lower().encode(), 1)
                )
        if len(self._blocks[connection]) >= self._block:
            yield from self._flush(connection)

    def _flush(self, connection: str) -> Iterator[Record]:
        frames, self._blocks[connection] = self._blocks[connection], []
        if frames:
            yield self._fed(Frames, connection, join(frames))

    def _checkpoint(self, number: int) -> Record:
        name, first = self._names[number]
        return self._fed(Checkpoint, name, 1, len(self._names), self._machine.checkpoint(first))

    def _fed(self, kind: type[Record], *fields: Any) -> Record:
        self._seq += 1
        record = kind(self._seq, self._recv_ns, self._recv_ns, *fields)
        fed = record
        if isinstance(record, Frames):
            ours = [frame for frame in payloads(record.frames) if VENUE.symbol_of(frame) in self._first]
            fed = msgspec.structs.replace(record, frames=join(ours))
        self._machine.feed(fed)
        if self._seq % FLUSH_ENTRIES == 0:
            self._machine.tables.seal_all()
            self._machine.tables.take_sealed()
        return record


def _moved(frame: bytes, ids: int, time_ms: int) -> bytes:
    if not ids:
        return frame
    return _NUMBERS.sub(
        lambda found: b'"%b":%d' % (found[1], int(found[2]) + (time_ms if found[1] in _TIMES else ids)), frame
    )


def _recorded() -> list[_Line]:
    """Read what was recorded; bookTicker, which nobody records, is left out."""
    files = [path for paths in recordings().values() for path in paths if path.name.startswith("usdm__")]
    return list(heapq.merge(*map(_of_file, _by_symbol(files)), key=lambda line: line.recv_ns))


def _by_symbol(files: Sequence[Path]) -> list[list[tuple[Path, str]]]:
    found: dict[str, list[tuple[Path, str]]] = {}
    for recording in in_order(files):
        found.setdefault(recording.symbols[0], []).append((recording.path, recording.symbols[0]))
    return list(found.values())


def _of_file(recordings_of_one: Sequence[tuple[Path, str]]) -> Iterator[_Line]:
    for path, symbol in recordings_of_one:
        with path.open("rb") as file:
            for line in read(file):
                if b"@bookTicker" not in line.frame:
                    yield _Line(line.recv_ns, symbol, line.frame, line.is_snapshot)


def _made() -> list[_Line]:
    load = make("mix", MADE)
    frames = load.frames(frozenset(stream for stream, _ in load.order))
    at_ns = 1_785_542_400 * 10**9
    lines = [_Line(at_ns + number * 10**6, SYMBOL, frame, False) for number, frame in enumerate(frames)]
    # The first diff asks for it.
    return [lines[0], _Line(at_ns, SYMBOL, load.snapshot, True), *lines[1:]]
