"""One pass of compaction and retention in a process of its own, which ends with its parent's: what ``harvest run`` starts.

The parent holds the lock of the data directory, and the other end of this process's standard input.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from pathlib import Path

import msgspec

from harvest.storage.compaction.compactor import DAY_NS, Options, compact
from harvest.storage.retention import expire

#: Dates that a pass looks at which is not the first of its run: later ones than so many days back.
RECENT_DAYS = 3


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
    """Remove what is no longer kept, and compact what is."""
    done, root = Done(), Path(job.root)
    try:
        for one in expire(root, now_ns=now_ns, keep_days=job.keep_days, keep_bytes=job.keep_bytes):
            done.expired.append(f"{one.date}: {one.files} files, {one.bytes / 2**20:,.1f} MiB")
    except OSError as error:
        done.problems.append(f"cannot remove what is no longer kept: {error}")
    if job.max_rows is not None:
        since = None if job.is_first else now_ns // DAY_NS - RECENT_DAYS
        pass_ = compact(root, Options.at(now_ns, max_rows=job.max_rows, since_day=since))
        done.files_before, done.files_after = pass_.files_before, pass_.files_after
        done.rows, done.seconds = pass_.rows, pass_.seconds
        done.problems += pass_.problems
    return done


def _end_with_parent() -> None:
    sys.stdin.buffer.read()
    # Whatever it is at: a pass may end at any moment, and the next one completes it.
    os._exit(1)


if __name__ == "__main__":
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with contextlib.suppress(OSError, AttributeError):  # Not on Windows: then at the priority of the parent.
        os.nice(19)
    print(msgspec.json.encode(work(msgspec.json.decode(sys.argv[1], type=Job), time.time_ns())).decode())
