"""What may be left of a directory after a loss of power: the files and names that processes see, and what of them is durable.

What POSIX promises is all that is kept: bytes of a file up to its last fsync, names of a directory up to its last fsync.
Of what came after, each change of names may have become durable or not, in any combination, and of a file's later bytes any prefix,
or zeros where the length was durable and the bytes were not. A change is durable as a whole (a rename, an exchange of two names), and
with it what came before under the same names, as on every file system of today.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, NamedTuple

import attrs

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterable
    from pathlib import Path

#: The number of the root: files and directories are known by numbers, whatever their names are.
ROOT = 0

Names = dict[int, dict[str, int]]
"""The names in each directory, by its number."""


class Call(NamedTuple):
    """One call that changed something: its name, the names (below the root) and the file or new directory that it was about."""

    what: str
    path: str = ""
    other: str = ""
    file: int = ROOT
    data: bytes = b""
    size: int = 0


class _Change(NamedTuple):
    """What some names stand for from here on, each in its directory; None: they are gone. One stroke."""

    names: dict[tuple[int, str], int | None]


@attrs.define(eq=False)
class Medium:
    """The files and names that processes see, and what of that is durable. Paths are relative to the root."""

    content: dict[int, bytearray] = attrs.Factory(dict)
    synced: dict[int, int] = attrs.Factory(dict)
    seen: Names = attrs.field(factory=lambda: {ROOT: {}})
    durable: Names = attrs.field(factory=lambda: {ROOT: {}})
    #: What has changed, in order, since a directory was forced to the medium.
    changes: list[_Change] = attrs.Factory(list)

    @classmethod
    def of(cls, root: Path) -> Medium:
        """Return what is under ``root`` now, as if all of it were durable."""
        medium = cls()
        for path in sorted(root.rglob("*")):
            name, number = path.relative_to(root).as_posix(), medium.next_number
            medium.apply(Call("mkdir" if path.is_dir() else "create", name, file=number))
            if not path.is_dir():
                medium.apply(Call("write", file=number, data=path.read_bytes()))
        medium.apply(Call("sync"))
        return medium

    @property
    def next_number(self) -> int:
        """A number that no file or directory has had."""
        return 1 + max((*self.content, *self.seen))

    def find(self, path: str) -> int | None:
        """Return the number of what a path stands for, as processes see it; None if there is nothing."""
        number: int | None = ROOT
        for name in filter(None, path.split("/")):
            number = None if number is None else self.seen.get(number, {}).get(name)
        return number

    def apply(self, call: Call) -> None:
        """Let a call have its effect."""
        match call.what:
            case "create":
                self.content[call.file], self.synced[call.file] = bytearray(), 0
                self._change({self._slot(call.path): call.file})
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
                self._change({self._slot(call.other): self.find(call.path)})
            case "rename":
                self._change({self._slot(call.path): None, self._slot(call.other): self.find(call.path)})
            case "exchange":
                one, other = self.find(call.path), self.find(call.other)
                self._change({self._slot(call.path): other, self._slot(call.other): one})
            case "unlink":
                self._change({self._slot(call.path): None})
            case "mkdir":
                self.seen[call.file], self.durable[call.file] = {}, {}
                self._change({self._slot(call.path): call.file})
            case "fsync_directory":
                directory = self.find(call.path)
                self._settle(
                    number
                    for number, change in enumerate(self.changes)
                    if any(slot[0] == directory for slot in change.names)
                )
            case "sync":
                self._settle(range(len(self.changes)))
                self.synced = {file: len(content) for file, content in self.content.items()}

    def leave(self, root: Path, dice: random.Random) -> Medium:
        """Make the new directory ``root`` one of the states that a loss of power now may leave; returns what is there."""
        names = copy.deepcopy(self.durable)
        for number in self._with_what_came_before(
            number for number in range(len(self.changes)) if dice.random() < 0.5
        ):
            _apply(names, self.changes[number])
        left = Medium()

        def survivor(file: int) -> bytes:
            # Whatever its names are, it has one content.
            if file not in left.content:
                left.content[file] = bytearray(self._survivor(file, dice))
                left.synced[file] = len(left.content[file])
            return bytes(left.content[file])

        left.seen = _make(root, names, survivor)
        left.durable = copy.deepcopy(left.seen)
        return left

    def show(self, root: Path) -> None:
        """Make the new directory ``root`` what processes see now: what is left when one is killed."""
        _make(root, self.seen, lambda file: bytes(self.content[file]))

    def _slot(self, path: str) -> tuple[int, str]:
        parent, _, name = path.rpartition("/")
        directory = self.find(parent)
        if directory is None:
            raise KeyError(f"{parent} is not known to the disk: somebody has made it in another way")
        return directory, name

    def _change(self, names: dict[tuple[int, str], int | None]) -> None:
        change = _Change(names)
        _apply(self.seen, change)
        self.changes.append(change)

    def _settle(self, numbers: Iterable[int]) -> None:
        durable = self._with_what_came_before(numbers)
        for number in durable:
            _apply(self.durable, self.changes[number])
        done = set(durable)
        self.changes = [change for number, change in enumerate(self.changes) if number not in done]

    def _with_what_came_before(self, numbers: Iterable[int]) -> list[int]:
        """Add to some changes those before them of the same names; returns all in their order."""
        wanted, names, found = set(numbers), set[tuple[int, str]](), []
        for number in reversed(range(len(self.changes))):
            change = self.changes[number]
            if number in wanted or not names.isdisjoint(change.names):
                names.update(change.names)
                found.append(number)
        return found[::-1]

    def _survivor(self, file: int, dice: random.Random) -> bytes:
        content, synced = self.content[file], self.synced[file]
        length = dice.randint(synced, len(content))
        kept = dice.choice((length, dice.randint(synced, length)))
        return bytes(content[:kept]) + bytes(length - kept)


def _apply(names: Names, change: _Change) -> None:
    for (directory, name), number in change.names.items():
        if number is None:
            names[directory].pop(name, None)
        else:
            names[directory][name] = number


def _make(root: Path, names: Names, content: Callable[[int], bytes]) -> Names:
    """Make the new directory ``root`` what some names say; returns those that can be reached."""
    made: Names = {}
    waiting = [(ROOT, root)]
    while waiting:
        directory, path = waiting.pop()
        path.mkdir()
        made[directory] = dict(sorted(names[directory].items()))
        for name, number in made[directory].items():
            if number in names:
                waiting.append((number, path / name))
            else:
                (path / name).write_bytes(content(number))
    return made
