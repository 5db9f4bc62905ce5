"""Which files there are, from their names alone: data, what was left behind, and what is not harvest's."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from harvest.storage.layout import (
    HIDDEN_PREFIX,
    PRIVATE_PREFIX,
    SUFFIX,
    FileName,
    decode_symbol,
    parse_date,
    parse_file_name,
    run_of_leftover,
)
from harvest.storage.parquet import read_facts
from harvest.storage.sources import Source, sources_of

if TYPE_CHECKING:
    from harvest.pipeline.verify.findings import Findings

_DEPTH = len(("kind", "venue=", "symbol=", "date=", "file"))


class DataFile(msgspec.Struct, frozen=True):
    """One data file, as its path says."""

    path: Path
    kind: str
    venue: str
    symbol: str
    day: int
    run: str
    first_seq: int
    last_seq: int
    size_bytes: int
    generation: int = 0
    #: Of a compacted file: what it was made of, as far as it can be read.
    sources: tuple[Source, ...] = ()

    @property
    def name(self) -> FileName:
        """What its name says."""
        return FileName(self.run, self.first_seq, self.last_seq, self.generation)

    @property
    def parts(self) -> tuple[Source, ...]:
        """The records that it holds, by run: those of its sources, or its own."""
        return self.sources or (Source(self.first_seq, self.last_seq, self.run, 0),)


@attrs.frozen
class Series:
    """All files of one venue and symbol; the files of a kind are in the order of their records."""

    venue: str
    symbol: str
    kinds: dict[str, list[DataFile]]

    @property
    def size_bytes(self) -> int:
        """Bytes of all its files."""
        return sum(file.size_bytes for files in self.kinds.values() for file in files)


def discover(root: Path, findings: Findings) -> list[Series]:
    """Walk the directory: the series in it, by venue and symbol. What is no data becomes a warning.

    A visible Parquet file that harvest did not name is damage: readers take it for data.
    """
    found: dict[tuple[str, str], dict[str, list[DataFile]]] = {}
    for path in _walk(root, findings):
        file = _parse(root, path)
        if isinstance(file, DataFile):
            found.setdefault((file.venue, file.symbol), {}).setdefault(file.kind, []).append(file)
        else:
            _report_foreign(path, root, file, findings)
    for kinds in found.values():
        for files in kinds.values():
            files.sort(key=lambda file: (file.first_seq, file.last_seq, file.run, file.day))
    return [Series(venue, symbol, kinds) for (venue, symbol), kinds in sorted(found.items())]


def _walk(root: Path, findings: Findings) -> list[Path]:
    """List all files below the root that are not private to harvest, in the order of their paths."""
    paths: list[Path] = []

    def cannot_list(error: OSError) -> None:
        findings.damaged(
            "unreadable", f"cannot be listed: {error.strerror}", path=Path(error.filename or root)
        )

    # Links are followed, as readers do: a date may have been moved to another disk. A loop is not.
    seen: set[tuple[int, int]] = set()
    for directory, directories, files in os.walk(root, followlinks=True, onerror=cannot_list):
        status = os.stat(directory)
        if (status.st_dev, status.st_ino) in seen:
            directories.clear()
            continue
        if status.st_ino:
            seen.add((status.st_dev, status.st_ino))
        if Path(directory) == root:
            directories[:] = [name for name in directories if not name.startswith(PRIVATE_PREFIX)]
            files = [name for name in files if not name.startswith(PRIVATE_PREFIX)]
        paths += [Path(directory, name) for name in files]
    return sorted(paths)


def _parse(root: Path, path: Path) -> DataFile | str:
    """Read a path; returns why not where harvest gives no such."""
    parts = path.relative_to(root).parts
    if len(parts) != _DEPTH:
        return "no data lies there"
    kind, venue, symbol, date, file = parts
    name = parse_file_name(file)
    if name is None:
        return "harvest gives no such name"
    if not (venue.startswith("venue=") and symbol.startswith("symbol=") and date.startswith("date=")):
        return "harvest names no directory so"
    try:
        day = parse_date(date.removeprefix("date="))
        decoded = decode_symbol(symbol.removeprefix("symbol="))
        size_bytes = path.stat().st_size
    except (ValueError, OSError) as error:
        return str(error)
    return DataFile(
        path,
        kind,
        venue.removeprefix("venue="),
        decoded,
        day,
        name.run,
        name.first_seq,
        name.last_seq,
        size_bytes,
        name.generation,
        _sources(path, name) if name.generation else (),
    )


def _sources(path: Path, name: FileName) -> tuple[Source, ...]:
    try:
        with pq.ParquetFile(path) as opened:
            return sources_of(name, read_facts(opened.metadata.metadata))
    except (OSError, pa.ArrowException, ValueError):
        return ()  # It is damaged, as will be found when it is read.


def _report_foreign(path: Path, root: Path, why: str, findings: Findings) -> None:
    relative = path.relative_to(root)
    run = run_of_leftover(path.name)
    if run is not None:
        findings.warn(f"{relative}: left behind by run {run}, or still being written by it", sort="temporary")
    elif path.suffix == SUFFIX and not any(part.startswith(HIDDEN_PREFIX) for part in relative.parts):
        findings.damaged("foreign", f"readers take it for data, but {why}", path=path)
    else:
        findings.warn(f"{relative}: not a file of harvest", sort="foreign")


def report_overlaps(files: list[DataFile], findings: Findings) -> None:
    """Find files of one kind and date that hold the same records, which no two files of a directory do."""
    latest: dict[int, tuple[int, DataFile]] = {}
    parts = [(part, file) for file in files for part in file.parts]
    for part, file in sorted(parts, key=lambda one: one[0]):
        before = latest.get(file.day)
        if before is not None and part.first_seq <= before[0]:
            detail = (
                f"its records {part.first_seq} to {part.last_seq} are also those of {before[1].path.name}"
            )
            findings.damaged("overlap", detail, path=file.path, kind=file.kind)
        if before is None or part.last_seq > before[0]:
            latest[file.day] = part.last_seq, file
