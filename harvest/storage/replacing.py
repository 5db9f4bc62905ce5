"""Files that are made anew: the new one takes the place of the old one, if there is one, at one stroke, or not at all."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from harvest.storage.filesystem import Filesystem, write_all
from harvest.storage.layout import HIDDEN_PREFIX, TEMPORARY_SUFFIX

if TYPE_CHECKING:
    from pathlib import Path


def replace_file(path: Path, data: bytes | memoryview, *, filesystem: Filesystem | None = None) -> None:
    """Write ``data`` to ``path``, durably; whoever reads meanwhile sees the old file or the new one. It blocks on the disk.

    Its directory exists, and nobody else writes that file.

    Raises:
        OSError: the file is as it was, or as it is to be, and then its name may not be durable; call again.
    """
    filesystem = filesystem or Filesystem()
    temporary = path.with_name(f"{HIDDEN_PREFIX}{path.name}{TEMPORARY_SUFFIX}")
    with contextlib.suppress(FileNotFoundError):  # Of a process that died.
        filesystem.unlink(temporary)
    descriptor = filesystem.create(temporary)
    try:
        try:
            write_all(filesystem, descriptor, data)
            filesystem.fsync(descriptor)
        finally:
            filesystem.close(descriptor)
        filesystem.replace(temporary, path)
    except OSError:
        with contextlib.suppress(OSError):  # What cannot be removed is hidden; the error is what matters.
            filesystem.unlink(temporary)
        raise
    filesystem.fsync_directory(path.parent)
