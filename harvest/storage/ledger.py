"""The ledger: an account, beside the data, of what every file holds, and of what is known to be missing.

``_ledger/venue=…/symbol=…/date=….jsonl`` holds one JSON object a line, one line a data file. Lines are appended, forced to
the medium before ``append`` returns; a line that a crash has torn is passed over and named. Only compaction and retention
replace a page, at one stroke (``revise``). The data files alone are the truth: ``rebuild`` makes the ledger anew from them.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

import attrs
import msgspec
import pyarrow as pa

from harvest.storage.account import Entry, entry_of, entry_of_file
from harvest.storage.appending import append_lines
from harvest.storage.directories import make_directories
from harvest.storage.filesystem import Filesystem
from harvest.storage.flock import wait_for_lock
from harvest.storage.layout import (
    PRIVATE_PREFIX,
    SUFFIX,
    encode_symbol,
    parse_file_name,
)
from harvest.storage.replacing import replace_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

__all__ = [
    "Contents",
    "Entry",
    "append",
    "entry_of",
    "entry_of_file",
    "page_path",
    "pages",
    "read",
    "read_page",
    "rebuild",
    "revise",
]

LEDGER = "_ledger"


@attrs.frozen
class Contents:
    """Entries in the order in which they were appended, and one line for each thing that could not be read."""

    entries: list[Entry]
    problems: list[str]


def page_path(root: Path, venue: str, symbol: str, date: str) -> Path:
    """Return where the entries of one symbol and date are."""
    return root / LEDGER / f"venue={venue}" / f"symbol={encode_symbol(symbol)}" / f"date={date}.jsonl"


def append(root: Path, entries: Iterable[Entry], *, filesystem: Filesystem | None = None) -> None:
    """Append entries, durably. It blocks on the disk, so call it in a thread.

    Raises:
        OSError: some of them may be there, a part of one too; the next call goes on behind it.
    """
    filesystem = filesystem or Filesystem()
    pages: dict[Path, list[Entry]] = {}
    for entry in entries:
        pages.setdefault(page_path(root, entry.venue, entry.symbol, entry.date), []).append(entry)
    for path, of_page in pages.items():
        _append_lines(path, _encode(of_page), filesystem)


def read(root: Path) -> Contents:
    """Read the whole ledger, page by page in the order of their paths.

    Raises:
        OSError: a page cannot be read.
    """
    contents = Contents([], [])
    for path in pages(root):
        page = read_page(path)
        contents.entries.extend(page.entries)
        contents.problems.extend(page.problems)
    return contents


def pages(root: Path) -> list[Path]:
    """List the pages of the ledger, sorted."""
    return sorted((root / LEDGER).glob("venue=*/symbol=*/date=*.jsonl"))


def read_page(path: Path) -> Contents:
    """Read one page; what is not there is empty.

    Raises:
        OSError: it cannot be read.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return Contents([], [])
    contents = Contents([], [])
    lines = data.split(b"\n")
    torn = lines.pop()
    for number, line in enumerate(lines, start=1):
        try:
            if line:
                contents.entries.append(_decoder.decode(line))
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            contents.problems.append(f"{path}:{number}: no entry of a ledger, passed over ({error})")
    if torn:
        contents.problems.append(f"{path}:{len(lines) + 1}: torn by a crash, passed over")
    return contents


def revise(
    page: Path, change: Callable[[list[Entry]], list[Entry]], *, filesystem: Filesystem | None = None
) -> None:
    """Replace a page by what ``change`` makes of its entries, at once; who appends meanwhile waits. No page, no change.

    Raises:
        OSError: the page is as it was, or as it is to be.
    """
    filesystem = filesystem or Filesystem()
    if not page.exists():
        return
    with _locked(page, 0, filesystem):
        entries = read_page(page).entries
        changed = change(entries)
        if changed != entries:
            replace_file(page, _encode(changed), filesystem=filesystem)
        else:
            # An attempt before this one may have replaced it, and got no further.
            filesystem.fsync_directory(page.parent)


def rebuild(root: Path, *, filesystem: Filesystem | None = None) -> Contents:
    """Make the ledger anew from the data files alone, and return it. Call it while nobody writes.

    Pages are replaced one by one, each at once; what no file speaks of any more is removed, but for what has expired.
    Duplicates are in no file, and so are not counted. Files that cannot be read are named and left out.

    Raises:
        OSError: some pages are new, the others as they were.
    """
    filesystem = filesystem or Filesystem()
    rebuilt = Contents([], [])
    by_page: dict[Path, list[Path]] = {}
    for path in _data_files(root):
        venue, symbol, date = path.parts[-4:-1]
        by_page.setdefault(root / LEDGER / venue / symbol / f"{date}.jsonl", []).append(path)
    for page in pages(root):
        by_page.setdefault(page, [])
    for page, files in sorted(by_page.items()):
        entries = [entry for entry in read_page(page).entries if entry.expired_ns is not None]
        for path in files:
            try:
                entries.append(entry_of_file(path))
            except (OSError, pa.ArrowException, LookupError, ValueError) as error:
                rebuilt.problems.append(f"{path}: cannot be read: {error}")
        if not files and not entries:
            filesystem.unlink(page)
            continue
        entries.sort(key=lambda entry: (entry.first_seq, entry.last_seq, entry.kind))
        make_directories(page.parent, filesystem)
        replace_file(page, _encode(entries), filesystem=filesystem)
        rebuilt.entries.extend(entries)
    return rebuilt


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Entry)


def _encode(entries: Iterable[Entry]) -> bytes:
    return b"".join(_encoder.encode(entry) + b"\n" for entry in entries)


def _data_files(root: Path) -> Iterator[Path]:
    for path in sorted(root.glob(f"*/venue=*/symbol=*/date=*/*{SUFFIX}")):
        private = path.relative_to(root).parts[0].startswith(PRIVATE_PREFIX)
        if not private and parse_file_name(path.name) is not None:
            yield path


def _append_lines(path: Path, lines: bytes, filesystem: Filesystem) -> None:
    make_directories(path.parent, filesystem)
    with _locked(path, os.O_CREAT, filesystem) as descriptor:
        append_lines(path, descriptor, lines, filesystem)


@contextlib.contextmanager
def _locked(path: Path, flags: int, filesystem: Filesystem) -> Iterator[int]:
    """Open a page for as long as nobody else changes it; the page may be a new one when the waiting is over."""
    while True:
        descriptor = filesystem.open(path, flags)
        try:
            with contextlib.suppress(OSError):  # Where there are no locks, one process writes at a time.
                wait_for_lock(descriptor)
            if os.path.samestat(os.fstat(descriptor), os.stat(path)):
                yield descriptor
                return
        finally:
            filesystem.close(descriptor)
