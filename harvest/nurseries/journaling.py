"""The journal in a run: every record goes to it on the way to the pipeline, and what goes wrong with it is said aloud."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from harvest.log import get_logger
from harvest.pipeline.journal_records import encode_record

if TYPE_CHECKING:
    from harvest.pipeline.records import Record
    from harvest.storage.journal import Journal

log = get_logger("JOURNAL")

WATCH_S = 0.5
#: A trouble that lasts is said again this often.
REPEAT_S = 3600.0
#: What a file waits for its records, beyond the time between two syncs.
DURABLE_S = 1.0
#: What the end of a run waits for a disk that does not take the journal.
CLOSE_S = 5.0


class Journaling:
    """Keeps the records of a run, and watches how that goes. The rows go to Parquet whether or not it does."""

    def __init__(self, journal: Journal) -> None:
        self.refused = 0
        self._journal = journal
        self._is_refusing = False
        self._failures_seen = 0
        self._is_failing = False
        self._said_at = -float("inf")

    @property
    def held_bytes(self) -> int:
        """The memory of what is not on the disk yet."""
        return self._journal.held_bytes

    @property
    def trouble(self) -> str | None:
        """What is wrong with the journal now, for people; None if nothing is."""
        stats = self._journal.stats
        if stats.failing_s is None:
            return None
        held = f"{stats.held_bytes / 2**20:,.1f} MiB wait in memory"
        return f"cannot write {self._journal.directory}: {stats.why}; {held}, and it is tried again"

    def start(self) -> None:
        """Start the journal's threads; from then on what is taken gets to the disk."""
        self._journal.start()

    def take(self, record: Record) -> None:
        """Keep one record. It never waits: where the disk has fallen too far behind, the record is counted and let go."""
        taken = self._journal.append(*encode_record(record))
        if taken == self._is_refusing:
            self._is_refusing = not taken
            if taken:
                log.warning(
                    f"the disk has caught up; {self.refused:,} records are missing in the journal so far"
                )
            else:
                log.error(
                    f"{self.held_bytes / 2**20:,.0f} MiB wait for the disk, as much as may (buffer_bytes): until "
                    f"it has caught up, records are not in the journal, and a killed process would lose their rows"
                )
        if not taken:
            self.refused += 1

    def wait_durable(self, seq: int) -> None:
        """Wait until the records up to ``seq`` are on the medium, as long as a disk that works takes; call it in a thread.

        Files must not hold what the journal has lost: of what follows from one record, some would be stored, and some never. For a
        disk that is further behind than that nobody waits: better such a file than none.
        """
        limit_s = self._journal.sync_s + DURABLE_S
        if self._journal.stats.lag_s < limit_s:
            self._journal.wait_durable(seq, limit_s)

    async def run(self) -> None:
        """Look at the journal twice a second, until cancelled."""
        while True:
            self.watch()
            await trio.sleep(WATCH_S)

    def watch(self) -> None:
        """Say that the disk does not take the journal, from the first failure on, and when it does again."""
        self._journal.check()
        stats, now = self._journal.stats, trio.current_time()
        is_new = stats.failures > self._failures_seen and not self._is_failing
        is_lasting = stats.failing_s is not None and now - self._said_at >= REPEAT_S
        if is_new or is_lasting:
            self._is_failing = True
            self._said_at = now
            log.error(
                f"cannot write {self._journal.directory}: {stats.why}; what is received waits in memory, and it is tried "
                f"again",
                why=stats.why,
                held_bytes=stats.held_bytes,
            )
        if self._is_failing and stats.failing_s is None:
            self._is_failing = False
            log.warning(
                f"the disk takes the journal again, and nothing of it is lost ({stats.failures:,} failures)"
            )
        self._failures_seen = stats.failures

    def hurry(self) -> None:
        """Bring to the disk at once what comes from here on; call it at the end."""
        self._journal.hurry()

    async def release(self, before_seq: int) -> int:
        """Remove the segments that end before ``before_seq``, but never the newest; returns how many.

        Raises:
            OSError: some are there still; call again.
        """
        return len(await trio.to_thread.run_sync(self._journal.release, before_seq))

    async def close(self) -> None:
        """Bring what waits to the disk, within a deadline of its own, and name what is not there."""
        with trio.CancelScope(shield=True):
            left = await trio.to_thread.run_sync(self._journal.close, CLOSE_S)
        if left is not None:
            log.error(
                f"the disk did not take the journal within {CLOSE_S:g}s: seq {left[0]} to {left[1]} is not in it",
                first_seq=left[0],
                last_seq=left[1],
            )

    async def end(self, *, is_committed: bool) -> None:
        """Remove the run's segments if all of its rows are in files; else say where they stay. Call it after ``close``."""
        if not is_committed:
            log.warning(
                f"not all rows are in files; what they come from stays in {self._journal.directory}, for the next run or "
                f"`harvest recover`"
            )
            return
        try:
            await trio.to_thread.run_sync(self._journal.discard)
        except OSError as error:
            log.error(f"cannot remove what is committed from {self._journal.directory}: {error.strerror}")
