"""The journal of one run, as its caller sees it: append, and know how far it is on the disk."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Any

import attrs
import msgspec

from harvest.storage.filesystem import Filesystem
from harvest.storage.journal.backlog import Backlog
from harvest.storage.journal.commit import Committer
from harvest.storage.journal.entries import HEADER, frame
from harvest.storage.journal.raw import keep_raw
from harvest.storage.journal.reserve import Reserve
from harvest.storage.journal.segments import JOURNAL, SegmentHeader, list_segments, remove_segments

if TYPE_CHECKING:
    from pathlib import Path

    from harvest.settings import JournalSettings
    from harvest.storage.journal.segments import SegmentFile

#: What the threads may take to end when there is nothing left to write.
END_S = 2.0


@attrs.frozen
class JournalStats:
    """How the journal stands. ``failing_s`` is None while the disk takes it; ``why`` is the latest refusal's cause.

    ``lag_s`` is the age of the oldest entry that is not durable, ``held_bytes`` all that are not, ``lost_entries`` those
    that were let go for want of memory.
    """

    appended_bytes: int
    held_bytes: int
    written_seq: int
    synced_seq: int
    segments: int
    syncs: int
    lag_s: float
    lost_entries: int
    failures: int
    failing_s: float | None
    why: str
    has_reserve: bool


class Journal:
    """Appends entries to ``<root>/_journal/<venue>/``, in threads of its own. One thread may append.

    ``facts`` are the settings that decide rows: each segment's first entry holds them. Nothing is created before the first
    entry is appended. ``filesystem`` makes the calls to the operating system.
    """

    def __init__(
        self,
        root: Path,
        *,
        venue: str,
        run: str,
        facts: dict[str, Any],
        settings: JournalSettings,
        filesystem: Filesystem | None = None,
    ) -> None:
        self.directory = root / JOURNAL / venue
        self.sync_s = settings.sync_ms / 1000
        self._root, self._venue, self._run, self._facts = root, venue, run, facts
        self._filesystem = filesystem or Filesystem()
        self._keeps_raw = settings.keep_raw
        self._backlog = Backlog(settings.buffer_bytes)
        self._committer = Committer(
            self._backlog,
            self.directory,
            run,
            header=self._header,
            settings=settings,
            filesystem=self._filesystem,
            reserve=Reserve(root / JOURNAL / "reserve", settings.reserve_bytes, self._filesystem),
        )
        #: Take one entry: kind (from ``FIRST_KIND`` on), ``seq`` (greater than the one before), body. It never waits;
        #: False says that too much waits already: the entry is let go, and the next one is preceded by a ``LOST`` entry.
        self.append = self._backlog.append

    def start(self) -> None:
        """Start the threads that bring what is appended to the disk."""
        self._committer.start()

    def check(self) -> None:
        """Raise the bug that has ended one of the threads, if one has."""
        if self._committer.bug is not None:
            raise self._committer.bug

    @property
    def stats(self) -> JournalStats:
        """How the journal stands at this moment."""
        backlog, committer = self._backlog, self._committer
        oldest, now = committer.oldest(), time.monotonic()
        failing_since_s = committer.failing_since_s
        return JournalStats(
            appended_bytes=backlog.appended_bytes,
            held_bytes=backlog.held_bytes,
            written_seq=committer.written_seq,
            synced_seq=committer.synced_seq,
            segments=committer.segments,
            syncs=committer.syncs,
            lag_s=0.0 if oldest is None else now - oldest.begun_s,
            lost_entries=backlog.lost_entries,
            failures=committer.failures,
            failing_s=None if failing_since_s is None else now - failing_since_s,
            why=committer.why,
            has_reserve=committer.reserve.held,
        )

    @property
    def held_bytes(self) -> int:
        """The memory of what is not on the disk yet."""
        return self._backlog.held_bytes

    def hurry(self) -> None:
        """Let nothing wait for more to come any more: the end is near, and files wait for their records."""
        self._committer.hurry.set()
        self._backlog.wake.set()

    def flush(self, timeout_s: float) -> bool:
        """Wait until everything appended so far is durable; returns False if that took too long."""
        committer = self._committer
        committer.hurry.set()
        self._backlog.wake.set()
        try:
            with committer.settled:
                target = self._backlog.last_seq
                return committer.settled.wait_for(lambda: committer.synced_seq >= target, timeout_s)
        finally:
            committer.hurry.clear()

    def wait_durable(self, seq: int, timeout_s: float) -> bool:
        """Wait until what was appended up to ``seq`` is durable; returns False if that took too long, or the disk refuses it."""
        committer = self._committer
        with committer.settled:
            target = min(seq, self._backlog.last_seq)
            committer.settled.wait_for(
                lambda: committer.synced_seq >= target or committer.failing_since_s is not None, timeout_s
            )
            return committer.synced_seq >= target

    def close(self, timeout_s: float) -> tuple[int, int] | None:
        """Bring everything to the disk, and end; returns the first and last ``seq`` of what is not durable, None if all is.

        What a loss for want of memory has left out is not among them: the last entry tells of it.
        """
        self._backlog.record_hole()
        self.flush(timeout_s)
        oldest = self._committer.oldest()
        self._committer.end(END_S)
        return None if oldest is None else (oldest.first_seq, self._backlog.last_seq)

    def segments(self) -> list[SegmentFile]:
        """List this run's segments that are there, oldest first."""
        return [segment for segment in list_segments(self._root, self._venue) if segment.run == self._run]

    def release(self, before_seq: int) -> list[SegmentFile]:
        """Remove the segments that end before ``before_seq``, but never the newest; returns them. It blocks on the disk.

        Where the settings say so they are kept as raw capture, compressed.

        Raises:
            OSError: some are there still; call again.
        """
        closed = self._committer.closed
        with self._backlog.lock:
            done = [(segment, last_seq) for segment, last_seq in closed if last_seq < before_seq]
        released = [segment for segment, _ in done]
        self._let_go(released)
        with self._backlog.lock:
            for one in done:
                closed.remove(one)
        return released

    def discard(self) -> None:
        """Remove all of this run, for its rows are in files; call it after ``close``. It blocks on the disk.

        Raises:
            OSError: some of it is there still.
        """
        self._let_go(self.segments())
        self._committer.reserve.release()
        with contextlib.suppress(
            OSError
        ):  # Other runs have left something there, or nothing was ever appended.
            self._filesystem.rmdir(self.directory)
            self._filesystem.rmdir(self.directory.parent)

    def _let_go(self, segments: list[SegmentFile]) -> None:
        if self._keeps_raw:
            keep_raw(self._root, segments, filesystem=self._filesystem)
        remove_segments(segments, filesystem=self._filesystem)

    def _header(self, number: int, first_seq: int, reached_seq: int) -> bytes:
        header = SegmentHeader(self._run, self._venue, number, first_seq, reached_seq, self._facts)
        body = msgspec.json.encode(header)
        return frame(HEADER, first_seq, body)[0] + body
