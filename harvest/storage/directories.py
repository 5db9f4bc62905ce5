"""Making directories so that a power cut does not take them away again."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from harvest.storage.filesystem import Filesystem


def make_directories(directory: Path, filesystem: Filesystem) -> None:
    """Make a directory and its missing parents, each one's name durable before anything is put into it.

    Raises:
        OSError: some of them may be there.
    """
    missing = []
    while not filesystem.is_directory(directory):
        missing.append(directory)
        directory = directory.parent
    for one in reversed(missing):
        with contextlib.suppress(FileExistsError):  # Another thread was faster.
            filesystem.mkdir(one)
        filesystem.fsync_directory(one.parent)
