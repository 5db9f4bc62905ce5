"""Making directories so that a power cut does not take them away again."""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from harvest.storage.filesystem import Filesystem

_making = threading.Lock()
#: Made by this process, but their own name is not known to be durable yet.
_unsynced: set[Path] = set()


def make_directories(directory: Path, filesystem: Filesystem) -> None:
    """Make a directory and its missing parents, each one's name durable before anything is put into it. Threads may share it.

    Raises:
        OSError: some of them may be there; call again.
    """
    with _making:
        missing = []
        while directory in _unsynced or not filesystem.is_directory(directory):
            missing.append(directory)
            if directory == directory.parent:
                break
            directory = directory.parent
        for one in reversed(missing):
            with contextlib.suppress(FileExistsError):  # An attempt before this one got no further.
                filesystem.mkdir(one)
            _unsynced.add(one)
            filesystem.fsync_directory(one.parent)
            _unsynced.discard(one)
