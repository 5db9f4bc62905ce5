"""A journal to append to, and disks that fail on purpose."""

from __future__ import annotations

import errno
import threading
import time
from typing import TYPE_CHECKING

import attrs

from harvest.settings import JournalSettings
from harvest.storage.filesystem import Filesystem
from harvest.storage.journal import Journal, list_segments, read_run
from harvest.storage.journal.entries import FIRST_KIND

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from harvest.storage.journal import Entry

RUN = "20261122T000000Z00ff"
VENUE = "binance-usdm"
WAIT_S = 30.0


class FailingDisk(Filesystem):
    """Counts the calls; those named in ``failing`` raise ``code``, so many times. ``blocked`` holds writes up."""

    def __init__(self, code: int = errno.EIO) -> None:
        self.code = code
        self.calls: list[tuple[str, object]] = []
        self.failing: dict[str, float] = {}
        self.room = float("inf")
        self.blocked = threading.Event()
        self.blocked.set()

    def fail(self, name: str, times: float = 1) -> None:
        self.failing[name] = times

    def count(self, name: str) -> int:
        return sum(called == name for called, _ in self.calls)

    def _call(self, name: str, argument: object) -> None:
        self.calls.append((name, argument))
        if self.failing.get(name, 0) > 0:
            self.failing[name] -= 1
            raise OSError(self.code, "injected")

    def create(self, path: Path) -> int:
        self._call("create", path)
        return super().create(path)

    def write(self, descriptor: int, data: memoryview) -> int:
        assert self.blocked.wait(WAIT_S)
        self._call("write", descriptor)
        if not self.room:
            raise OSError(errno.ENOSPC, "No space left on device")
        written = super().write(descriptor, data[: int(min(len(data), self.room))])
        self.room -= written
        return written

    def fdatasync(self, descriptor: int) -> None:
        self._call("fdatasync", descriptor)
        super().fdatasync(descriptor)

    def fsync_directory(self, path: Path) -> None:
        self._call("fsync_directory", path)
        super().fsync_directory(path)

    def unlink(self, path: Path) -> None:
        super().unlink(path)
        if path.name == "reserve":
            self.room += 10_000


def journal_in(root: Path, filesystem: Filesystem | None = None, **settings: float) -> Journal:
    """Return a started journal; the reserve is off unless asked for."""
    changed = attrs.evolve(JournalSettings(), **{"reserve_bytes": 0, **settings})
    journal = Journal(
        root, venue=VENUE, run=RUN, facts={"levels": 5}, settings=changed, filesystem=filesystem
    )
    journal.start()
    return journal


def body_of(seq: int) -> bytes:
    return f"entry {seq} ".encode() * (1 + seq % 7)


def append(journal: Journal, *seqs: int) -> list[bool]:
    return [journal.append(FIRST_KIND + seq % 5, seq, body_of(seq)) for seq in seqs]


def read(root: Path) -> list[Entry]:
    """Read the run, and hold every entry to what was appended."""
    entries = list(read_run(root, VENUE, RUN))
    for entry in entries:
        if entry.kind >= FIRST_KIND:
            assert (entry.kind, entry.body) == (FIRST_KIND + entry.seq % 5, body_of(entry.seq))
    return entries


def seqs_in(root: Path) -> list[int]:
    return [entry.seq for entry in read(root)]


def segment_paths(root: Path) -> list[Path]:
    return [segment.path for segment in list_segments(root)]


def until(is_so: Callable[[], bool]) -> None:
    """Wait for another thread."""
    deadline = time.monotonic() + WAIT_S
    while not is_so():
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.002)
