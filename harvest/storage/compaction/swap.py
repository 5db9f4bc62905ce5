"""Puts what compaction has made in the place of a date directory at one stroke, and clears away what was there, or a crash left.

The new directory is made below ``_compact/``, where no reader looks, and then exchanged for the old one by the system. What lies
below ``_compact/`` goes only when the live directory has all of its rows; so it is of no matter at which moment a process dies.
"""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import attrs

from harvest.storage.compaction.pieces import NotCompactableError
from harvest.storage.directories import make_directories
from harvest.storage.flock import hold_directory
from harvest.storage.layout import parse_file_name, run_of_leftover
from harvest.storage.sources import intervals_of_file

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from harvest.storage.filesystem import Filesystem
    from harvest.storage.layout import FileName

STAGING = "_compact"
#: How an exchange fails where there is none.
_NO_EXCHANGE = frozenset({errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EPERM})


@attrs.frozen
class Place:
    """A date directory, and where its successor is made. ``relative`` is ``<kind>/venue=…/symbol=…/date=…``."""

    root: Path
    relative: PurePosixPath
    filesystem: Filesystem

    @property
    def live(self) -> Path:
        """The directory that readers see."""
        return self.root / self.relative

    @property
    def staged(self) -> Path:
        """What holds ``new`` and ``old``."""
        return self.root / STAGING / self.relative

    @property
    def new(self) -> Path:
        """The directory that is prepared; after the exchange it is the old one."""
        return self.staged / "new"

    @property
    def old(self) -> Path:
        """Where the old directory goes if the two cannot be exchanged."""
        return self.staged / "old"

    def names(self) -> list[FileName]:
        """Return the data files of the live directory, in the order of their records."""
        found = (parse_file_name(name) for name in _listed(self.live))
        return sorted((name for name in found if name), key=lambda name: (name.first_seq, name.last_seq))

    def prepare(self) -> None:
        """Make the directory to write into.

        Raises:
            NotCompactableError: the live one lies on another disk.
            OSError: it could not be made.
        """
        # Durably: by what is staged the next pass knows that the ledger may not be up to the exchange.
        make_directories(self.new, self.filesystem)
        if self.live.is_symlink() or self.live.stat().st_dev != self.new.stat().st_dev:
            raise NotCompactableError(self.live, "it lies on another disk than the root")

    def exchange(self, replaced: Collection[str], *, force: bool) -> None:
        """Put the new directory in the place of the old one; files of the old one that are not ``replaced`` come along.

        Nobody publishes into the directory meanwhile. ``force`` goes on where the system cannot exchange the two: then the
        directory is not there for a moment.

        It is not durable before ``settle``.

        Raises:
            NotCompactableError: it cannot be done here; nothing has changed.
            OSError: nothing has changed, or all of it.
        """
        filesystem = self.filesystem
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(hold_directory(self.live, exclusive=True))
            except OSError as error:
                raise NotCompactableError(self.live, f"it cannot be locked: {error.strerror}") from None
            there = _listed(self.live)
            if missing := set(replaced) - set(there):
                raise NotCompactableError(self.live, f"{min(missing)} was removed meanwhile")
            for name in there:
                if name not in replaced and run_of_leftover(name) is None:
                    self._bring(name)
            filesystem.fsync_directory(self.new)
            try:
                filesystem.exchange(self.live, self.new)
            except OSError as error:
                if error.errno not in _NO_EXCHANGE:
                    raise
                if not force:
                    why = (
                        "this file system cannot exchange directories (harvest compact --force does without)"
                    )
                    raise NotCompactableError(self.live, why) from None
                filesystem.rename(self.live, self.old)
                filesystem.rename(self.new, self.live)

    def put_back(self) -> None:
        """Give the live directory its name again, if a crash came while it had none (where there is no exchange).

        Raises:
            OSError: it is still away; call again.
        """
        filesystem = self.filesystem
        if filesystem.is_directory(self.live) or not filesystem.is_directory(self.old):
            return
        # The new one was whole before the old one was moved away.
        filesystem.rename(self.new if filesystem.is_directory(self.new) else self.old, self.live)
        filesystem.fsync_directory(self.live.parent)

    def settle(self) -> None:
        """Force to the medium which directory has which name, whoever has exchanged them: before anything is built on it.

        Raises:
            OSError: nobody knows what a loss of power would leave; call again.
        """
        self.filesystem.fsync_directory(self.live.parent)
        self.filesystem.fsync_directory(self.staged)

    def clear(self) -> None:
        """Remove what is staged, as far as the live directory has its rows; what it has not is put there.

        Raises:
            OSError: something is left; call again.
            pa.ArrowException: a compacted file of the live directory cannot be read, so nothing is removed.
            ValueError: the same.
        """
        filesystem = self.filesystem
        for directory in (self.new, self.old):
            if not filesystem.is_directory(directory):
                continue
            there = _listed(directory)
            if there:
                self._clear(directory, there)
            filesystem.rmdir(directory)
        for directory in (self.staged, *self.staged.parents):
            if directory == self.root:
                break
            try:
                filesystem.rmdir(directory)
            except OSError:
                break  # Not empty, or not there.

    def _clear(self, directory: Path, there: list[str]) -> None:
        filesystem = self.filesystem
        if not filesystem.is_directory(self.live):
            # Somebody removed it meanwhile. What we hold of it is not ours to drop.
            filesystem.mkdir(self.live)
            filesystem.fsync_directory(self.live.parent)
        stored = set(self._stored(self.live))
        for name in there:
            path, parsed = directory / name, parse_file_name(name)
            if run_of_leftover(name) is not None:
                is_there = True
            elif parsed is not None:
                is_there = stored.issuperset(intervals_of_file(path, parsed))
            else:
                is_there = filesystem.exists(self.live / name)
            if not is_there:
                filesystem.link(path, self.live / name)
                filesystem.fsync_directory(self.live)
                if parsed is not None:
                    stored.update(intervals_of_file(path, parsed))
            filesystem.unlink(path)

    def _stored(self, directory: Path) -> Iterator[tuple[int, int]]:
        for name in _listed(directory):
            parsed = parse_file_name(name)
            if parsed is not None:
                yield from intervals_of_file(directory / name, parsed)

    def _bring(self, name: str) -> None:
        try:
            self.filesystem.link(self.live / name, self.new / name)
        except FileExistsError:
            raise NotCompactableError(self.live / name, "a file of that name was just made") from None
        except OSError as error:
            why = f"it cannot be brought along ({error.strerror}): it is a directory, or there are no links here"
            raise NotCompactableError(self.live / name, why) from None


def staged_places(root: Path, filesystem: Filesystem) -> list[Place]:
    """Find what a compaction has left behind."""
    staged = root / STAGING
    return [
        Place(root, PurePosixPath(path.relative_to(staged).as_posix()), filesystem)
        for path in sorted(staged.glob("*/venue=*/symbol=*/date=*"))
    ]


def _listed(directory: Path) -> list[str]:
    try:
        return sorted(os.listdir(directory))
    except FileNotFoundError:
        return []
