"""The journal's two threads: one writes what waits, every few milliseconds; one forces it to the medium, several times a second.

They are two so that a slow medium does not keep what was received in the memory of a process that may be killed. A segment on
which anything failed is given up: what was not known to be durable is written again, to the next one. An fsync that has failed
is never asked again of the same file, for the system may have dropped the pages and would say yes.
"""

from __future__ import annotations

import contextlib
import errno
import threading
import time
from collections import deque
from itertools import islice
from typing import TYPE_CHECKING

import attrs

from harvest.storage.directories import make_directories
from harvest.storage.filesystem import write_all
from harvest.storage.journal.segments import SegmentFile, segment_name

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from harvest.settings import JournalSettings
    from harvest.storage.filesystem import Filesystem
    from harvest.storage.journal.backlog import Backlog, Chunk
    from harvest.storage.journal.reserve import Reserve

FIRST_RETRY_S = 0.1
#: A disk that works again is noticed within so much.
LAST_RETRY_S = 5.0
#: How often a reserve that was used up is tried to be made again.
RESERVE_S = 10.0
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


@attrs.define(eq=False)
class OpenSegment:
    """A segment that is written to, or waits to be closed. ``chunks`` are in it and not known to be durable.

    The first ``whole`` of the chunks are written. The writing thread has it in its hands while ``busy``; only the syncing
    thread closes it.
    """

    file: SegmentFile
    descriptor: int
    begun_s: float
    size: int = 0
    synced_size: int = 0
    last_seq: int = 0
    chunks: deque[Chunk] = attrs.field(factory=deque)
    whole: int = 0
    busy: bool = False
    sealed: bool = False
    broken: bool = False
    #: The last entry that the next segment must have before this one is cut off.
    moved_seq: int = 0


class Committer:
    """Brings a backlog to the disk. ``header(number, first_seq, reached_seq)`` makes a segment's first entry.

    ``failing_since_s`` (monotonic) and ``why`` tell of a disk that does not take it; ``written_seq`` may go back, when a
    segment is given up; ``synced_seq`` never does.
    """

    def __init__(
        self,
        backlog: Backlog,
        directory: Path,
        run: str,
        *,
        header: Callable[[int, int, int], bytes],
        settings: JournalSettings,
        filesystem: Filesystem,
        reserve: Reserve,
    ) -> None:
        self.failing_since_s: float | None = None
        self.why = ""
        self.failures = 0
        self.segments = 0
        self.syncs = 0
        self.written_seq = self.synced_seq = 0
        #: Segments that are whole and closed, with the last ``seq`` of each.
        self.closed: list[tuple[SegmentFile, int]] = []
        #: Told after each sync, under the backlog's lock.
        self.settled = threading.Condition(backlog.lock)
        #: While it is set nothing waits for more to come.
        self.hurry = threading.Event()
        self.reserve = reserve
        self._backlog = backlog
        self._directory = directory
        self._run_id = run
        self._header = header
        self._settings = settings
        self._filesystem = filesystem
        self._live: deque[OpenSegment] = deque()
        self._current: OpenSegment | None = None
        self._reached_seq = 0
        self._in_a_row = 0
        self._not_before_s = 0.0
        self._reserve_at_s = 0.0
        self._dirty = threading.Event()
        self._ended = threading.Event()
        self._threads = [
            threading.Thread(target=self._run_part, args=(part,), name=name, daemon=True)
            for name, part in (("journal-write", self._write), ("journal-sync", self._sync))
        ]
        #: What ended a thread that should not have ended.
        self.bug: Exception | None = None

    def start(self) -> None:
        """Start the threads."""
        for thread in self._threads:
            thread.start()

    def end(self, timeout_s: float) -> None:
        """End the threads, which close what is open; one that the disk does not let go of is left behind."""
        self._ended.set()
        for event in (self.hurry, self._backlog.wake, self._dirty):
            event.set()
        deadline = time.monotonic() + timeout_s
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(max(deadline - time.monotonic(), 0))

    def oldest(self) -> Chunk | None:
        """Return the oldest chunk that is not durable, None if all is."""
        with self._backlog.lock:
            in_files = (segment.chunks[0] for segment in self._live if segment.chunks)
            return next(in_files, None) or self._backlog.oldest_waiting()

    def _run_part(self, part: Callable[[], None]) -> None:
        try:
            part()
        except Exception as error:
            self.bug = error

    def _write(self) -> None:
        backlog = self._backlog
        while not self._ended.is_set():
            backlog.wake.wait()
            self.hurry.wait(self._settings.write_ms / 1000)
            backlog.wake.clear()
            while not self._ended.is_set() and (chunk := backlog.first()) is not None:
                self._write_chunk(chunk)

    def _write_chunk(self, chunk: Chunk) -> None:
        try:
            segment = self._segment_for(chunk)
            with self._backlog.lock:
                if not self._backlog.take(chunk):
                    # The syncing thread has given something back: it goes first, to a segment that begins with it.
                    self._break(segment)
                    self._dirty.set()
                    return
                segment.chunks.append(chunk)
                segment.busy = True
            write_all(self._filesystem, segment.descriptor, chunk.data)
        except OSError as error:
            if self._current is not None:
                self._current.busy = False
            self._give_up(self._current, error)
        else:
            with self._backlog.lock:
                segment.busy = False
                if not segment.broken:
                    segment.whole += 1
                    segment.size += chunk.size
                    segment.last_seq = self.written_seq = chunk.last_seq
                    self._reached_seq = max(self._reached_seq, chunk.last_seq)
        self._dirty.set()

    def _segment_for(self, chunk: Chunk) -> OpenSegment:
        """Return the segment that takes ``chunk`` next: a new one if there is none, or if it has its size or age."""
        settings, segment = self._settings, self._current
        if segment is not None and not segment.broken:
            if (
                segment.size < settings.segment_bytes
                and time.monotonic() - segment.begun_s < settings.segment_s
            ):
                return segment
            with self._backlog.lock:
                segment.sealed = True
        self._current = None
        self._ended.wait(max(self._not_before_s - time.monotonic(), 0))
        make_directories(self._directory, self._filesystem)
        if not self.segments:
            # They may have been made by a process that died before it could force their names to the medium.
            self._filesystem.fsync_directory(self._directory.parent)
            self._filesystem.fsync_directory(self._directory.parent.parent)
        self.segments += 1
        path = self._directory / segment_name(self._run_id, self.segments, chunk.first_seq)
        descriptor = self._filesystem.create(path)
        file = SegmentFile(self._run_id, self.segments, chunk.first_seq, path)
        segment = OpenSegment(file, descriptor, time.monotonic(), last_seq=chunk.first_seq - 1)
        with self._backlog.lock:
            self._live.append(segment)
        self._current = segment
        header = self._header(self.segments, chunk.first_seq, self._reached_seq)
        write_all(self._filesystem, descriptor, header)
        segment.size = len(header)
        return segment

    def _give_up(self, segment: OpenSegment | None, error: OSError) -> None:
        """Write no more to a segment, and let wait again what was not durable of it; a full disk gets the reserve."""
        with self._backlog.lock:
            if segment is not None:
                self._break(segment)
            self.failures += 1
            self.why = error.strerror or str(error)
            if self.failing_since_s is None:
                self.failing_since_s = time.monotonic()
            wait_s = min(FIRST_RETRY_S * 2**self._in_a_row, LAST_RETRY_S)
            self._in_a_row = min(self._in_a_row + 1, 16)
        if error.errno in _FULL and self.reserve.release():
            wait_s = 0.0
        self._not_before_s = time.monotonic() + wait_s
        self._backlog.wake.set()

    def _break(self, segment: OpenSegment) -> None:
        """Give up a segment and those after it: what is in them comes later than what is written again."""
        if segment.broken:
            return
        returned: list[Chunk] = []
        for one in islice(self._live, self._live.index(segment), None):
            if not one.broken:
                one.broken = True
                returned += one.chunks
                one.moved_seq = one.chunks[-1].last_seq if one.chunks else 0
                one.chunks.clear()
                one.whole = 0
        if returned:
            self._backlog.give_back(returned)
            self.written_seq = min(self.written_seq, returned[0].first_seq - 1)

    def _sync(self) -> None:
        while not self._ended.is_set():
            self._dirty.wait()
            self.hurry.wait(self._settings.sync_ms / 1000)
            self._dirty.clear()
            for segment in tuple(self._live):
                self._settle(segment)
            if time.monotonic() >= self._reserve_at_s and self.failing_since_s is None:
                self._reserve_at_s = time.monotonic() + RESERVE_S
                self.reserve.take()
        for segment in tuple(self._live):
            if not segment.busy:  # What the disk has not let go of must not be closed under the other thread.
                with contextlib.suppress(OSError):
                    self._filesystem.close(segment.descriptor)

    def _settle(self, segment: OpenSegment) -> None:
        """Force to the medium what is in a segment, and close it if it is done with."""
        with self._backlog.lock:
            count, size = segment.whole, segment.size
        if count:
            try:
                self._filesystem.fdatasync(segment.descriptor)
                if not segment.synced_size:
                    self._filesystem.fsync_directory(self._directory)
            except OSError as error:
                self._give_up(segment, error)
            else:
                self._note_synced(segment, count, size)
        with self._backlog.lock:
            broken = segment.broken
            is_done = segment.sealed and not segment.chunks
            if broken:
                is_done = not segment.busy and self.written_seq >= segment.moved_seq
            if is_done:
                self._live.remove(segment)
        if is_done:
            self._close(segment)

    def _note_synced(self, segment: OpenSegment, count: int, size: int) -> None:
        with self._backlog.lock:
            if segment.broken:
                return
            for _ in range(count):
                chunk = segment.chunks.popleft()
                self._backlog.held_bytes -= chunk.size
                self.synced_seq = chunk.last_seq
            segment.whole -= count
            segment.synced_size = size
            self.syncs += 1
            self._in_a_row = 0
            self.failing_since_s = None
            self.settled.notify_all()

    def _close(self, segment: OpenSegment) -> None:
        """Close a segment; one that was given up ends where it is known to be good, or goes if nothing of it is."""
        filesystem = self._filesystem
        with contextlib.suppress(OSError):  # All of it is durable, here or in the next one.
            if segment.broken:
                filesystem.truncate(segment.descriptor, segment.synced_size)
        with contextlib.suppress(OSError):
            filesystem.close(segment.descriptor)
        if segment.synced_size:
            with self._backlog.lock:
                self.closed.append((segment.file, segment.last_seq))
        else:
            with contextlib.suppress(OSError):
                filesystem.unlink(segment.file.path)
