"""A disk that can lose power: it remembers every call, and tells what may be left of a directory after a crash at any of them.

What POSIX promises is all that is kept: bytes of a file up to its last fsync, names of a directory up to its last fsync.
Of what came after, each name may have become durable or not, in any combination, and of a file's later bytes any prefix,
or zeros where the length was durable and the bytes were not.
"""

from __future__ import annotations

import copy
import threading
from collections import defaultdict
from typing import TYPE_CHECKING, NamedTuple

import attrs

from harvest.storage.filesystem import Filesystem

if TYPE_CHECKING:
    import random
    from pathlib import Path

#: What a name stands for, if not for the number of a file.
DIRECTORY = -1


class Call(NamedTuple):
    """One call that changed something: its name, the names (below the root) and the file that it was about."""

    what: str
    path: str = ""
    other: str = ""
    file: int = DIRECTORY
    data: bytes = b""
    size: int = 0


class _Change(NamedTuple):
    """A name that appeared in a directory, or went (``file`` is None)."""

    path: str
    file: int | None
    #: The name that went by the same rename: one stroke, on every file system of today.
    gone: str | None = None


class PowerCut(BaseException):
    """The power is gone: no call after this one has any effect."""


@attrs.define(eq=False)
class Medium:
    """The files and names that processes see, and what of that is durable. Paths are relative to the root."""

    content: dict[int, bytearray] = attrs.Factory(dict)
    synced: dict[int, int] = attrs.Factory(dict)
    seen: dict[str, int] = attrs.Factory(dict)
    durable: dict[str, int] = attrs.Factory(dict)
    #: What has changed since a directory was forced to the medium.
    changes: dict[str, list[_Change]] = attrs.field(factory=lambda: defaultdict(list))

    def apply(self, call: Call) -> None:
        """Let a call have its effect."""
        match call.what:
            case "create":
                self.content[call.file], self.synced[call.file] = bytearray(), 0
                self._change(_Change(call.path, call.file))
            case "write":
                self.content[call.file] += call.data
            case "allocate":
                self.content[call.file] += bytes(call.size - len(self.content[call.file]))
            case "truncate":
                del self.content[call.file][call.size :]
                self.synced[call.file] = min(self.synced[call.file], call.size)
            case "fsync":
                self.synced[call.file] = len(self.content[call.file])
            case "link":
                self._change(_Change(call.other, self.seen[call.path]))
            case "rename":
                self._change(_Change(call.other, self.seen[call.path], call.path))
            case "unlink":
                self._change(_Change(call.path, None))
            case "mkdir":
                self._change(_Change(call.path, DIRECTORY))
            case "fsync_directory":
                self._settle(call.path)
            case "sync":
                for directory in list(self.changes):
                    self._settle(directory)
                self.synced = {file: len(content) for file, content in self.content.items()}

    def leave(self, root: Path, dice: random.Random) -> Medium:
        """Make the new directory ``root`` one of the states that a loss of power now may leave; returns what is there."""
        names = dict(self.durable)
        for changes in self.changes.values():
            for change in changes:
                if dice.random() < 0.5:
                    _rename(names, change)
        left, kept = Medium(), {""}
        root.mkdir()
        # A directory's own name may be lost, and then all that is in it.
        for path in sorted(names):
            if _parent(path) not in kept:
                continue
            file = left.seen[path] = names[path]
            if file == DIRECTORY:
                (root / path).mkdir()
                kept.add(path)
            else:
                # Whatever its names are, it has one content.
                if file not in left.content:
                    left.content[file] = bytearray(self._survivor(file, dice))
                    left.synced[file] = len(left.content[file])
                (root / path).write_bytes(left.content[file])
        left.durable = dict(left.seen)
        return left

    def show(self, root: Path) -> None:
        """Make the new directory ``root`` what processes see now: what is left when one is killed."""
        root.mkdir()
        for path in sorted(self.seen):
            if self.seen[path] == DIRECTORY:
                (root / path).mkdir()
            else:
                (root / path).write_bytes(self.content[self.seen[path]])

    def _change(self, change: _Change) -> None:
        _rename(self.seen, change)
        self.changes[_parent(change.path)].append(change)

    def _settle(self, directory: str) -> None:
        for change in self.changes.pop(directory, ()):
            _rename(self.durable, change)

    def _survivor(self, file: int, dice: random.Random) -> bytes:
        content, synced = self.content[file], self.synced[file]
        length = dice.randint(synced, len(content))
        kept = dice.choice((length, dice.randint(synced, length)))
        return bytes(content[:kept]) + bytes(length - kept)


class CrashDisk(Filesystem):
    """Does what the real one does under ``root``, but for the waiting, and logs each call that changes something.

    At the call number ``cut_at`` (from 0) it raises ``PowerCut`` instead, and at every later one. ``medium`` is what is under
    ``root`` at first, and what of that is durable; nothing is there if it is not given. Threads may share it.
    """

    def __init__(self, root: Path, *, medium: Medium | None = None, cut_at: int | None = None) -> None:
        self.calls: list[Call] = []
        self._root = root
        self._cut_at = cut_at
        self._begun = medium or Medium()
        self._next_file = 1 + max(self._begun.content, default=0)
        self._files = {path: file for path, file in self._begun.seen.items() if file != DIRECTORY}
        self._open: dict[int, int] = {}
        self._lock = threading.Lock()

    def medium(self, calls: int | None = None) -> Medium:
        """Return how things stood after so many calls, or stand now."""
        medium = copy.deepcopy(self._begun)
        for call in self.calls[:calls]:
            medium.apply(call)
        return medium

    def create(self, path: Path) -> int:  # noqa: D102 - as the real one, here and below
        with self._lock:
            self._check()
            descriptor = super().create(path)
            self._open[descriptor] = self._made(self._name(path))
            return descriptor

    def open(self, path: Path, flags: int) -> int:  # noqa: D102
        with self._lock:
            self._check()
            descriptor, name = super().open(path, flags), self._name(path)
            self._open[descriptor] = self._files[name] if name in self._files else self._made(name)
            return descriptor

    def write(self, descriptor: int, data: memoryview) -> int:  # noqa: D102
        with self._lock:
            self._check()
            written = super().write(descriptor, data)
            self._log(Call("write", file=self._open[descriptor], data=bytes(data[:written])))
            return written

    def fsync(self, descriptor: int) -> None:  # noqa: D102
        with self._lock:
            self._check()
            # The real one would only cost time: what counts here is what it promises.
            self._log(Call("fsync", file=self._open[descriptor]))

    def fdatasync(self, descriptor: int) -> None:  # noqa: D102
        self.fsync(descriptor)

    def allocate(self, descriptor: int, size: int) -> None:  # noqa: D102
        with self._lock:
            self._check()
            super().allocate(descriptor, size)
            self._log(Call("allocate", file=self._open[descriptor], size=size))

    def truncate(self, descriptor: int, size: int) -> None:  # noqa: D102
        with self._lock:
            self._check()
            super().truncate(descriptor, size)
            self._log(Call("truncate", file=self._open[descriptor], size=size))

    def close(self, descriptor: int) -> None:  # noqa: D102
        with self._lock:
            self._open.pop(descriptor, None)
            super().close(descriptor)

    def link(self, source: Path, target: Path) -> None:  # noqa: D102
        with self._lock:
            self._check()
            super().link(source, target)
            self._files[self._name(target)] = self._files[self._name(source)]
            self._log(Call("link", self._name(source), self._name(target)))

    def rename(self, source: Path, target: Path) -> None:  # noqa: D102
        with self._lock:
            self._check()
            super().rename(source, target)
            self._files[self._name(target)] = self._files.pop(self._name(source))
            self._log(Call("rename", self._name(source), self._name(target)))

    def unlink(self, path: Path) -> None:  # noqa: D102
        with self._lock:
            self._check()
            super().unlink(path)
            self._files.pop(self._name(path), None)
            self._log(Call("unlink", self._name(path)))

    def mkdir(self, path: Path) -> None:  # noqa: D102
        with self._lock:
            self._check()
            super().mkdir(path)
            self._log(Call("mkdir", self._name(path)))

    def rmdir(self, path: Path) -> None:  # noqa: D102
        with self._lock:
            self._check()
            super().rmdir(path)
            self._log(Call("unlink", self._name(path)))

    def exchange(self, one: Path, other: Path) -> None:  # noqa: D102
        raise NotImplementedError("the exchange of two directories is not in this model")

    def fsync_directory(self, path: Path) -> None:  # noqa: D102
        with self._lock:
            self._check()
            self._log(Call("fsync_directory", self._name(path)))

    def sync(self, path: Path) -> None:  # noqa: D102
        with self._lock:
            self._check()
            self._log(Call("sync"))

    def _check(self) -> None:
        if self._cut_at is not None and len(self.calls) >= self._cut_at:
            raise PowerCut

    def _log(self, call: Call) -> None:
        self.calls.append(call)

    def _made(self, name: str) -> int:
        file, self._next_file = self._next_file, self._next_file + 1
        self._files[name] = file
        self._log(Call("create", name, file=file))
        return file

    def _name(self, path: Path) -> str:
        name = path.relative_to(self._root).as_posix()
        return "" if name == "." else name


def _parent(path: str) -> str:
    return path.rpartition("/")[0]


def _rename(names: dict[str, int], change: _Change) -> None:
    if change.gone is not None:
        names.pop(change.gone, None)
    if change.file is None:
        names.pop(change.path, None)
    else:
        names[change.path] = change.file
