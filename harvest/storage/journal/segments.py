"""The files of the journal: ``_journal/<venue>/<run>-<number>-<first_seq>.journal``, and what the first entry of each says."""

from __future__ import annotations

import contextlib
import re
from typing import TYPE_CHECKING, Any

import attrs
import msgspec

from harvest.storage.filesystem import Filesystem
from harvest.storage.journal.entries import JournalError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

JOURNAL = "_journal"
SUFFIX = ".journal"
FORMAT = 1

_NAME = re.compile(r"(\d{8}T\d{6}Z[0-9a-f]{4})-(\d{6,})-(\d{1,19})\.journal(?:\.zst)?", re.ASCII)


class SegmentHeader(msgspec.Struct):
    """What a segment says of itself, as JSON. ``facts`` are the settings that decide rows.

    ``reached_seq`` is the greatest ``seq`` that the segments before it may hold: from ``first_seq`` on this one repeats them,
    for it was not known what of that was durable.
    """

    run: str
    venue: str
    number: int
    first_seq: int
    reached_seq: int
    facts: dict[str, Any]
    format: int = FORMAT


@attrs.frozen(order=True)
class SegmentFile:
    """One segment, as its name says. Those of a run sort by their number."""

    run: str
    number: int
    first_seq: int
    path: Path

    @property
    def size_bytes(self) -> int:
        """How large it is now."""
        return self.path.stat().st_size


def segment_name(run: str, number: int, first_seq: int) -> str:
    """Name a segment."""
    return f"{run}-{number:06}-{first_seq}{SUFFIX}"


def segment_file(path: Path) -> SegmentFile | None:
    """Read the name of a segment; None for a name that is not one."""
    match = _NAME.fullmatch(path.name)
    return match and SegmentFile(match[1], int(match[2]), int(match[3]), path)


def list_segments(root: Path, venue: str | None = None) -> list[SegmentFile]:
    """List the segments under a data directory, of one venue or of all, in the order in which they were begun."""
    paths = (root / JOURNAL).glob(f"{venue or '*'}/*{SUFFIX}")
    return sorted(segment for path in paths if (segment := segment_file(path)) is not None)


def remove_segments(segments: Iterable[SegmentFile], *, filesystem: Filesystem | None = None) -> None:
    """Remove segments, oldest first and durably; one that is not there any more is as good.

    One after the other, so that what a power cut leaves has no hole that looks like a loss.

    Raises:
        OSError: some of them are still there.
    """
    filesystem = filesystem or Filesystem()
    for segment in sorted(segments):
        with contextlib.suppress(FileNotFoundError):
            filesystem.unlink(segment.path)
            filesystem.fsync_directory(segment.path.parent)


def decode_header(path: Path, body: bytes) -> SegmentHeader:
    """Decode the body of a segment's first entry.

    Raises:
        JournalError: a later version of harvest wrote it.
    """
    try:
        header = msgspec.json.decode(body, type=SegmentHeader)
    except msgspec.DecodeError as error:
        raise JournalError(f"{path}: its header cannot be understood: {error}") from error
    if header.format > FORMAT:
        raise JournalError(
            f"{path}: journal format {header.format}, but this harvest knows {FORMAT}: read it with the version "
            f"that wrote it, or a later one"
        )
    return header
