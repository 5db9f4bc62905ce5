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

    What a crash has torn at its end stays a line of its own. Where they stand at its end already, they are only forced to the medium:
    an attempt that failed may have written them.

    Raises:
        OSError: the file is as it was, or could not be cut off where it ended; append again.
    """
    size = os.lseek(descriptor, 0, os.SEEK_END)
    if not size:
        # Whoever made it may have failed to do so, or died.
        filesystem.fsync_directory(path.parent)
    elif _end(descriptor, size, len(lines)) == lines:
        filesystem.fsync(descriptor)
        return
    elif _end(descriptor, size, 1) != b"\n":
        lines = b"\n" + lines
    try:
        write_all(filesystem, descriptor, lines)
        filesystem.fsync(descriptor)
    except OSError:
        # A line of which nobody knows whether it is there, or how much of it, would be in the way of the next try.
        with contextlib.suppress(OSError):
            filesystem.truncate(descriptor, size)
        raise


def _end(descriptor: int, size: int, count: int) -> bytes:
    os.lseek(descriptor, max(size - count, 0), os.SEEK_SET)
    return os.read(descriptor, count)
