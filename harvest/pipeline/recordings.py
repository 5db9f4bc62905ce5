"""Recordings in the collector's line format: ``<receive time, ns, 19 digits> <raw frame>``, plain or gzipped.

A line whose JSON has no ``stream`` is a REST depth snapshot, of the one symbol that its file holds.
"""

from __future__ import annotations

import re
import zlib
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, NamedTuple

import attrs
import numpy as np

from harvest.errors import RecordingError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path
    from typing import BinaryIO

#: The collector writes frames as received, and so each field where the venue puts it; others put blanks between.
_STREAM = re.compile(rb'\{\s*"stream"\s*:\s*"([^"@]+)@([A-Za-z]+)')
_SNAPSHOT = re.compile(rb'\{\s*"lastUpdateId"')
#: How far to look for the symbols of a file.
SCAN_LINES = 2_000
#: To zlib: a gzip member, with its header and its checksum.
_GZIP = 31
_STAMP_DIGITS = 19
_DIGITS = np.arange(_STAMP_DIGITS)
_POWERS = 10 ** _DIGITS[::-1]
#: What is read at once, and what of a plain file becomes lines at once.
READ_BYTES, PLAIN_BYTES = 2**16, 2**19


@attrs.frozen
class Recording:
    """One file: when it begins, which symbols and events its first lines hold, and its size on disk.

    ``heads`` are what the frames of each stream begin with, up to the end of its name, with its event.
    """

    path: Path
    first_recv_ns: int
    symbols: tuple[str, ...]
    events: frozenset[str]
    size_bytes: int
    heads: frozenset[tuple[bytes, str]] = frozenset()


@attrs.define
class Line:
    """One line: ``frame`` as received; ``is_snapshot`` for a REST body. ``why`` names what is wrong with it, if anything."""

    number: int
    recv_ns: int
    frame: bytes
    is_snapshot: bool = False
    why: str | None = None


class PlainLines(NamedTuple):
    """Lines that follow each other and have nothing wrong: messages of streams, in ASCII. ``first`` is the number of the first."""

    first: int
    recv_ns: list[int]
    frames: list[bytes]

    def parts(self, size: int) -> Iterator[PlainLines]:
        """Cut them before each line whose number is a multiple of ``size``."""
        start = 0
        while start < len(self.frames):
            end = start + size - (self.first + start) % size
            yield PlainLines(self.first + start, self.recv_ns[start:end], self.frames[start:end])
            start = end


def scan(path: Path) -> Recording:
    """Look at the first lines of a file.

    Raises:
        RecordingError: it cannot be read, or is no recording.
    """
    first_recv_ns: int | None = None
    symbols: dict[str, None] = {}
    events: set[str] = set()
    heads: set[tuple[bytes, str]] = set()
    try:
        size_bytes = path.stat().st_size
        with path.open("rb") as file:
            for line in read(file):
                if line.why is not None:
                    if first_recv_ns is None:
                        raise RecordingError(str(path), line.number, line.why)
                    continue
                first_recv_ns = line.recv_ns if first_recv_ns is None else first_recv_ns
                named = _STREAM.match(line.frame)
                if named:
                    symbols[named[1].decode(errors="replace").upper()] = None
                    events.add(named[2].decode())
                    if line.frame[named.end() : named.end() + 1] == b'"':
                        heads.add((named[0] + b'"', named[2].decode()))
                if line.number >= SCAN_LINES:
                    break
    except OSError as error:
        raise RecordingError(str(path), 0, error.strerror or str(error)) from error
    if first_recv_ns is None:
        raise RecordingError(str(path), 0, "it is empty")
    return Recording(path, first_recv_ns, tuple(symbols), frozenset(events), size_bytes, frozenset(heads))


def in_order(paths: Sequence[Path]) -> list[Recording]:
    """Scan files, and put them in the order of their first receive time (of their names, where that is equal).

    Raises:
        RecordingError: one cannot be read, or is no recording.
    """
    return sorted((scan(path) for path in paths), key=lambda one: (one.first_recv_ns, str(one.path)))


def read(file: BinaryIO) -> Iterator[Line]:
    """Give the lines of an open file. A line that is none comes with ``why``; so does a torn end, as the last.

    Raises:
        OSError: the file cannot be read.
    """
    for lines in read_at_once(file):
        if isinstance(lines, PlainLines):
            for place, (recv_ns, frame) in enumerate(zip(lines.recv_ns, lines.frames, strict=True)):
                yield Line(lines.first + place, recv_ns, frame)
        else:
            yield from lines


def read_at_once(file: BinaryIO, *, ahead: bool = False) -> Iterator[PlainLines | list[Line]]:
    """Give the same lines many at once; ``ahead`` reads and unpacks the next ones in a thread meanwhile.

    Raises:
        OSError: the file cannot be read.
    """
    number, begun = 1, list[bytes]()
    pieces = _unpacked(file)
    try:
        for piece in _ahead(pieces) if ahead else pieces:
            end = piece.rfind(b"\n") + 1
            if end:
                lines = b"".join([*begun, piece[:end]])
                yield _plain(lines, number) or _one_by_one(lines, number)
                number += lines.count(b"\n")
                begun = []
            begun.append(piece[end:])
        yield _one_by_one(b"".join(begun), number)
    except (EOFError, zlib.error) as error:
        yield [Line(number, 0, b"", why=f"the file is damaged from here on ({error})")]


def _unpacked(file: BinaryIO) -> Iterator[bytes]:
    """Give the content of an open file, through gzip where its first bytes say so.

    Raises:
        EOFError: it ends too early; all that is there was given.
        zlib.error: it is damaged; all before that was given.
    """
    magic = file.read(2)
    file.seek(0)
    if magic != b"\x1f\x8b":
        while piece := file.read(PLAIN_BYTES):
            yield piece
        return
    unpack = zlib.decompressobj(_GZIP)
    while packed := file.read(READ_BYTES):
        while packed:
            if unpack.eof:
                # Some fill up a member with zeros; then another one may begin.
                packed = packed.lstrip(b"\0")
                unpack = zlib.decompressobj(_GZIP) if packed else unpack
                continue
            before = unpack.copy()
            try:
                piece = unpack.decompress(packed)
            except zlib.error:
                yield from _rescued(before, packed)
                raise
            packed = unpack.unused_data
            yield piece
    if not unpack.eof:
        raise EOFError("it ends before its end-of-stream marker")


def _rescued(unpack: zlib._Decompress, packed: bytes) -> Iterator[bytes]:
    """Give what comes before the damaged byte."""
    for place in range(len(packed)):
        try:
            yield unpack.decompress(packed[place : place + 1])
        except zlib.error:
            return


def _ahead(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Give the pieces, of which a thread makes the next one: unpacking lets others run."""
    with ThreadPoolExecutor(1, thread_name_prefix="recording") as pool:
        coming = pool.submit(next, pieces, None)
        while (piece := coming.result()) is not None:
            coming = pool.submit(next, pieces, None)
            yield piece


def _plain(lines: bytes, first: int) -> PlainLines | None:
    """Take whole lines apart at once; None where something is to be looked at line by line."""
    if not lines.isascii() or b"\r" in lines or b"lastUpdateId" in lines:
        return None
    data = np.frombuffer(lines, np.uint8)
    ends = np.flatnonzero(data == ord("\n"))
    starts = np.concatenate(([0], ends[:-1] + 1))
    if (ends - starts <= _STAMP_DIGITS).any() or (data[starts + _STAMP_DIGITS] != ord(" ")).any():
        return None
    digits = data[starts[:, None] + _DIGITS] - np.uint8(ord("0"))
    # More than 64 bits are Python's.
    if (digits > 9).any() or (digits[:, 0] > 8).any():
        return None
    frames = [line[_STAMP_DIGITS + 1 :] for line in lines.split(b"\n")]
    frames.pop()
    return PlainLines(first, (digits @ _POWERS).tolist(), frames)


def _one_by_one(lines: bytes, first: int) -> list[Line]:
    """Look at each line; the last one has no end if it is the file's last."""
    found = []
    *ended, last = lines.split(b"\n")
    for number, raw in enumerate([*ended, last] if last else ended, start=first):
        line = raw.rstrip(b"\r")
        stamp = line[:_STAMP_DIGITS]
        if line[_STAMP_DIGITS : _STAMP_DIGITS + 1] != b" " or not stamp.isdigit():
            if line:
                found.append(Line(number, 0, line, why="no 19-digit receive time before the frame"))
            continue
        frame = line[_STAMP_DIGITS + 1 :]
        why = None
        if number - first == len(ended) and not frame.endswith(b"}"):
            why = "the last line is torn"
        elif not frame.isascii():
            why = _not_utf8(frame)
        found.append(Line(number, int(stamp), frame, _SNAPSHOT.match(frame) is not None, why))
    return found


def _not_utf8(frame: bytes) -> str | None:
    try:
        frame.decode()
    except UnicodeDecodeError as error:
        return f"not UTF-8 at byte {error.start}"
    return None
