"""What was appended and is not durable yet: the one thing that the receiving loop and the journal's threads share."""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import TYPE_CHECKING

import attrs

from harvest.storage.journal.entries import LOST, encode_lost, frame

if TYPE_CHECKING:
    from collections.abc import Iterable

#: Entries are gathered in chunks of about so much at the most: what is copied and written at once.
CHUNK_BYTES = 2**20


@attrs.define(eq=False)
class Chunk:
    """Entries that are written at one stroke. They are gathered in ``pieces``, and joined in ``data`` to be written."""

    first_seq: int
    last_seq: int
    size: int = 0
    begun_s: float = attrs.field(factory=time.monotonic)
    pieces: list[bytes] = attrs.field(factory=list)
    data: bytes = b""


@attrs.define
class _Hole:
    first_seq: int
    last_seq: int
    count: int


class Backlog:
    """Chunks in the order of their entries, up to ``limit_bytes``; beyond that what comes is let go, and a hole recorded.

    ``lock`` guards all of it; nobody does I/O while holding it. ``wake`` is set while there may be something to write.
    """

    def __init__(self, limit_bytes: int) -> None:
        self.lock = threading.Lock()
        self.wake = threading.Event()
        #: Bytes that wait, and bytes that are written but not known to be durable.
        self.held_bytes = 0
        self.appended_bytes = 0
        self.last_seq = 0
        self.lost_entries = 0
        self._limit_bytes = limit_bytes
        self._waiting: deque[Chunk] = deque()
        self._open: Chunk | None = None
        self._hole: _Hole | None = None

    def append(self, kind: int, seq: int, body: bytes) -> bool:
        """Take one entry, in memory alone; returns False where too much waits already. It never waits for the disk."""
        lead, size = frame(kind, seq, body)
        with self.lock:
            if self.held_bytes >= self._limit_bytes:
                self._let_go(seq)
                return False
            if self._hole is not None:
                self._record_hole(self._hole)
            self._add(seq, lead, body, size)
        if not self.wake.is_set():
            self.wake.set()
        return True

    def record_hole(self) -> None:
        """Record what was let go up to now, if anything was, though nothing follows it."""
        with self.lock:
            if self._hole is not None:
                self._record_hole(self._hole)
        self.wake.set()

    def first(self) -> Chunk | None:
        """Return the oldest chunk that waits, joined, which grows no more; None if none does."""
        with self.lock:
            if not self._waiting:
                return None
            chunk = self._waiting[0]
            if chunk is self._open:
                self._open = None
        if chunk.pieces:
            chunk.data = b"".join(chunk.pieces)
            chunk.pieces.clear()
        return chunk

    def take(self, chunk: Chunk) -> bool:
        """Take the oldest chunk out; returns False if that is another one by now. The caller holds ``lock``."""
        if self._waiting[0] is not chunk:
            return False
        self._waiting.popleft()
        return True

    def give_back(self, chunks: Iterable[Chunk]) -> None:
        """Let chunks wait again, before all others. The caller holds ``lock``."""
        self._waiting.extendleft(reversed(list(chunks)))

    def oldest_waiting(self) -> Chunk | None:
        """Return the oldest chunk that waits. The caller holds ``lock``."""
        return self._waiting[0] if self._waiting else None

    def _add(self, seq: int, lead: bytes, body: bytes, size: int) -> None:
        chunk = self._open
        if chunk is None or chunk.size >= CHUNK_BYTES:
            chunk = self._open = Chunk(seq, seq)
            self._waiting.append(chunk)
        chunk.pieces += (lead, body)
        chunk.size += size
        chunk.last_seq = self.last_seq = seq
        self.held_bytes += size
        self.appended_bytes += size

    def _let_go(self, seq: int) -> None:
        self.lost_entries += 1
        if self._hole is None:
            self._hole = _Hole(seq, seq, 0)
        self._hole.last_seq = seq
        self._hole.count += 1

    def _record_hole(self, hole: _Hole) -> None:
        self._hole = None
        body = encode_lost(hole.last_seq, hole.count)
        lead, size = frame(LOST, hole.first_seq, body)
        self._add(hole.first_seq, lead, body, size)
