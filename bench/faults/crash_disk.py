"""A disk that remembers every call, so that what a crash at any of them may leave is known; and that can refuse them."""

from __future__ import annotations

import copy
import os
import threading
from typing import TYPE_CHECKING

import attrs

from bench.faults.medium import Call, Medium
from harvest.storage.filesystem import Filesystem

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


class PowerCut(BaseException):
    """The power is gone: no call after this one has any effect."""


@attrs.define
class Refusal:
    """How a disk refuses: the call number ``at`` (from 0), or all from it on if it ``lasts``, until ``until`` of them have failed.

    ``on_heal`` is called when those that have failed are enough.
    """

    at: int
    code: int
    lasts: bool = False
    until: int = 1
    on_heal: Callable[[], object] = lambda: None
    #: How many calls were refused so far.
    count: int = 0

    def is_due(self, number: int) -> bool:
        """Tell whether the call of that number fails, which is counted then."""
        if number < self.at or self.count >= (self.until if self.lasts else 1):
            return False
        self.count += 1
        if self.count == self.until:
            self.on_heal()
        return True


class CrashDisk(Filesystem):
    """Does what the real one does under ``root``, but for the waiting, and logs each call that changes something.

    At the call number ``cut_at`` (from 0) it raises ``PowerCut`` instead, and at every later one; ``refusal`` says which ones fail.
    Of a write that fails one half was written. ``medium`` is what is under ``root`` at first, and what of that is durable: all of it
    if it is not given. Threads may share it.
    """

    def __init__(
        self,
        root: Path,
        *,
        medium: Medium | None = None,
        cut_at: int | None = None,
        refusal: Refusal | None = None,
    ) -> None:
        self.calls: list[Call] = []
        #: Calls that were to change something, those that failed among them.
        self.tried = 0
        self._root = root
        self._cut_at = cut_at
        self._refusal = refusal
        self._begun = medium or Medium.of(root)
        self._now = copy.deepcopy(self._begun)
        self._next_number = self._begun.next_number
        self._open: dict[int, int] = {}
        self._lock = threading.Lock()

    def medium(self, calls: int | None = None) -> Medium:
        """Return how things stood after so many calls, or stand now."""
        if calls is None:
            return copy.deepcopy(self._now)
        medium = copy.deepcopy(self._begun)
        for call in self.calls[:calls]:
            medium.apply(call)
        return medium

    def create(self, path: Path) -> int:  # noqa: D102 - as the real one, here and below
        with self._lock:
            self._check()
            descriptor = super().create(path)
            self._open[descriptor] = self._made("create", self._name(path))
            return descriptor

    def open(self, path: Path, flags: int) -> int:  # noqa: D102
        with self._lock:
            known = self._now.find(self._name(path))
            if known is None:
                self._check()
            descriptor = super().open(path, flags)
            self._open[descriptor] = self._made("create", self._name(path)) if known is None else known
            return descriptor

    def write(self, descriptor: int, data: memoryview) -> int:  # noqa: D102
        with self._lock:
            try:
                self._check()
            except OSError:
                self._write(descriptor, data[: len(data) // 2])
                raise
            return self._write(descriptor, data)

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
            self._log(Call("link", self._name(source), self._name(target)))

    def rename(self, source: Path, target: Path) -> None:  # noqa: D102
        with self._lock:
            self._check()
            super().rename(source, target)
            self._log(Call("rename", self._name(source), self._name(target)))

    def replace(self, source: Path, target: Path) -> None:  # noqa: D102
        with self._lock:
            self._check()
            super().replace(source, target)
            self._log(Call("rename", self._name(source), self._name(target)))

    def exchange(self, one: Path, other: Path) -> None:  # noqa: D102
        with self._lock:
            self._check()
            super().exchange(one, other)
            self._log(Call("exchange", self._name(one), self._name(other)))

    def unlink(self, path: Path) -> None:  # noqa: D102
        with self._lock:
            self._check()
            super().unlink(path)
            self._log(Call("unlink", self._name(path)))

    def mkdir(self, path: Path) -> None:  # noqa: D102
        with self._lock:
            self._check()
            super().mkdir(path)
            self._made("mkdir", self._name(path))

    def rmdir(self, path: Path) -> None:  # noqa: D102
        with self._lock:
            self._check()
            super().rmdir(path)
            self._log(Call("unlink", self._name(path)))

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
        number, self.tried = self.tried, self.tried + 1
        if self._refusal is not None and self._refusal.is_due(number):
            raise OSError(self._refusal.code, os.strerror(self._refusal.code))

    def _write(self, descriptor: int, data: memoryview) -> int:
        written = super().write(descriptor, data)
        self._log(Call("write", file=self._open[descriptor], data=bytes(data[:written])))
        return written

    def _log(self, call: Call) -> None:
        self._now.apply(call)
        self.calls.append(call)

    def _made(self, what: str, name: str) -> int:
        number, self._next_number = self._next_number, self._next_number + 1
        self._log(Call(what, name, file=number))
        return number

    def _name(self, path: Path) -> str:
        name = path.relative_to(self._root).as_posix()
        return "" if name == "." else name
