"""Locks on open files, as the system keeps them: they end with the process that holds them, however that ends."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

#: Windows locks bytes, which nobody can read then: one far behind the content.
_FAR = 1 << 30


def try_lock(descriptor: int) -> bool:
    """Lock a file for this process alone, if nobody else holds it; returns whether.

    Raises:
        OSError: the file system knows no locks.
    """
    try:
        if sys.platform == "win32":
            os.lseek(descriptor, _FAR, os.SEEK_SET)
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    return True


def wait_for_lock(descriptor: int, *, exclusive: bool = True) -> None:
    """Lock a file, waiting for whoever holds it; not on Windows, where nothing that needs this is done.

    Raises:
        OSError: the file system knows no locks.
    """
    if sys.platform != "win32":
        fcntl.flock(descriptor, fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH)


@contextlib.contextmanager
def hold_directory(path: Path, *, exclusive: bool) -> Iterator[None]:
    """Keep a directory from being exchanged, together with others that do; or alone, so that nobody adds to it.

    It is the directory that has the name when the waiting is over. On Windows, where nothing is exchanged, it does nothing.

    Raises:
        OSError: the directory cannot be opened, or the file system knows no locks.
    """
    if sys.platform == "win32":
        yield
        return
    while True:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            wait_for_lock(descriptor, exclusive=exclusive)
            if os.path.samestat(os.fstat(descriptor), os.stat(path)):
                yield
                return
        finally:
            os.close(descriptor)
