"""A process that works for another one: it yields to everybody, and ends when its parent does."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import threading
from multiprocessing.connection import wait

#: Of a child whose parent has ended.
EXIT_ORPHANED = 1


def serve_parent() -> None:
    """Yield to everybody from here on, and end with the process that holds the other end of our standard input.

    The end comes whatever is being done: only work that the next process can go on with may be given to such a child.
    """
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with contextlib.suppress(OSError, AttributeError):  # Not on Windows: then at the priority of the parent.
        os.nice(19)


def end_with_parent_process() -> None:
    """End with the process that has started this one through ``multiprocessing``, at whatever priority; otherwise as ``serve_parent``."""
    threading.Thread(target=_end_with_parent_process, daemon=True).start()


def _end_with_parent_process() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(EXIT_ORPHANED)


def _end_with_parent() -> None:
    # Not through sys.stdin, whose lock this thread would hold when the process ends by itself.
    while os.read(0, 4096):
        pass
    os._exit(EXIT_ORPHANED)
