"""Publishing files: what becomes visible is whole and durable, and never takes the place of another file."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from harvest.errors import FileExistsInStoreError, StorageError
from harvest.storage.directories import make_directories
from harvest.storage.filesystem import Filesystem, write_all
from harvest.storage.flock import hold_directory
from harvest.storage.layout import (
    CLAIM_SUFFIX,
    HIDDEN_PREFIX,
    PRIVATE_PREFIX,
    TEMPORARY_SUFFIX,
    UNREADABLE_SUFFIX,
    date_directory,
    decode_symbol,
    encode_symbol,
    file_name,
    new_run_id,
    run_of_leftover,
)

if TYPE_CHECKING:
    from collections.abc import Container, Iterator

    from harvest.storage.tables import Sealed

__all__ = ["DataDirectory", "UnreadableFileError", "decode_symbol", "encode_symbol", "new_run_id"]

#: How a link fails where the file system has none: FAT, exFAT, some network and Android mounts (EINVAL: Windows).
_NO_LINKS = frozenset(
    {errno.EPERM, errno.EACCES, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EINVAL}
)


class UnreadableFileError(StorageError):
    """A file that was published, and does not read back as it was written."""

    def __init__(self, path: Path, why: str) -> None:
        self.path = path
        super().__init__(f"{path} does not read back as it was written ({why}): look after the disk")


class DataDirectory:
    """The directory that holds all rows; the only way by which files get into it. Threads may share it.

    ``filesystem`` makes the calls to the operating system.
    """

    def __init__(self, root: Path, *, filesystem: Filesystem | None = None) -> None:
        self.root = root
        self._filesystem = filesystem or Filesystem()
        #: Files whose claim (see ``_rename_into_place``), if there is one, is ours.
        self._claimed: set[Path] = set()

    @property
    def filesystem(self) -> Filesystem:
        """What makes the calls to the operating system."""
        return self._filesystem

    def path_of(self, sealed: Sealed, *, venue: str, run: str) -> Path:
        """Return the path at which sealed rows are to be published.

        Raises:
            UnstorableSymbolError: no directory can be named after the symbol.
        """
        directory = date_directory(sealed.kind.name, venue, sealed.symbol, sealed.day)
        return self.root / directory / file_name(run, sealed.first_seq, sealed.last_seq)

    def publish(self, path: Path, data: bytes | memoryview | pa.Buffer) -> bool:
        """Make ``data`` visible at ``path``, at once and durably; returns False if it was there already.

        It is written beside as ``.name.tmp``, forced to the medium, and then linked under its name, which the system
        refuses if there is one. Where the file system knows no links, a claim that only one writer can hold stands
        for that. Called again after any error it does what is left to do: a file that is there with the very same
        content is not written twice. It blocks on the disk, so call it in a thread.

        Raises:
            FileExistsInStoreError: another file has that name; it is left as it is.
            OSError: nothing is visible, or all of it but its name may not be durable; call again.
        """
        content = memoryview(data).cast("B")
        filesystem = self._filesystem
        make_directories(path.parent, filesystem)
        with self._held(path.parent):
            already = filesystem.exists(path)
            if not already:
                temporary, descriptor = self._create_temporary(path)
                try:
                    self._fill(descriptor, content)
                    already = not self._name(temporary, path)
                finally:
                    self._discard(temporary)
        if already and not _are_same(filesystem.read(path), content):
            raise FileExistsInStoreError(str(path))
        filesystem.fsync_directory(path.parent)
        return not already

    def read_back(self, path: Path, data: bytes | memoryview | pa.Buffer) -> None:
        """Hold what was published at ``path`` against ``data``; one that differs is hidden from readers, and its name is free.

        It becomes ``.name.<hex>.unreadable``, to be looked at; it is never removed.

        Raises:
            UnreadableFileError: it differs, or cannot be read; publish it again.
            OSError: it could not be hidden.
        """
        filesystem = self._filesystem
        try:
            why = None if _are_same(filesystem.read(path), data) else "its content differs"
        except OSError as error:
            why = error.strerror or str(error)
        if why is not None:
            filesystem.rename(path, _hidden(path, f".{secrets.token_hex(4)}{UNREADABLE_SUFFIX}"))
            filesystem.fsync_directory(path.parent)
            raise UnreadableFileError(path, why)

    def remove_stale_temporaries(self, *, living_runs: Container[str] = ()) -> list[Path]:
        """Remove what dead runs left half-written, and return it; nothing else is touched.

        ``living_runs`` are those that may still be writing: this one's, before all.
        """
        removed = []
        for directory, names, files in os.walk(self.root):
            names[:] = [name for name in names if not name.startswith((PRIVATE_PREFIX, HIDDEN_PREFIX))]
            for name in files:
                run = run_of_leftover(name)
                if run is not None and run not in living_runs:
                    path = Path(directory, name)
                    with contextlib.suppress(OSError):  # It stays hidden, and the next start tries again.
                        self._filesystem.unlink(path)
                        removed.append(path)
        return removed

    def free_bytes(self) -> int:
        """Return the bytes that may still be written; before the root exists, those of where it will be."""
        existing = self.root.absolute()
        while not self._filesystem.is_directory(existing) and existing != existing.parent:
            existing = existing.parent
        return self._filesystem.free_bytes(existing)

    @contextlib.contextmanager
    def _held(self, directory: Path) -> Iterator[None]:
        """Keep compaction from exchanging the directory meanwhile, which would take the file along."""
        with contextlib.ExitStack() as stack:
            with contextlib.suppress(OSError):  # Without locks nothing is exchanged either.
                stack.enter_context(hold_directory(directory, exclusive=False))
            yield

    def _create_temporary(self, path: Path) -> tuple[Path, int]:
        """Create the file to write into; returns its path and descriptor."""
        temporary = _hidden(path, TEMPORARY_SUFFIX)
        try:
            return temporary, self._filesystem.create(temporary)
        except FileExistsError:
            # Of a dead run, or of a living one that does the same: never written on, and not ours to remove.
            temporary = _hidden(path, f".{secrets.token_hex(4)}{TEMPORARY_SUFFIX}")
            return temporary, self._filesystem.create(temporary)

    def _fill(self, descriptor: int, content: memoryview) -> None:
        filesystem = self._filesystem
        try:
            write_all(filesystem, descriptor, content)
            filesystem.fsync(descriptor)
        finally:
            filesystem.close(descriptor)

    def _name(self, temporary: Path, path: Path) -> bool:
        """Give the file its name; returns False if the name is taken."""
        try:
            self._filesystem.link(temporary, path)
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            return self._rename_into_place(temporary, path)
        return True

    def _rename_into_place(self, temporary: Path, path: Path) -> bool:
        """Rename without overwriting, where nothing does that at one stroke; returns False if the name is taken.

        Whoever creates ``.name.claim`` may look whether the name is free, and rename.
        """
        filesystem = self._filesystem
        claim = _hidden(path, CLAIM_SUFFIX)
        if sys.platform != "win32":  # There, rename refuses by itself.
            try:
                filesystem.close(filesystem.create(claim))
            except FileExistsError:
                if path not in self._claimed:
                    raise FileExistsInStoreError(str(claim)) from None
            except OSError:
                # It may have been made all the same, and then the next attempt must know it for ours.
                self._claimed.add(path)
                raise
            self._claimed.add(path)
        taken = filesystem.exists(path)
        if not taken:
            try:
                filesystem.rename(temporary, path)
            except FileExistsError:
                taken = True
        self._discard(claim)
        self._claimed.discard(path)
        return not taken

    def _discard(self, path: Path) -> None:
        # What cannot be removed is hidden from readers, and goes at the next start.
        with contextlib.suppress(OSError):
            self._filesystem.unlink(path)


def _hidden(path: Path, suffix: str) -> Path:
    return path.with_name(f"{HIDDEN_PREFIX}{path.name}{suffix}")


def _are_same(one: bytes, other: bytes | memoryview | pa.Buffer) -> bool:
    """Compare without holding the interpreter up, as comparing memoryviews does for milliseconds a megabyte."""
    same: bool = pa.py_buffer(one).equals(pa.py_buffer(other))
    return same
