"""What a compacted file was made of: it lists the intervals of its sources, so that it is known which rows are committed."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, NamedTuple

import pyarrow.parquet as pq

from harvest.storage.parquet import read_facts

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from harvest.storage.layout import FileName

#: Keys of the metadata that compacted files alone have.
SOURCES = "sources"
GENERATION = "generation"


class Source(NamedTuple):
    """The records of a file as it was recorded; sources of one directory have no record in common."""

    first_seq: int
    last_seq: int
    run: str
    rows: int


def to_text(sources: Iterable[Source]) -> str:
    """Write sources for the metadata of a file: by run, ``[first_seq, last_seq, rows]`` each."""
    by_run: dict[str, list[tuple[int, int, int]]] = {}
    for source in sorted(sources):
        by_run.setdefault(source.run, []).append((source.first_seq, source.last_seq, source.rows))
    return json.dumps(by_run, separators=(",", ":"))


def from_text(text: str) -> tuple[Source, ...]:
    """Undo ``to_text``, in the order of their records.

    Raises:
        ValueError: it is nothing like that.
    """
    try:
        return tuple(
            sorted(
                Source(int(first), int(last), str(run), int(rows))
                for run, parts in json.loads(text).items()
                for first, last, rows in parts
            )
        )
    except (AttributeError, TypeError) as error:
        raise ValueError(f"not a list of sources: {error}") from None


def sources_of(name: FileName, facts: Mapping[str, str]) -> tuple[Source, ...]:
    """Return the sources of a file by its name and metadata; a file as it was recorded is its own.

    Raises:
        ValueError: its metadata do not list them.
    """
    if not name.generation:
        return (Source(name.first_seq, name.last_seq, name.run, int(facts.get("rows", 0))),)
    if SOURCES not in facts:
        raise ValueError("it lists no sources")
    return from_text(facts[SOURCES])


def intervals_of_file(path: Path, name: FileName) -> tuple[tuple[int, int], ...]:
    """Return the first and last record of each source of a file; only a compacted one is opened for it.

    Raises:
        OSError: it cannot be read.
        pa.ArrowException: it is no Parquet file.
        ValueError: its metadata do not list them.
    """
    if not name.generation:
        return ((name.first_seq, name.last_seq),)
    with pq.ParquetFile(path) as opened:
        facts = read_facts(opened.metadata.metadata)
    return tuple((source.first_seq, source.last_seq) for source in sources_of(name, facts))


def is_replaced(name: FileName, by: Iterable[tuple[FileName, Iterable[tuple[int, int]]]]) -> bool:
    """Tell whether a file that is gone went into one of ``by``: compacted files, and the intervals of their sources."""
    for other, intervals in by:
        if other.generation <= name.generation:
            continue
        within = other.first_seq <= name.first_seq and name.last_seq <= other.last_seq
        if within and (name.generation or (name.first_seq, name.last_seq) in intervals):
            return True
    return False
