"""The ledger after a compaction: the entries of the files that went into a compacted one give way to its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from harvest.storage import ledger
from harvest.storage.layout import decode_symbol, file_name
from harvest.storage.sources import intervals_of_file, is_replaced

if TYPE_CHECKING:
    from harvest.storage.account import Entry
    from harvest.storage.compaction.swap import Place
    from harvest.storage.layout import FileName


def bring_ledger_up(place: Place) -> None:
    """Make the entries of one kind and date those of the files that are there; what a file lost is still named.

    Raises:
        OSError: a file or the page cannot be read or written.
        pa.ArrowException: a compacted file cannot be read.
        LookupError: its metadata are not those of harvest.
        ValueError: the same.
    """
    kind, venue, symbol, date = place.relative.parts
    compacted = {
        name: frozenset(intervals_of_file(place.live / file_name(*name), name))
        for name in place.names()
        if name.generation
    }
    if not compacted:
        return
    page = ledger.page_path(
        place.root,
        venue.removeprefix("venue="),
        decode_symbol(symbol.removeprefix("symbol=")),
        date.removeprefix("date="),
    )
    there = set(place.names())

    def change(entries: list[Entry]) -> list[Entry]:
        gone = [
            entry
            for entry in entries
            if entry.kind == kind and entry.name not in there and is_replaced(entry.name, compacted.items())
        ]
        known = {entry.name for entry in entries if entry.kind == kind}
        added = [_entry(place, name, gone) for name in compacted if name not in known]
        names = {entry.name for entry in gone}
        return [entry for entry in entries if entry.kind != kind or entry.name not in names] + added

    ledger.revise(page, change, filesystem=place.filesystem)


def _entry(place: Place, name: FileName, gone: list[Entry]) -> Entry:
    entry = ledger.entry_of_file(place.live / file_name(*name))
    counts = [
        one.duplicates for one in gone if name.first_seq <= one.first_seq and one.last_seq <= name.last_seq
    ]
    duplicates = None if None in counts or not counts else sum(count or 0 for count in counts)
    return msgspec.structs.replace(entry, duplicates=duplicates)
