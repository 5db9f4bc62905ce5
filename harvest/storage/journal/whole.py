"""Files beside the journal that are made once, and are whole and durable under their names."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from harvest.storage.filesystem import write_all

if TYPE_CHECKING:
    from pathlib import Path

    from harvest.storage.filesystem import Filesystem


def put_whole(path: Path, content: bytes | memoryview, filesystem: Filesystem) -> None:
    """Make ``content`` visible at ``path``, at once and durably; its directory exists.

    Raises:
        OSError: it is not there, or its name may not be durable; call again.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    with contextlib.suppress(FileNotFoundError):  # Of a process that died.
        filesystem.unlink(temporary)
    descriptor = filesystem.create(temporary)
    try:
        write_all(filesystem, descriptor, content)
        filesystem.fsync(descriptor)
    finally:
        filesystem.close(descriptor)
    filesystem.rename(temporary, path)
    filesystem.fsync_directory(path.parent)
