"""Segments that are kept as raw capture when nothing needs them any more: compressed, under ``_raw``, each as it was."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pyarrow as pa

from harvest.storage.directories import make_directories
from harvest.storage.filesystem import Filesystem
from harvest.storage.journal.segments import segment_file
from harvest.storage.replacing import replace_file

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from harvest.storage.journal.segments import SegmentFile

RAW = "_raw"
#: After the name that the segment had.
RAW_SUFFIX = ".zst"


def keep_raw(root: Path, segments: Iterable[SegmentFile], *, filesystem: Filesystem | None = None) -> None:
    """Put segments that are closed into ``<root>/_raw/<venue>/date=…/``, by the date on which they ended, compressed and durably.

    They stay in the journal too: remove them afterwards. One that is there already is not written again. It blocks on the disk.

    Raises:
        OSError: some of them are not there; call again.
    """
    filesystem = filesystem or Filesystem()
    for segment in segments:
        if not filesystem.exists(segment.path):
            continue
        ended = datetime.fromtimestamp(segment.path.stat().st_mtime, UTC)
        directory = root / RAW / segment.path.parent.name / f"date={ended:%Y-%m-%d}"
        path = directory / f"{segment.path.name}{RAW_SUFFIX}"
        if filesystem.exists(path):
            continue
        make_directories(directory, filesystem)
        sink = pa.BufferOutputStream()
        with pa.CompressedOutputStream(sink, "zstd") as packed:
            packed.write(filesystem.read(segment.path))
        replace_file(path, memoryview(sink.getvalue()).cast("B"), filesystem=filesystem)


def list_raw(root: Path, venue: str | None = None) -> list[SegmentFile]:
    """List the segments that are kept as raw capture, of one venue or of all, in the order in which they were begun."""
    paths = (root / RAW).glob(f"{venue or '*'}/date=*/*{RAW_SUFFIX}")
    return sorted(segment for path in paths if (segment := segment_file(path)) is not None)


def read_bytes(path: Path, size: int = -1) -> bytes:
    """Read a segment, compressed or not; no more than its first ``size`` bytes, if that is not negative."""
    with path.open("rb") as file:
        if path.suffix != RAW_SUFFIX:
            return file.read(size)
        data = file.read()
    with pa.CompressedInputStream(pa.BufferReader(data), "zstd") as packed:
        unpacked: bytes = packed.read() if size < 0 else packed.read(size)
    return unpacked
