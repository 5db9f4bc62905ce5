"""Writes the rows of a group of files into one, and holds what it reads back against what it has read."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from harvest.errors import StorageError
from harvest.storage.compaction.checksum import Checksum, DisorderError
from harvest.storage.compaction.merge import in_order
from harvest.storage.compaction.pieces import NotCompactableError
from harvest.storage.filesystem import write_all
from harvest.storage.layout import HIDDEN_PREFIX, TEMPORARY_SUFFIX
from harvest.storage.parquet import open_writer, prefixed, row_group_rows

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from harvest.storage.compaction.pieces import Piece
    from harvest.storage.filesystem import Filesystem

#: Rows that are read at once of each file; those of ``depth`` are lists.
BATCH_ROWS = 32_768
LISTS_BATCH_ROWS = 4_096


class UnequalRowsError(StorageError):
    """A compacted file that does not hold the very rows of its sources; nothing was replaced by it."""

    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        self.path, self.columns = path, columns
        super().__init__(f"{path} differs from its sources in {', '.join(columns)}; nothing was replaced")


def rewrite(group: Sequence[Piece], path: Path, facts: Mapping[str, str], filesystem: Filesystem) -> None:
    """Make the file ``path`` of the rows of ``group``, whole and on the medium; its name is durable with its directory.

    Raises:
        NotCompactableError: a source is damaged.
        UnequalRowsError: what was written is not what was read.
        OSError: it could not be written.
    """
    temporary = path.with_name(f"{HIDDEN_PREFIX}{path.name}{TEMPORARY_SUFFIX}")
    read = Checksum()
    try:
        _write(
            in_order([piece.name.first_seq for piece in group], lambda n: _rows(group[n], read)),
            *(
                group[0],
                temporary,
                facts,
                filesystem,
            ),
        )
    except (DisorderError, pa.ArrowException) as error:
        raise NotCompactableError(group[0].path.parent, str(error).splitlines()[0]) from None
    written = Checksum()
    with pq.ParquetFile(temporary, page_checksum_verification=True, pre_buffer=False) as opened:
        for _ in written.watch(opened.iter_batches(_batch_rows(group[0]), use_threads=False)):
            pass
    promised = sum(piece.rows for piece in group)
    unequal = [name for name, total in read.columns.items() if written.columns.get(name) != total]
    if not (promised == read.rows == written.rows):
        unequal.append(f"rows ({promised} promised, {read.rows} read, {written.rows} written)")
    if unequal:
        raise UnequalRowsError(path, unequal)
    filesystem.rename(temporary, path)


def _batch_rows(piece: Piece) -> int:
    return LISTS_BATCH_ROWS if piece.kind.extra else BATCH_ROWS


def _rows(piece: Piece, read: Checksum) -> Iterator[pa.RecordBatch]:
    with piece.batches() as opened:
        yield from read.watch(opened.iter_batches(_batch_rows(piece), use_threads=False))


def _write(
    tables: Iterator[pa.Table], like: Piece, temporary: Path, facts: Mapping[str, str], filesystem: Filesystem
) -> None:
    step = row_group_rows(like.kind)
    descriptor = filesystem.create(temporary)
    try:
        with open_writer(pa.PythonFile(_Sink(descriptor, filesystem), mode="w"), like.kind) as writer:
            waiting: list[pa.Table] = []
            count = 0
            for table in tables:
                waiting.append(table)
                count += table.num_rows
                if count >= step:
                    joined = pa.concat_tables(waiting)
                    whole = count - count % step
                    writer.write_table(joined.slice(0, whole), row_group_size=step)
                    waiting, count = [joined.slice(whole)], count - whole
            if count:
                writer.write_table(pa.concat_tables(waiting).combine_chunks(), row_group_size=step)
            writer.add_key_value_metadata(prefixed(facts))
        filesystem.fsync(descriptor)
    finally:
        filesystem.close(descriptor)


class _Sink:
    """A file for Arrow to write to, by the calls of the file system."""

    closed = False

    def __init__(self, descriptor: int, filesystem: Filesystem) -> None:
        self._descriptor, self._filesystem = descriptor, filesystem

    def write(self, data: bytes) -> int:
        write_all(self._filesystem, self._descriptor, data)
        return len(data)

    def flush(self) -> None:
        """Nothing waits here."""

    def close(self) -> None:
        self.closed = True
