"""Recordings in the collector's line format: ``<receive time, ns, 19 digits> <raw frame>``, plain or gzipped.

A line whose JSON has no ``stream`` is a REST depth snapshot, of the one symbol that its file holds.
"""

from __future__ import annotations

import gzip
import re
import zlib
from typing import TYPE_CHECKING

import attrs

from harvest.errors import RecordingError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path
    from typing import BinaryIO

#: The collector writes frames as received, and so each field where the venue puts it; others put blanks between.
_STREAM = re.compile(rb'\{\s*"stream"\s*:\s*"([^"@]+)@([A-Za-z]+)')
_SNAPSHOT = re.compile(rb'\{\s*"lastUpdateId"')
#: How far to look for the symbols of a file.
SCAN_LINES = 2_000
_STAMP_DIGITS = 19


@attrs.frozen
class Recording:
    """One file: when it begins, which symbols and events its first lines hold, and its size on disk."""

    path: Path
    first_recv_ns: int
    symbols: tuple[str, ...]
    events: frozenset[str]
    size_bytes: int


@attrs.define
class Line:
    """One line: ``frame`` as received; ``is_snapshot`` for a REST body. ``why`` names what is wrong with it, if anything."""

    number: int
    recv_ns: int
    frame: bytes
    is_snapshot: bool = False
    why: str | None = None


def _unpacked(file: BinaryIO) -> Iterable[bytes]:
    """Give the lines of an open file, through gzip where its first bytes say so."""
    magic = file.read(2)
    file.seek(0)
    return gzip.GzipFile(fileobj=file) if magic == b"\x1f\x8b" else file


def scan(path: Path) -> Recording:
    """Look at the first lines of a file.

    Raises:
        RecordingError: it cannot be read, or is no recording.
    """
    first_recv_ns: int | None = None
    symbols: dict[str, None] = {}
    events: set[str] = set()
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
                if line.number >= SCAN_LINES:
                    break
    except OSError as error:
        raise RecordingError(str(path), 0, error.strerror or str(error)) from error
    if first_recv_ns is None:
        raise RecordingError(str(path), 0, "it is empty")
    return Recording(path, first_recv_ns, tuple(symbols), frozenset(events), size_bytes)


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
    number = 0
    try:
        for number, raw in enumerate(_unpacked(file), start=1):
            line = raw.rstrip(b"\r\n")
            stamp = line[:_STAMP_DIGITS]
            if line[_STAMP_DIGITS : _STAMP_DIGITS + 1] != b" " or not stamp.isdigit():
                if line:
                    yield Line(number, 0, line, why="no 19-digit receive time before the frame")
                continue
            frame = line[_STAMP_DIGITS + 1 :]
            why = None
            if not raw.endswith(b"\n") and not frame.endswith(b"}"):
                why = "the last line is torn"
            elif not frame.isascii():
                why = _not_utf8(frame)
            yield Line(number, int(stamp), frame, _SNAPSHOT.match(frame) is not None, why)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        yield Line(number + 1, 0, b"", why=f"the file is damaged from here on ({error})")


def _not_utf8(frame: bytes) -> str | None:
    try:
        frame.decode()
    except UnicodeDecodeError as error:
        return f"not UTF-8 at byte {error.start}"
    return None
