"""Lines that are appended to a file: all of them, durably, or none."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from harvest.storage.filesystem import write_all

if TYPE_CHECKING:
    from pathlib import Path

    from harvest.storage.filesystem import Filesystem


def append_lines(path: Path, descriptor: int, lines: bytes, filesystem: Filesystem) -> None:
    """Append whole lines to the file ``path``, open as ``descriptor``, and force them to the medium, its name too.

    What a crash has torn at its end stays a line of its own. But where an attempt before this one has written some or all of these
    very lines, only what is missing is written.

    Raises:
        OSError: the file is as it was, or could not be cut off where it ended; append again.
    """
    size = os.lseek(descriptor, 0, os.SEEK_END)
    if not size:
        # Whoever made it may have failed to do so, or died.
        filesystem.fsync_directory(path.parent)
    else:
        os.lseek(descriptor, max(size - len(lines) - 1, 0), os.SEEK_SET)
        end = os.read(descriptor, len(lines) + 1)
        if begun := _begun(end, lines, is_all=len(end) == size):
            lines = lines[begun:]
        elif not end.endswith(b"\n"):
            lines = b"\n" + lines
    try:
        write_all(filesystem, descriptor, lines)
        filesystem.fsync(descriptor)
    except OSError:
        # A line of which nobody knows whether it is there, or how much of it, would be in the way of the next try.
        with contextlib.suppress(OSError):
            filesystem.truncate(descriptor, size)
        raise


def _begun(end: bytes, lines: bytes, *, is_all: bool) -> int:
    """Return how many bytes of ``lines`` stand at the end of a file already; ``is_all`` says that ``end`` is the whole file."""
    at = 0 if is_all else end.find(b"\n") + 1
    while at or is_all:
        if lines.startswith(end[at:]):
            return len(end) - at
        at = end.find(b"\n", at) + 1
        is_all = False
    return 0
