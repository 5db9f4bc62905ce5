"""Raw capture in the collector's line format, a file an instrument: what ``ingest`` reads, and any other tool can."""

from __future__ import annotations

import gzip
from contextlib import ExitStack
from itertools import groupby
from typing import TYPE_CHECKING

import attrs

from harvest.errors import HarvestError
from harvest.pipeline.journal_records import decode_record
from harvest.pipeline.records import Frames, SnapshotBody
from harvest.storage.journal import FIRST_KIND, RunContents, list_raw, list_segments, read_segment
from harvest.storage.layout import encode_symbol
from harvest.venues import VENUES
from harvest.venues.blocks import payloads

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from pathlib import Path

    from harvest.storage.journal import SegmentFile
    from harvest.venues.protocol import Venue


class ExportExistsError(HarvestError):
    """A file that the export would make is there already."""

    def __init__(self, path: Path) -> None:
        self.path = path
        super().__init__(f"{path} is there already, and nothing is overwritten: name another directory")


class NoRawCaptureError(HarvestError):
    """There is nothing to be exported."""

    def __init__(self, root: Path) -> None:
        self.root = root
        super().__init__(f"{root} holds no raw capture: it is kept by `harvest run --keep-raw`")


@attrs.define(eq=False)
class Exported:
    """What was written: lines by file, in the order in which they were begun."""

    lines: dict[Path, int] = attrs.Factory(dict)


def export_raw(
    root: Path,
    out: Path,
    *,
    symbols: Collection[str] | None = None,
    from_ns: int | None = None,
    to_ns: int | None = None,
) -> Exported:
    """Write ``<out>/<venue>-<symbol>.txt.gz`` of everything that is kept of the streams, and of REST snapshots.

    ``symbols`` None exports all; ``from_ns`` is inclusive, ``to_ns`` is not. What was asked for over REST to close gaps of trades
    has no place in that format.

    Raises:
        NoRawCaptureError: nothing is kept.
        ExportExistsError: a file is there already; nothing is overwritten.
        JournalError: a later version of harvest wrote it.
    """
    segments = _once(list_raw(root) + list_segments(root))
    if not segments:
        raise NoRawCaptureError(root)
    out.mkdir(parents=True, exist_ok=True)
    exported = Exported()
    with ExitStack() as stack:
        files: dict[Path, gzip.GzipFile] = {}
        for venue, symbol, recv_ns, frame in _lines(segments):
            is_wanted = symbols is None or symbol in symbols
            if not is_wanted or recv_ns < (from_ns or 0) or (to_ns is not None and recv_ns >= to_ns):
                continue
            path = out / f"{venue}-{encode_symbol(symbol)}.txt.gz"
            if path not in files:
                if path.exists():
                    raise ExportExistsError(path)
                plain = stack.enter_context(path.open("xb"))
                files[path] = stack.enter_context(gzip.GzipFile(fileobj=plain, mode="wb"))
                exported.lines[path] = 0
            files[path].write(b"%d %s\n" % (recv_ns, frame.replace(b"\n", b" ")))
            exported.lines[path] += 1
    return exported


def _once(segments: list[SegmentFile]) -> list[SegmentFile]:
    """Leave out what is in the journal still, though it is kept already."""
    return list({(one.run, one.number): one for one in reversed(segments)}.values())[::-1]


def _lines(segments: list[SegmentFile]) -> Iterator[tuple[str, str, int, bytes]]:
    """Give venue, symbol, receive time and message of what was received, run after run."""
    by_run = sorted(segments, key=lambda one: (one.run, one.number))
    for _, of_run in groupby(by_run, lambda one: one.run):
        run = list(of_run)
        name, venue = _venue_of(run)
        for entry in RunContents(run):
            if entry.kind < FIRST_KIND:
                continue
            record = decode_record(entry)
            if isinstance(record, SnapshotBody):
                yield name, record.symbol, record.recv_ns, record.body
            elif isinstance(record, Frames):
                for frame in payloads(record.frames):
                    symbol = venue.symbol_of(frame)
                    if symbol is not None:
                        yield name, symbol, record.recv_ns, frame


def _venue_of(segments: list[SegmentFile]) -> tuple[str, Venue]:
    for segment in segments:
        header = read_segment(segment.path).header
        if header is not None and header.facts.get("venue") in VENUES:
            return header.venue, VENUES[header.facts["venue"]]
    raise HarvestError(f"no segment of run {segments[0].run} says of which venue it is")
