"""Space that is kept for the journal, and let go when the disk is full: so much can still be written then."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from harvest.storage.filesystem import Filesystem

#: It is made again only where so many times its size is free: to take the last of the disk would help nobody.
ROOM = 4


class Reserve:
    """A file of ``size`` bytes at ``path`` that holds nothing. ``held`` tells whether it is there."""

    def __init__(self, path: Path, size: int, filesystem: Filesystem) -> None:
        self.path = path
        self.held = False
        self._size = size
        self._filesystem = filesystem

    def take(self) -> None:
        """Take the space, if it is not held and there is room; without it the journal is as good, until the disk is full."""
        if self.held or not self._size:
            return
        filesystem = self._filesystem
        with contextlib.suppress(OSError):
            with contextlib.suppress(FileNotFoundError):  # Of a process that died.
                filesystem.unlink(self.path)
            if filesystem.free_bytes(self.path.parent) < ROOM * self._size:
                return
            descriptor = filesystem.create(self.path)
            try:
                filesystem.allocate(descriptor, self._size)
                self.held = True
            finally:
                filesystem.close(descriptor)
                if not self.held:
                    filesystem.unlink(self.path)

    def release(self) -> bool:
        """Let the space go, were it held by a process that died; returns False if there was none to let go."""
        self.held = False
        try:
            self._filesystem.unlink(self.path)
        except OSError:
            return False
        return True
