"""What a run asks of the process that compacts for it, and what that answers."""

from __future__ import annotations

from pathlib import Path

import attrs
import msgspec

from harvest.storage.compaction.compactor import DAY_NS, Options, compact
from harvest.storage.retention import expire

#: Dates that a pass looks at which is not the first of its run: later ones than so many days back.
RECENT_DAYS = 3
#: Later than any date.
NEVER = 2**31


class Job(msgspec.Struct, frozen=True):
    """What the parent asks for."""

    root: str
    #: None compacts nothing.
    max_rows: int | None
    keep_days: int | None
    keep_bytes: int | None
    is_first: bool


class Done(msgspec.Struct):
    """What the process prints, as one line."""

    files_before: int = 0
    files_after: int = 0
    rows: int = 0
    seconds: float = 0.0
    problems: list[str] = []
    expired: list[str] = []


def work(job: Job, now_ns: int) -> Done:
    """Compact what is to be compacted, then remove what is no longer kept."""
    done, root = Done(), Path(job.root)
    # Also where nothing is to be compacted: what a crash has left must be through before its date may expire.
    since = NEVER if job.max_rows is None else None if job.is_first else now_ns // DAY_NS - RECENT_DAYS
    options = Options.at(now_ns, since_day=since)
    compaction = compact(
        root, options if job.max_rows is None else attrs.evolve(options, max_rows=job.max_rows)
    )
    done.files_before, done.files_after = compaction.files_before, compaction.files_after
    done.rows, done.seconds = compaction.rows, compaction.seconds
    done.problems += compaction.problems
    try:
        for one in expire(root, now_ns=now_ns, keep_days=job.keep_days, keep_bytes=job.keep_bytes):
            done.expired.append(f"{one.date}: {one.files} files, {one.bytes / 2**20:,.1f} MiB")
    except OSError as error:
        done.problems.append(f"cannot remove what is no longer kept: {error}")
    return done
