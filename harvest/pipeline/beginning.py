"""What a data directory holds when a run begins, and what was left undone in it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import attrs

from harvest.pipeline.dead_runs import dead_runs
from harvest.pipeline.resume import look_at_stored
from harvest.storage.journal import last_seq
from harvest.storage.parquet import warm_up
from harvest.storage.tables import DAY_US

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harvest.pipeline.dead_runs import DeadRun
    from harvest.pipeline.resume import Stored
    from harvest.settings import Settings


@attrs.frozen
class Beginning:
    """What the data directory holds when a run begins."""

    stored: Stored
    #: The first ``seq`` of the run: above that of every file, and of all that dead runs have journalled.
    next_seq: int
    #: Runs that have left records in the journal, of whatever venue: what is above is not all before they are recovered.
    dead_runs: list[DeadRun]


def look_around(settings: Settings, venue_name: str) -> Beginning:
    """Read what a run takes over. It blocks on the disk, so call it in a thread.

    Raises:
        JournalError: a later version of harvest has written the journal.
    """
    warm_up()
    root = settings.capture.output_dir
    stored = look(settings, venue_name, settings.capture.symbols)
    # The seq after a dead run's last record is that of its end, which recovery takes for it.
    journalled = last_seq(root)
    next_seq = max(stored.catalog.next_seq, journalled + 2 if journalled else 1)
    return Beginning(stored, next_seq, dead_runs(root))


def look(
    settings: Settings, venue_name: str, symbols: Sequence[str], *, before_seq: int | None = None
) -> Stored:
    """Read what is taken over of ``symbols`` from earlier runs, or from before a record. It blocks on the disk."""
    today = time.time_ns() // 1000 // DAY_US
    return look_at_stored(settings.capture.output_dir, venue_name, symbols, today, before_seq=before_seq)
