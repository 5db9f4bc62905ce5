"""Trades that are missing between stored ones, and that nobody has found to be beyond reach: from the ledger, as of the files."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import pyarrow as pa

from harvest.storage.account import Entry, Span, entry_of_file
from harvest.storage.layout import date_text
from harvest.storage.ledger import page_path, read_page

if TYPE_CHECKING:
    from collections.abc import Iterable

    from harvest.storage.catalog import Catalog, StoredFile

#: Of a symbol; of more, the newest. A stream that breaks more often is not cured by REST.
MOST_GAPS = 1000
#: Reasons of breaks whose trades were asked for, and are not to be had.
_BEYOND_REACH = frozenset({"not_served", "refused"})


def open_gaps(
    catalog: Catalog, symbol: str, days: Iterable[int], *, before_seq: int | None = None
) -> list[tuple[int, int]]:
    """Return the trade ids that are missing between those stored of some dates, as (from, to), both inclusive, ascending.

    ``days`` are days since 1970-01-01, UTC, one after the other. What REST has not brought is left out, and so are files that
    go as far as ``before_seq``, or beyond. Where a file cannot be read, nothing is missing: it might be in it. It blocks on
    the disk, so call it in a thread.
    """
    stored: list[Span] = []
    beyond_reach: list[tuple[int, int]] = []
    for day in days:
        page = read_page(page_path(catalog.root, catalog.venue, symbol, date_text(day)))
        known = {(entry.kind, entry.name): entry for entry in page.entries}
        for kind in ("prices", "breaks"):
            for file in catalog.files(kind, symbol, day):
                if before_seq is not None and file.last_seq >= before_seq:
                    continue
                entry = known.get((kind, file.name)) or _entry_of(file)
                if entry is None:
                    return []
                stored += [*entry.ws, *entry.rest] if kind == "prices" else []
                beyond_reach += [
                    (gap.from_id, gap.to_id)
                    for gap in entry.missing
                    if gap.feed == "trade"
                    and gap.why in _BEYOND_REACH
                    and gap.from_id is not None
                    and gap.to_id is not None
                ]
        # What was removed to make room had been stored.
        expired = (entry for entry in page.entries if entry.expired_ns is not None)
        stored += [span for entry in expired if entry.kind == "prices" for span in (*entry.ws, *entry.rest)]
    held = sorted([(span.from_id, span.to_id) for span in stored] + beyond_reach)
    return _between(held)[-MOST_GAPS:]


def _between(held: list[tuple[int, int]]) -> list[tuple[int, int]]:
    gaps = []
    reached = held[0][1] if held else 0
    for _, (from_id, to_id) in pairwise(held):
        if from_id > reached + 1:
            gaps.append((reached + 1, from_id - 1))
        reached = max(reached, to_id)
    return gaps


def _entry_of(file: StoredFile) -> Entry | None:
    """Make the entry that the ledger does not have; None where the file does not say."""
    try:
        return entry_of_file(file.path)
    except (OSError, pa.ArrowException, LookupError, ValueError):
        return None
