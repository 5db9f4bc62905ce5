"""One writer: a data directory has a lock, and a second process is refused with the name of the first one.

The lock is the system's, on ``<root>/_lock``, and ends with the process; what the file says is for people, and of no matter when
its writer is dead.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import time
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from harvest.errors import StorageError
from harvest.storage.directories import make_directories
from harvest.storage.filesystem import Filesystem
from harvest.storage.flock import try_lock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

LOCK = "_lock"
#: Longer than what is written into it.
_MOST_BYTES = 4096


class Holder(msgspec.Struct, frozen=True):
    """Who holds a lock, as it says itself."""

    pid: int
    host: str
    command: str
    since: str
    run: str | None = None

    def __str__(self) -> str:
        """Name it for a message."""
        run = f", run {self.run}" if self.run else ""
        return f"harvest {self.command} (process {self.pid} on {self.host}{run}, since {self.since})"


class DirectoryLockedError(StorageError):
    """Another process writes into the data directory."""

    def __init__(self, root: Path, holder: Holder | None) -> None:
        self.root, self.holder = root, holder
        who = str(holder) if holder else "another process, which has not said who it is"
        super().__init__(
            f"{root} is being written by {who}: one process at a time may. End it, or use another directory."
        )


class DirectoryLock:
    """The lock of one data directory, held until ``release`` or the end of the process. No child inherits it.

    Raises:
        DirectoryLockedError: another process holds it.
        OSError: the directory cannot be made or written to.
    """

    def __init__(self, root: Path, command: str) -> None:
        self.path = root / LOCK
        #: Why the directory is not locked: some network file systems know no locks. None if it is.
        self.why_not: str | None = None
        self._said = Holder(
            os.getpid(), socket.gethostname(), command, f"{np.datetime64(time.time_ns() // 10**9, 's')}Z"
        )
        make_directories(root, Filesystem())
        # Not inherited: a child that outlives this process must not keep the directory from the next one.
        self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o666)
        try:
            if not try_lock(self._descriptor):
                raise DirectoryLockedError(root, read_holder(root))
        except OSError as error:
            self.why_not = error.strerror or str(error)
        except BaseException:
            os.close(self._descriptor)
            raise
        self._write(msgspec.json.encode(self._said))

    def name_run(self, run: str) -> None:
        """Say which run it is that holds the lock."""
        self._said = msgspec.structs.replace(self._said, run=run)
        self._write(msgspec.json.encode(self._said))

    def release(self) -> None:
        """Let another process have it. The file stays: to remove it would let two hold it at once."""
        self._write(b"")
        os.close(self._descriptor)

    def _write(self, content: bytes) -> None:
        # The lock holds whatever it says; a disk that is full is no reason not to capture.
        with contextlib.suppress(OSError):
            os.ftruncate(self._descriptor, 0)
            os.lseek(self._descriptor, 0, os.SEEK_SET)
            os.write(self._descriptor, content)


@contextlib.contextmanager
def one_writer(root: Path, command: str, *, warn: Callable[[str], None]) -> Iterator[DirectoryLock]:
    """Hold the lock of ``root``; ``warn`` gets a line where the file system knows none.

    Raises:
        DirectoryLockedError: another process holds it.
        StorageError: the directory cannot be made or written to.
    """
    try:
        lock = DirectoryLock(root, command)
    except OSError as error:
        raise StorageError(f"{root} cannot be written to: {error.strerror}") from None
    if lock.why_not is not None:
        warn(f"{root} cannot be locked ({lock.why_not}): see to it that only one process writes into it")
    try:
        yield lock
    finally:
        lock.release()


def is_held(root: Path) -> bool:
    """Tell whether the process that the lock of ``root`` names lives, as far as that can be seen from here; nothing is locked."""
    holder = read_holder(root)
    if holder is None:
        return False
    if holder.host != socket.gethostname() or sys.platform == "win32":
        return True  # Nobody can tell from here.
    try:
        os.kill(holder.pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # Somebody else's.
    return True


def read_holder(root: Path) -> Holder | None:
    """Return what the lock of ``root`` says, whether anybody holds it or not; None where it says nothing."""
    try:
        with (root / LOCK).open("rb") as file:
            return msgspec.json.decode(file.read(_MOST_BYTES), type=Holder)
    except (OSError, msgspec.DecodeError):
        return None  # Not made yet, or being written at this moment.
