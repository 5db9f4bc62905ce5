"""One pass of compaction and retention in a process of its own, which ends with its parent's: what ``harvest run`` starts.

The parent holds the lock of the data directory, and the other end of this process's standard input.
"""

from __future__ import annotations

import sys
import time

import msgspec

from harvest.parent import serve_parent
from harvest.storage.compaction.job import Job, work

if __name__ == "__main__":
    # A pass may end at any moment, and the next one completes it.
    serve_parent()
    print(msgspec.json.encode(work(msgspec.json.decode(sys.argv[1], type=Job), time.time_ns())).decode())
