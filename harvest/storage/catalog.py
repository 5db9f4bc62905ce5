"""What the files of a data directory say, from their names alone where that is enough. Nothing here writes."""

from __future__ import annotations

import os
from bisect import insort
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

import attrs
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from harvest.storage.layout import (
    HIDDEN_PREFIX,
    PRIVATE_PREFIX,
    FileName,
    decode_symbol,
    file_name,
    parse_date,
    parse_file_name,
)
from harvest.storage.parquet import read_facts
from harvest.storage.remainder import merged
from harvest.storage.sources import sources_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from harvest.market import IdSpace
    from harvest.storage.remainder import Interval
    from harvest.storage.sources import Source

#: Files that are opened for what a name does not say, newest first. The greatest trade id is in the very last one,
#: unless that holds nothing but ids which came late.
NEWEST_FILES = 8

_ID_SPACES: Final[dict[str | None, IdSpace]] = {"aggregate": "aggregate", "raw": "raw"}
_T = TypeVar("_T")


class StoredFile(NamedTuple):
    """One data file, as its name says. Files of one directory sort by what they hold."""

    last_seq: int
    first_seq: int
    run: str
    directory: str
    generation: int = 0

    @property
    def name(self) -> FileName:
        """What its name says."""
        return FileName(self.run, self.first_seq, self.last_seq, self.generation)

    @property
    def path(self) -> Path:
        """Where it is."""
        return Path(self.directory, file_name(*self.name))


class Damage(NamedTuple):
    """Something in the data directory that could not be made sense of; it is left as it is."""

    path: Path
    why: str


@attrs.define(eq=False)
class Catalog:
    """The files of one venue as they were when the directory was scanned, and how far ``seq`` went in all of it.

    Days are counted from 1970-01-01, UTC. What turns out to be unreadable goes to ``damage``, and is passed over.
    """

    root: Path
    venue: str
    #: One more than the greatest ``seq`` of any file of any venue.
    next_seq: int = 1
    damage: list[Damage] = attrs.field(factory=list)
    _files: dict[tuple[str, str], dict[int, list[StoredFile]]] = attrs.field(factory=dict)

    def files(self, kind: str, symbol: str, day: int) -> list[StoredFile]:
        """Return the files of one directory, in the order of their rows."""
        return self._files.get((kind, symbol), {}).get(day, [])

    def committed(self, kind: str, symbol: str, day: int) -> list[Interval]:
        """Return the records whose rows of one directory are in its files, as intervals of ``seq``, ascending.

        A compacted file covers what its sources did, and not what lies between them. One that cannot be read covers nothing.
        """
        found: list[Interval] = []
        for file in self.files(kind, symbol, day):
            if file.generation:
                found += [(source.first_seq, source.last_seq) for source in self._sources(file)]
            else:
                found.append((file.first_seq, file.last_seq))
        return merged(found)

    def add(self, kind: str, symbol: str, day: int, path: Path) -> None:
        """Take in a file that was published since the scan."""
        name = parse_file_name(path.name)
        if name is None:
            raise ValueError(f"{path} is not named as a data file")
        file = StoredFile(name.last_seq, name.first_seq, name.run, str(path.parent), name.generation)
        insort(self._files.setdefault((kind, symbol), {}).setdefault(day, []), file)
        self.next_seq = max(self.next_seq, name.last_seq + 1)

    def days(self, kind: str, symbol: str) -> list[int]:
        """Return the dates that have files of ``kind`` and ``symbol``, oldest first."""
        return sorted(self._files.get((kind, symbol), {}))

    def kinds(self) -> list[str]:
        """Return the kinds that have files, sorted."""
        return sorted({kind for kind, _ in self._files})

    def symbols(self, kind: str) -> list[str]:
        """Return the symbols that have files of ``kind``, sorted."""
        return sorted(symbol for stored, symbol in self._files if stored == kind)

    @property
    def runs(self) -> list[str]:
        """The runs that have files of this venue, oldest first."""
        every: set[str] = set()
        for file in (file for days in self._files.values() for files in days.values() for file in files):
            every.add(file.run)
            if file.generation:
                every.update(source.run for source in self._sources(file))
        return sorted(every)

    def _sources(self, file: StoredFile) -> tuple[Source, ...]:
        return (
            self._read(file, lambda opened: sources_of(file.name, read_facts(opened.metadata.metadata))) or ()
        )

    def id_space(self, symbol: str) -> IdSpace | None:
        """Tell which trade ids the stored ``prices`` of ``symbol`` have, by the newest file that says so; or None."""
        for facts in self._newest_facts("prices", symbol):
            stored = facts.get("trade_ids")
            if stored in _ID_SPACES:
                return _ID_SPACES[stored]
        return None

    def last_trade_id(self, symbol: str, *, before_seq: int | None = None) -> int | None:
        """Return the greatest stored trade id of ``symbol``, None if there is none.

        ``before_seq`` leaves out the files that go as far as that record, or beyond.
        """
        stored = (facts.get("last_id", "") for facts in self._newest_facts("prices", symbol, before_seq))
        return max((int(trade_id) for trade_id in stored if trade_id.isdecimal()), default=None)

    def last_cvd(self, symbol: str, day: int, *, before_seq: int | None = None) -> float | None:
        """Return the running sum after the last stored ``cvd`` row of a date, by ``seq``; None if there is none.

        ``before_seq`` leaves out that record and what comes after it.
        Where the last file is damaged, it is that of the last file that is not.
        """
        last: tuple[int, float] | None = None
        for file in reversed(self.files("cvd", symbol, day)):
            if last is not None and file.last_seq < last[0]:
                break
            if before_seq is None or file.first_seq < before_seq:
                # A compacted file may lie around that record.
                found = self._read(file, lambda opened: _last_cvd(opened, before_seq))
                last = max(filter(None, (last, found)), default=None)
        return None if last is None else last[1]

    def _newest_facts(
        self, kind: str, symbol: str, before_seq: int | None = None
    ) -> Iterator[dict[str, str]]:
        newest = (
            file
            for day in reversed(self.days(kind, symbol))
            for file in reversed(self.files(kind, symbol, day))
            if before_seq is None or file.last_seq < before_seq
        )
        for file in islice(newest, NEWEST_FILES):
            facts = self._read(file, lambda opened: read_facts(opened.metadata.metadata))
            if facts is not None:
                yield facts

    def _read(self, file: StoredFile, read: Callable[[pq.ParquetFile], _T]) -> _T | None:
        try:
            with pq.ParquetFile(file.path) as opened:
                return read(opened)
        except (OSError, pa.ArrowException, LookupError, ValueError) as error:
            # LookupError: a Parquet file, but without the column, or without a row. ValueError: without its sources.
            self.damage.append(Damage(file.path, f"cannot be read: {error}"))
            return None


def scan(root: Path, venue: str) -> Catalog:
    """Read the names of all files under ``root``; those of ``venue`` are kept. An empty catalog if there is no root.

    What is hidden, or private to harvest, is passed over. Call it in a thread: it blocks on the disk.
    """
    catalog = Catalog(root, venue)
    if root.exists():
        _Scan(catalog).run()
    return catalog


class _Scan:
    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._last_seq = 0

    def run(self) -> None:
        catalog = self._catalog
        for kind, kind_path in self._directories(str(catalog.root), ""):
            for venue, venue_path in self._directories(kind_path, "venue="):
                for encoded, symbol_path in self._directories(venue_path, "symbol="):
                    try:
                        symbol = decode_symbol(encoded)
                    except ValueError as error:
                        self._reject(symbol_path, str(error))
                        continue
                    days = self._days(symbol_path)
                    if days and venue == catalog.venue:
                        catalog._files[kind, symbol] = days
        catalog.next_seq = self._last_seq + 1

    def _days(self, symbol_path: str) -> dict[int, list[StoredFile]]:
        days = {}
        for date, date_path in self._directories(symbol_path, "date="):
            try:
                day = parse_date(date)
            except ValueError as error:
                self._reject(date_path, str(error))
                continue
            files = self._files(date_path)
            if files:
                days[day] = files
                self._last_seq = max(self._last_seq, files[-1].last_seq)
        return days

    def _files(self, date_path: str) -> list[StoredFile]:
        files = []
        for entry in self._entries(date_path):
            name = parse_file_name(entry.name)
            if name is None:
                self._reject(entry.path, "harvest gives no such name")
            else:
                files.append(StoredFile(name.last_seq, name.first_seq, name.run, date_path, name.generation))
        files.sort()
        return files

    def _directories(self, path: str, prefix: str) -> Iterator[tuple[str, str]]:
        """List the directories named ``prefix…``: what follows the prefix, and the path."""
        for entry in self._entries(path):
            if entry.name.startswith(prefix) and os.path.isdir(entry.path):
                yield entry.name.removeprefix(prefix), entry.path
            else:
                self._reject(entry.path, f"not a directory {prefix}…" if prefix else "not a directory")

    def _entries(self, path: str) -> list[os.DirEntry[str]]:
        try:
            with os.scandir(path) as entries:
                return [e for e in entries if not e.name.startswith((HIDDEN_PREFIX, PRIVATE_PREFIX))]
        except OSError as error:
            self._reject(path, f"cannot be listed: {error.strerror}")
            return []

    def _reject(self, path: str, why: str) -> None:
        self._catalog.damage.append(Damage(Path(path), why))


def _last_cvd(opened: pq.ParquetFile, before_seq: int | None) -> tuple[int, float] | None:
    for group in reversed(range(opened.num_row_groups)):
        rows = opened.read_row_group(group, columns=["seq", "cvd"])
        count = len(rows) if before_seq is None else int(np.searchsorted(rows["seq"].to_numpy(), before_seq))
        if count:
            return rows["seq"][count - 1].as_py(), rows["cvd"][count - 1].as_py()
    return None
