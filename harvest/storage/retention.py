"""Retention: the oldest dates go when they are older, or all data is larger, than it is to be. Whole dates, never the current one.

A date directory leaves the readers' sight at one stroke, and is then removed; the ledger keeps what it held, marked as expired.
"""

from __future__ import annotations

import contextlib
import os
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import msgspec

from harvest.storage import ledger
from harvest.storage.filesystem import Filesystem
from harvest.storage.layout import PRIVATE_PREFIX, date_text, parse_date

if TYPE_CHECKING:
    from harvest.storage.account import Entry

#: Where a directory goes before its files do: no reader looks there.
EXPIRED = "_expired"
DAY_NS = 86_400 * 10**9


@attrs.frozen
class ExpiredDate:
    """A date that is no longer kept, in all of its kinds and symbols."""

    date: str
    directories: int
    files: int
    bytes: int


def expire(
    root: Path,
    *,
    now_ns: int,
    keep_days: int | None = None,
    keep_bytes: int | None = None,
    filesystem: Filesystem | None = None,
) -> list[ExpiredDate]:
    """Remove the dates that lie ``keep_days`` days or more back, and the oldest ones while there are more than ``keep_bytes``.

    Days are counted back from the current date in UTC, or from the newest date that is stored if that is earlier: a clock that
    is set wrongly must not cost the data. That date always stays. Returns what was removed, oldest first.

    Raises:
        OSError: some dates may be gone; call again.
    """
    filesystem = filesystem or Filesystem()
    _remove_leftovers(root, filesystem)
    days: dict[int, list[Path]] = defaultdict(list)
    for path in sorted(root.glob("*/venue=*/symbol=*/date=*")):
        if not path.relative_to(root).parts[0].startswith((PRIVATE_PREFIX, ".")):
            with contextlib.suppress(ValueError):  # No directory of harvest: it is not ours to remove.
                days[parse_date(path.name.removeprefix("date="))].append(path)
    if not days or (keep_days is None and keep_bytes is None):
        return []
    last = min(now_ns // DAY_NS, max(days))
    sizes = (
        {day: sum(_sizes(path) for path in paths) for day, paths in days.items()}
        if keep_bytes is not None
        else {}
    )
    total = sum(sizes.values())
    gone = []
    for day in sorted(day for day in days if day < last):
        is_old = keep_days is not None and day <= last - keep_days
        is_too_much = keep_bytes is not None and total > keep_bytes
        if not (is_old or is_too_much):
            break
        gone.append(_expire_date(root, day, days[day], now_ns, filesystem))
        total -= sizes.get(day, 0)
    return gone


def _expire_date(
    root: Path, day: int, directories: list[Path], now_ns: int, filesystem: Filesystem
) -> ExpiredDate:
    size_bytes = sum(_sizes(path) for path in directories)
    files = sum(len(os.listdir(path)) for path in directories)

    def mark(entries: list[Entry]) -> list[Entry]:
        return [
            entry if entry.expired_ns is not None else msgspec.structs.replace(entry, expired_ns=now_ns)
            for entry in entries
        ]

    # The ledger first: what is marked and still there is removed next time, and what is gone was marked.
    for venue, symbol in dict.fromkeys(path.parts[-3:-1] for path in directories):
        ledger.revise(
            root / ledger.LEDGER / venue / symbol / f"date={date_text(day)}.jsonl",
            mark,
            filesystem=filesystem,
        )
    for path in directories:
        away = root / EXPIRED / path.relative_to(root)
        for parent in (*reversed(away.relative_to(root).parents[:-1]),):
            with contextlib.suppress(FileExistsError):
                filesystem.mkdir(root / parent)
        filesystem.rename(path, away)
        filesystem.fsync_directory(path.parent)
    _remove_leftovers(root, filesystem)
    return ExpiredDate(date_text(day), len(directories), files, size_bytes)


def _remove_leftovers(root: Path, filesystem: Filesystem) -> None:
    for directory, directories, files in os.walk(root / EXPIRED, topdown=False):
        for name in files:
            filesystem.unlink(Path(directory, name))
        for name in directories:
            filesystem.rmdir(Path(directory, name))


def _sizes(directory: Path) -> int:
    with os.scandir(directory) as entries:
        return sum(entry.stat(follow_symlinks=False).st_size for entry in entries)
