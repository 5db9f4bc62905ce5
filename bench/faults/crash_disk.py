"""A disk that can lose power: it remembers every call, and tells what may be left of a directory after a crash.

What POSIX promises is all that is kept: bytes of a file up to its last fsync, names of a directory up to its last fsync.
Of what came after, each name may have become durable or not, in any combination, and of a file's later bytes any prefix,
or zeros where the length was durable and the bytes were not.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

import attrs

from harvest.storage.filesystem import Filesystem

if TYPE_CHECKING:
    import random
    from pathlib import Path


@attrs.define(eq=False)
class _File:
    """The bytes of one file, whatever its names are. ``synced`` counts those that were forced to the medium."""

    content: bytearray = attrs.Factory(bytearray)
    synced: int = 0


@attrs.frozen(eq=False)
class _Change:
    """A name that appeared in a directory (``what`` is a file, or True for a directory), or went (None)."""

    path: Path
    what: _File | bool | None
    #: The name that went by the same rename: one stroke, on every file system of today.
    gone: Path | None = None


class PowerCut(BaseException):
    """The power is gone: no call after this one has any effect."""


class CrashDisk(Filesystem):
    """Does what the real one does under ``root``, counts the calls that change something, and can cut the power.

    At the call number ``cut_at`` (from 0) it raises ``PowerCut`` instead, and at every later one.
    """

    def __init__(self, root: Path, *, cut_at: int | None = None) -> None:
        self.root = root
        self.calls = 0
        self.cut_at = cut_at
        self._open: dict[int, _File] = {}
        self._files: dict[Path, _File] = {}
        #: What is durable, by path, and what has changed since, by directory.
        self._durable: dict[Path, _File | bool] = {}
        self._changes: defaultdict[Path, list[_Change]] = defaultdict(list)

    def _count(self) -> None:
        if self.cut_at is not None and self.calls >= self.cut_at:
            raise PowerCut
        self.calls += 1

    def adopt(self) -> None:
        """Take what is under ``root`` now for durable: the disk as a new start finds it."""
        for path in self.root.rglob("*"):
            if path.is_dir():
                self._durable[path] = True
            else:
                content = path.read_bytes()
                file = self._files[path] = _File(bytearray(content), len(content))
                self._durable[path] = file

    def _change(self, path: Path, what: _File | bool | None) -> None:
        self._changes[path.parent].append(_Change(path, what))

    def create(self, path: Path) -> int:  # noqa: D102 - as the real one, here and below
        self._count()
        descriptor = super().create(path)
        file = self._open[descriptor] = self._files[path] = _File()
        self._change(path, file)
        return descriptor

    def write(self, descriptor: int, data: memoryview) -> int:  # noqa: D102
        self._count()
        written = super().write(descriptor, data)
        self._open[descriptor].content += data[:written]
        return written

    def fsync(self, descriptor: int) -> None:  # noqa: D102
        self._count()
        # The real one would only cost time: what counts here is what it promises.
        file = self._open[descriptor]
        file.synced = len(file.content)

    def close(self, descriptor: int) -> None:  # noqa: D102
        self._open.pop(descriptor, None)
        super().close(descriptor)

    def link(self, source: Path, target: Path) -> None:  # noqa: D102
        self._count()
        super().link(source, target)
        self._files[target] = self._files[source]
        self._change(target, self._files[source])

    def rename(self, source: Path, target: Path) -> None:  # noqa: D102
        self._count()
        super().rename(source, target)
        file = self._files[target] = self._files.pop(source)
        self._changes[target.parent].append(_Change(target, file, source))

    def unlink(self, path: Path) -> None:  # noqa: D102
        self._count()
        super().unlink(path)
        self._files.pop(path, None)
        self._change(path, None)

    def mkdir(self, path: Path) -> None:  # noqa: D102
        self._count()
        super().mkdir(path)
        self._change(path, True)

    def fsync_directory(self, path: Path) -> None:  # noqa: D102
        self._count()
        for change in self._changes.pop(path, ()):
            _apply(self._durable, change)

    def leave(self, target: Path, dice: random.Random) -> None:
        """Write into the new directory ``target`` one of the states that a crash now may leave."""
        left = dict(self._durable)
        for changes in self._changes.values():
            for change in changes:
                if dice.random() < 0.5:
                    _apply(left, change)
        target.mkdir()
        # A directory's own name may be lost, and then all that is in it.
        kept = {self.root}
        for path in sorted(left):
            if path.parent not in kept:
                continue
            here = target / path.relative_to(self.root)
            what = left[path]
            if isinstance(what, _File):
                here.write_bytes(_survivor(what, dice))
            else:
                here.mkdir()
                kept.add(path)


def _apply(names: dict[Path, _File | bool], change: _Change) -> None:
    if change.gone is not None:
        names.pop(change.gone, None)
    if change.what is None:
        names.pop(change.path, None)
    else:
        names[change.path] = change.what


def _survivor(file: _File, dice: random.Random) -> bytes:
    durable = bytes(file.content[: file.synced])
    later = len(file.content) - file.synced
    if not later:
        return durable
    length = dice.randint(0, later)
    kept = dice.choice((length, dice.randint(0, length)))
    return durable + bytes(file.content[file.synced : file.synced + kept]) + b"\0" * (length - kept)
