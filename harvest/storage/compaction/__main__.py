"""One pass of compaction and retention in a process of its own, which ends with its parent's: what ``harvest run`` starts.

The parent holds the lock of the data directory, and the other end of this process's standard input.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time

import msgspec

from harvest.storage.compaction.job import Job, work


def _end_with_parent() -> None:
    sys.stdin.buffer.read()
    # Whatever it is at: a pass may end at any moment, and the next one completes it.
    os._exit(1)


if __name__ == "__main__":
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with contextlib.suppress(OSError, AttributeError):  # Not on Windows: then at the priority of the parent.
        os.nice(19)
    print(msgspec.json.encode(work(msgspec.json.decode(sys.argv[1], type=Job), time.time_ns())).decode())
