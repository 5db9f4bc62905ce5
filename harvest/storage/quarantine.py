"""Malformed messages are kept for inspection: counted always, their bytes as far as the bound goes."""

from __future__ import annotations

import base64
import contextlib
import json
import os
from typing import TYPE_CHECKING

from harvest.storage.appending import append_lines
from harvest.storage.directories import make_directories
from harvest.storage.filesystem import Filesystem
from harvest.storage.flock import wait_for_lock

if TYPE_CHECKING:
    from pathlib import Path

#: Size of the lines kept a run; what a broken venue sends beyond that is counted alone.
MAX_KEPT_BYTES = 16 * 2**20


class Quarantine:
    """Gathers malformed messages of one run, to be appended to ``<root>/_quarantine/<run>.jsonl``.

    One JSON object a line: ``recv_ns``, ``connection``, ``why``, and the message as ``text`` or, where it is no UTF-8, as
    ``base64``.
    """

    def __init__(self, root: Path, run: str, *, filesystem: Filesystem | None = None) -> None:
        self.path = root / "_quarantine" / f"{run}.jsonl"
        self.seen = 0
        self.kept_bytes = 0
        self._lines: list[bytes] = []
        self._filesystem = filesystem or Filesystem()

    def add(self, recv_ns: int, connection: str, why: str, raw: bytes) -> None:
        """Keep one message in memory until the next ``flush``."""
        self.seen += 1
        if self.kept_bytes + len(raw) > MAX_KEPT_BYTES:
            return
        facts: dict[str, object] = {"recv_ns": recv_ns, "connection": connection, "why": why}
        try:
            facts["text"] = raw.decode()
        except UnicodeDecodeError:
            facts["base64"] = base64.b64encode(raw).decode()
        line = json.dumps(facts, ensure_ascii=False).encode()
        # The facts count, too: a message may be empty.
        if self.kept_bytes + len(line) <= MAX_KEPT_BYTES:
            self.kept_bytes += len(line)
            self._lines.append(line)

    def leave_out_known(self) -> None:
        """Forget what was gathered and is in the file already: a recovery sees again what its run saw.

        Raises:
            OSError: the file cannot be read.
        """
        if self._lines and self.path.exists():
            known = set(self._filesystem.read(self.path).split(b"\n"))
            self._lines = [line for line in self._lines if line not in known]

    def flush(self) -> None:
        """Append what was gathered to the file, durably; it blocks on the disk, so call it in a thread.

        Raises:
            OSError: nothing was taken from memory.
        """
        if not self._lines:
            return
        count, filesystem = len(self._lines), self._filesystem
        make_directories(self.path.parent, filesystem)
        lines = b"".join(b"%b\n" % line for line in self._lines[:count])
        descriptor = filesystem.open(self.path, os.O_CREAT)
        try:
            # Processes that share a recovery may all have something to keep. Where there are no locks, better two lines torn
            # than none kept.
            with contextlib.suppress(OSError):
                wait_for_lock(descriptor)
            append_lines(self.path, descriptor, lines, filesystem)
        finally:
            filesystem.close(descriptor)
        del self._lines[:count]
