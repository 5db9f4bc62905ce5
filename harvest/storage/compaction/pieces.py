"""The files of one date directory, what they say of themselves, and which of them are to become one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import pyarrow as pa
import pyarrow.parquet as pq

from harvest import __version__
from harvest.errors import StorageError
from harvest.storage.kinds import kinds
from harvest.storage.layout import file_name
from harvest.storage.parquet import SCHEMA_VERSION, read_facts
from harvest.storage.sources import GENERATION, SOURCES, sources_of, to_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from harvest.storage.kinds import Kind
    from harvest.storage.layout import FileName
    from harvest.storage.sources import Source


class NotCompactableError(StorageError):
    """A file or directory that compaction leaves as it is, and why."""

    def __init__(self, path: Path, why: str) -> None:
        self.path, self.why = path, why
        super().__init__(f"{path}: {why}; left as it is")


@attrs.frozen
class Piece:
    """One file: its name, what its footer says, and its kind."""

    path: Path
    name: FileName
    facts: Mapping[str, str]
    sources: tuple[Source, ...]
    rows: int
    size_bytes: int
    kind: Kind

    def batches(self) -> pq.ParquetFile:
        """Open the file for its rows."""
        return pq.ParquetFile(self.path, page_checksum_verification=True, pre_buffer=False)


def look_at(path: Path, name: FileName, expected: Mapping[str, str]) -> Piece:
    """Read the footer of a file; ``expected`` is what its directory says.

    Raises:
        NotCompactableError: it cannot be read, or is not what its path says.
    """
    try:
        with pq.ParquetFile(path) as opened:
            facts = read_facts(opened.metadata.metadata)
            schema, rows = opened.schema_arrow, opened.metadata.num_rows
        sources, size_bytes = sources_of(name, facts), path.stat().st_size
    except (OSError, pa.ArrowException, ValueError) as error:
        raise NotCompactableError(path, f"cannot be read: {str(error).splitlines()[0]}") from None
    levels = sum(column.startswith("bid_px_") for column in schema.names)
    kind = kinds(levels).get(expected["kind"])
    if kind is None or not schema.remove_metadata().equals(kind.schema):
        raise NotCompactableError(path, "its columns are not those of a kind that this version knows")
    said = {
        "schema": str(SCHEMA_VERSION),
        "rows": str(rows),
        "first_seq": str(name.first_seq),
        "last_seq": str(name.last_seq),
        **expected,
    }
    wrong = [key for key, value in said.items() if facts.get(key) != value]
    if wrong or not rows or sum(source.rows for source in sources) != rows:
        raise NotCompactableError(path, f"its metadata are not those of its place ({', '.join(wrong)})")
    return Piece(path, name, facts, sources, rows, size_bytes, kind)


def groups(pieces: Iterable[Piece], max_rows: int) -> list[list[Piece]]:
    """Tell which files of a run are to become one, in the order of their records: as many as have ``max_rows`` together.

    Files of different runs stay apart: a book begins anew with each, and a file's name goes on saying who wrote its rows.

    What was compacted already comes out as it is: two groups that follow each other never fit into one.
    """
    found: list[list[Piece]] = []
    rows = 0
    for piece in sorted(
        pieces, key=lambda piece: (piece.name.run, piece.name.first_seq, piece.name.last_seq)
    ):
        last = found[-1][-1] if found else None
        fits = last is not None and rows + piece.rows <= max_rows and _alike(last, piece)
        if fits:
            found[-1].append(piece)
            rows += piece.rows
        else:
            found.append([piece])
            rows = piece.rows
    return [group for group in found if len(group) > 1]


def _alike(one: Piece, other: Piece) -> bool:
    same_ids = one.facts.get("trade_ids") == other.facts.get("trade_ids")
    return one.name.run == other.name.run and same_ids and one.kind.schema.equals(other.kind.schema)


def combined(group: Sequence[Piece], generation: int) -> tuple[str, dict[str, str]]:
    """Return the name and the metadata of the file that a group becomes."""
    facts = {
        key: value
        for key, value in group[0].facts.items()
        if all(piece.facts.get(key) == value for piece in group)
    }
    for key in ("seq", "recv_ns", "id"):
        for bound, choose in (("first", min), ("last", max)):
            known = [int(text) for piece in group if (text := piece.facts.get(f"{bound}_{key}"))]
            if known:
                facts[f"{bound}_{key}"] = str(choose(known))
    for bound, choose_text in (("first_time", min), ("last_time", max)):
        # ISO 8601 of one length: as texts they sort as times.
        times = [text for piece in group if (text := piece.facts.get(bound))]
        if times:
            facts[bound] = choose_text(times)
    run = group[0].name.run
    facts |= {
        "version": __version__,
        "run": run,
        "rows": str(sum(piece.rows for piece in group)),
        GENERATION: str(generation),
        SOURCES: to_text(source for piece in group for source in piece.sources),
    }
    return file_name(run, int(facts["first_seq"]), int(facts["last_seq"]), generation), facts
