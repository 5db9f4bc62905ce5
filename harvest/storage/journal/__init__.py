"""The journal: what was received, in append-only files beside the rows, so that nothing depends on a process that lives on.

``Journal`` appends; ``read_run`` reads what a run left. What an entry's body means is its writer's affair.
"""

from __future__ import annotations

from harvest.storage.journal.damage import keep_damage
from harvest.storage.journal.entries import FIRST_KIND, LOST, Entry, JournalError, decode_lost
from harvest.storage.journal.journal import Journal, JournalStats
from harvest.storage.journal.raw import RAW, keep_raw, list_raw
from harvest.storage.journal.reading import (
    Damage,
    RunContents,
    SegmentContents,
    last_seq,
    read_header,
    read_run,
    read_run_from,
    read_segment,
)
from harvest.storage.journal.segments import (
    JOURNAL,
    SegmentFile,
    SegmentHeader,
    list_segments,
    remove_segments,
)

__all__ = [
    "FIRST_KIND",
    "JOURNAL",
    "LOST",
    "RAW",
    "Damage",
    "Entry",
    "Journal",
    "JournalError",
    "JournalStats",
    "RunContents",
    "SegmentContents",
    "SegmentFile",
    "SegmentHeader",
    "decode_lost",
    "keep_damage",
    "keep_raw",
    "last_seq",
    "list_raw",
    "list_segments",
    "read_header",
    "read_run",
    "read_run_from",
    "read_segment",
    "remove_segments",
]
