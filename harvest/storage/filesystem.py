"""The calls to the operating system that writing takes, one method each, so that tests can make every one of them fail."""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import stat
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

if sys.platform == "darwin":
    import fcntl

#: Windows would turn line ends, were it not told that this is no text.
_BINARY = getattr(os, "O_BINARY", 0)
_CLOSE_ON_EXEC = getattr(os, "O_CLOEXEC", 0)


#: Of renameat2: paths are relative to the current directory; the two change places.
_AT_FDCWD = -100
_RENAME_EXCHANGE = 2


class Filesystem:
    """The real one. Every method raises OSError as the operating system does, and has no other effect then."""

    def create(self, path: Path) -> int:
        """Create a file that must not exist, and return its descriptor, open for writing."""
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _BINARY | _CLOSE_ON_EXEC, 0o666)

    def open(self, path: Path, flags: int) -> int:
        """Open a file to read it and to append to it, and return its descriptor; ``flags`` may say that it is made."""
        return os.open(path, flags | os.O_RDWR | os.O_APPEND | _BINARY | _CLOSE_ON_EXEC, 0o666)

    def write(self, descriptor: int, data: memoryview) -> int:
        """Write some of ``data``, and return how many bytes."""
        return os.write(descriptor, data)

    def fsync(self, descriptor: int) -> None:
        """Force the file to the medium."""
        if sys.platform == "darwin":
            # There, fsync stops at the drive's cache.
            fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
        else:
            os.fsync(descriptor)

    def fdatasync(self, descriptor: int) -> None:
        """Force the file's bytes, and what it takes to read them, to the medium."""
        if sys.platform == "linux":
            os.fdatasync(descriptor)
        else:
            self.fsync(descriptor)

    def allocate(self, descriptor: int, size: int) -> None:
        """Take ``size`` bytes of the medium for the file, so that they are there whatever others write."""
        if sys.platform == "linux":
            os.posix_fallocate(descriptor, 0, size)
        else:
            left = memoryview(bytes(size))
            while len(left):
                left = left[os.write(descriptor, left) :]

    def truncate(self, descriptor: int, size: int) -> None:
        """Cut the file off after ``size`` bytes."""
        os.ftruncate(descriptor, size)

    def close(self, descriptor: int) -> None:
        """Close the file."""
        os.close(descriptor)

    def read(self, path: Path) -> bytes:
        """Read a whole file."""
        return path.read_bytes()

    def link(self, source: Path, target: Path) -> None:
        """Give a file a second name, which must not exist."""
        os.link(source, target)

    def rename(self, source: Path, target: Path) -> None:
        """Give a file another name."""
        os.rename(source, target)

    def replace(self, source: Path, target: Path) -> None:
        """Give a file another name, at one stroke in the place of the file that had it, if there is one."""
        os.replace(source, target)

    def exchange(self, one: Path, other: Path) -> None:
        """Let two names change places at one stroke; Linux alone can, and not on every file system."""
        if not sys.platform.startswith("linux"):
            raise OSError(errno.ENOTSUP, "this system cannot exchange two directories")
        libc = ctypes.CDLL(None, use_errno=True)
        if not hasattr(libc, "renameat2"):
            raise OSError(errno.ENOTSUP, "this C library cannot exchange two directories")
        paths = (_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other))
        if libc.renameat2(*paths, _RENAME_EXCHANGE):
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code), str(one))

    def unlink(self, path: Path) -> None:
        """Take one name from a file."""
        os.unlink(path)

    def exists(self, path: Path) -> bool:
        """Tell whether the name is taken, by whatever."""
        try:
            os.lstat(path)
        except FileNotFoundError:
            return False
        return True

    def is_directory(self, path: Path) -> bool:
        """Tell whether there is a directory of that name, or a link to one."""
        try:
            return stat.S_ISDIR(os.stat(path).st_mode)
        except FileNotFoundError:
            return False

    def mkdir(self, path: Path) -> None:
        """Make one directory, whose parent exists."""
        os.mkdir(path)

    def rmdir(self, path: Path) -> None:
        """Remove a directory, which must be empty."""
        os.rmdir(path)

    def fsync_directory(self, path: Path) -> None:
        """Force a directory's names to the medium."""
        if sys.platform == "win32":
            return  # Directories cannot be opened there; NTFS keeps its own journal of names.
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | _CLOSE_ON_EXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def sync(self, path: Path) -> None:
        """Force to the medium what anybody has written to the file system that ``path`` is on, names too."""
        if sys.platform == "linux":
            descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | _CLOSE_ON_EXEC)
            try:
                # Not sync(), which would wait for a network mount that has nothing to do with us.
                libc = ctypes.CDLL(None, use_errno=True)
                if libc.syncfs(descriptor):
                    code = ctypes.get_errno()
                    raise OSError(code, os.strerror(code), str(path))
            finally:
                os.close(descriptor)
        elif sys.platform != "win32":  # Nothing there does it; NTFS keeps its own journal of names.
            os.sync()

    def free_bytes(self, path: Path) -> int:
        """Return the bytes that may still be written under ``path``."""
        return shutil.disk_usage(path).free


def write_all(filesystem: Filesystem, descriptor: int, content: bytes | memoryview) -> None:
    """Write all of ``content``, however little the system takes at once.

    Raises:
        OSError: some of it may be written.
    """
    left = memoryview(content)
    while len(left):
        left = left[filesystem.write(descriptor, left) :]
