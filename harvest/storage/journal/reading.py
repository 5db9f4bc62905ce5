"""Reading the journal: what a run left, in order, each entry once, and an account of what is damaged. Nothing here writes."""

from __future__ import annotations

from heapq import merge
from itertools import groupby
from operator import attrgetter
from typing import TYPE_CHECKING, NamedTuple

from harvest.storage.journal.entries import HEADER, MARKER, Entry, entry_at, entry_end
from harvest.storage.journal.raw import read_bytes
from harvest.storage.journal.segments import decode_header, list_segments

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from harvest.storage.journal.segments import SegmentFile, SegmentHeader

#: More records than a segment can hold.
UNREADABLE_SEQS = 2**30
#: Of the beginning of a segment: what it says of itself is hardly ever longer.
HEADER_BYTES = 2**16


class Damage(NamedTuple):
    """Bytes between two entries that are no entry."""

    path: Path
    start: int
    end: int


class SegmentContents:
    """The entries of one segment, in order. It is read whole; iterating fills in what is damaged.

    Bytes that are no entry are passed over up to the next one, and are in ``damage``; where none follows they are the torn
    end of a process that died, and ``torn_bytes`` counts them. An entry that is not newer than the one before it is left
    out: file systems may show an old file's blocks after a power cut.

    Raises:
        OSError: it cannot be read.
        JournalError: a later version of harvest wrote it (while iterating, before the first entry).
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.damage: list[Damage] = []
        self.torn_bytes = 0
        self._data = read_bytes(path)

    @property
    def header(self) -> SegmentHeader | None:
        """What the segment says of itself; None if that is damaged."""
        return _header_in(self.path, self._data)

    def bytes_of(self, damage: Damage) -> bytes:
        """Return what stands at a damaged place, to be kept elsewhere."""
        return self._data[damage.start : damage.end]

    def __iter__(self) -> Iterator[Entry]:
        view = memoryview(self._data)
        self.damage, self.torn_bytes = [], 0
        position, next_seq = 0, 0
        while position < len(view):
            end = entry_end(view, position)
            if end is None:
                found = self._next_entry(view, position + 1)
                if found is None:
                    self.torn_bytes = len(view) - position
                    return
                self.damage.append(Damage(self.path, position, found))
                position = found
                continue
            entry = entry_at(view, position, end)
            if entry.kind == HEADER:
                decode_header(self.path, entry.body)
            elif entry.seq >= next_seq:
                next_seq = entry.seq + 1
                yield entry
            position = end

    def _next_entry(self, view: memoryview, start: int) -> int | None:
        position = self._data.find(MARKER, start)
        while position >= 0 and entry_end(view, position) is None:
            position = self._data.find(MARKER, position + 1)
        return position if position >= 0 else None


class RunContents:
    """The entries of one run's segments, in order of ``seq``, each once; ``damage`` and ``torn_bytes`` are theirs, so far.

    A segment that was given up is repeated by the next as far as it was not known to be durable: what is whole in either
    is given. ``segments`` may be fewer than all of the run: the newest, or those after a checkpoint.
    """

    def __init__(self, segments: Iterable[SegmentFile]) -> None:
        self.segments = sorted(segments)
        self.damage: list[Damage] = []
        self.torn_bytes = 0

    def __iter__(self) -> Iterator[Entry]:
        self.damage, self.torn_bytes = [], 0
        for group in self._groups():
            every = [self._entries(segment) for segment in group]
            for _, same in groupby(merge(*every, key=_SEQ) if len(every) > 1 else every[0], _SEQ):
                yield next(same)

    def _entries(self, segment: SegmentFile) -> Iterator[Entry]:
        contents = SegmentContents(segment.path)
        yield from contents
        self.damage += contents.damage
        self.torn_bytes += contents.torn_bytes

    def _groups(self) -> Iterator[list[SegmentFile]]:
        """Give the segments, together with those that repeat some of them. One group is in memory at a time."""
        group: list[SegmentFile] = []
        for segment in self.segments:
            header = read_header(segment.path)
            if group and header is not None and header.reached_seq < segment.first_seq:
                yield group
                group = []
            group.append(segment)
        if group:
            yield group


_SEQ = attrgetter("seq")


def read_header(path: Path) -> SegmentHeader | None:
    """Read what a segment says of itself, and no more than that takes; None if that is damaged.

    Raises:
        OSError: it cannot be read.
        JournalError: a later version of harvest wrote it.
    """
    return _header_in(path, read_bytes(path, HEADER_BYTES)) or _header_in(path, read_bytes(path))


def _header_in(path: Path, data: bytes) -> SegmentHeader | None:
    view = memoryview(data)
    end = entry_end(view, 0)
    if end is None:
        return None
    first = entry_at(view, 0, end)
    return decode_header(path, first.body) if first.kind == HEADER else None


def read_segment(path: Path) -> SegmentContents:
    """Open one segment; iterate over what is returned."""
    return SegmentContents(path)


def read_run(root: Path, venue: str, run: str) -> RunContents:
    """Open the journal of one run in a data directory; iterate over what is returned."""
    return RunContents(segment for segment in list_segments(root, venue) if segment.run == run)


def read_run_from(segments: Iterable[SegmentFile], seq: int) -> RunContents:
    """Open the journal of one run without the segments that end before the record ``seq``; a little of what is older may come too."""
    left = sorted(segments)
    begin = max((place for place, segment in enumerate(left) if segment.first_seq <= seq), default=0)
    # A segment that repeats records of those before it may be damaged where they are not.
    while begin > 0:
        header = read_header(left[begin].path)
        if header is not None and header.reached_seq < seq:
            break
        begin -= 1
    return RunContents(left[begin:])


def last_seq(root: Path) -> int:
    """Return the greatest ``seq`` in the journal of a data directory, of whatever venue and run; 0 if there is none.

    It reads the newest segment of each run, and those before it only if that is damaged. What cannot be read may hold more
    than is known, and what is returned is beyond it.

    Raises:
        JournalError: a later version of harvest wrote one.
    """
    greatest = 0
    for _, of_run in groupby(list_segments(root), attrgetter("run")):
        for segment in reversed(list(of_run)):
            try:
                contents = SegmentContents(segment.path)
            except OSError:
                greatest = max(greatest, segment.first_seq + UNREADABLE_SEQS)
                continue
            newest = max((entry.seq for entry in contents), default=0)
            greatest = max(greatest, newest, segment.first_seq - 1)
            header = contents.header
            if header is not None:
                greatest = max(greatest, header.reached_seq)
                break
    return greatest
