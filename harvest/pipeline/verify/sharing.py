"""Series shared out over processes: this one and its children take the next largest, each as soon as it has done one.

A child only saves time. What it had in hand when it died is done here, where an error shows as it would without children.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import subprocess
import sys
import threading
from typing import IO, TYPE_CHECKING

from harvest.pipeline.verify.series import SeriesResult, verify_series

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from harvest.pipeline.verify.discovery import Series

#: What a child runs.
WORKER = "harvest.pipeline.verify.worker"
#: Between two reports of progress, while children alone work.
POLL_S = 0.1


def verify_all(
    root: Path, series: list[Series], jobs: int, on_bytes: Callable[[int], None]
) -> list[SeriesResult]:
    """Verify all series in ``jobs`` processes, of which this is one; ``on_bytes`` gets the bytes read by all so far."""
    work = _Work(root, series, on_bytes)
    children = [_Child(work) for _ in range(min(jobs, len(series)) - 1)]
    try:
        work.do_here()
        for child in children:
            child.end()
        # What a child left that died.
        work.do_here()
        work.report()
    finally:
        for child in children:
            child.kill()
    return [work.results[place] for place in range(len(series))]


def send(stream: IO[bytes], message: object) -> None:
    """Send a message to the other side, which takes it with ``pickle.load``."""
    pickle.dump(message, stream)
    stream.flush()


class _Work:
    """What is to be done and what was done; any thread may call it."""

    def __init__(self, root: Path, series: list[Series], on_bytes: Callable[[int], None]) -> None:
        self.root, self.series = root, series
        self.results: dict[int, SeriesResult] = {}
        self._on_bytes = on_bytes
        self._lock = threading.Lock()
        #: The largest is the last, and taken first, so that none is left over at the end.
        self._waiting = sorted(range(len(series)), key=lambda place: series[place].size_bytes)
        self._done_bytes = 0

    def take(self) -> int | None:
        """Take the place of the next series, None if none waits."""
        with self._lock:
            return self._waiting.pop() if self._waiting else None

    def give_back(self, place: int) -> None:
        """Let somebody else take it."""
        with self._lock:
            self._waiting.append(place)

    def count(self, size_bytes: int) -> None:
        """Take note of bytes that were read."""
        with self._lock:
            self._done_bytes += size_bytes

    def report(self) -> None:
        """Report the progress; for the thread of the caller alone."""
        self._on_bytes(self._done_bytes)

    def do_here(self) -> None:
        """Do what waits in this process."""
        while (place := self.take()) is not None:
            self.results[place] = verify_series(self.root, self.series[place], self._count_here)

    def _count_here(self, size_bytes: int) -> None:
        self.count(size_bytes)
        self.report()


class _Child:
    """A process that verifies series, and the thread that gives it the next one."""

    def __init__(self, work: _Work) -> None:
        self._work = work
        self._is_busy = False
        self._process = subprocess.Popen(
            [sys.executable, "-m", WORKER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            # A Ctrl-C at the terminal is the parent's to judge.
            start_new_session=os.name == "posix",
        )
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Wait until it has done what it has in hand; nothing more waits."""
        if not self._is_busy:
            # It may not even be up.
            self._process.kill()
        while self._thread.is_alive():
            self._thread.join(POLL_S)
            self._work.report()

    def kill(self) -> None:
        """End it, whatever it does."""
        self._process.kill()
        self._thread.join()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            # What it did not take any more goes nowhere.
            with contextlib.suppress(OSError):
                assert pipe is not None
                pipe.close()

    def _serve(self) -> None:
        work, process = self._work, self._process
        assert process.stdin is not None
        assert process.stdout is not None
        place, counted = None, 0
        try:
            send(process.stdin, work.root)
            while True:
                message = pickle.load(process.stdout)
                if isinstance(message, int):
                    work.count(message)
                    counted += message
                    continue
                if place is not None:
                    work.results[place] = message
                place, counted = work.take(), 0
                if place is None:
                    return
                self._is_busy = True
                send(process.stdin, work.series[place])
        except (OSError, EOFError, pickle.UnpicklingError):
            if place is not None:
                work.count(-counted)
                work.give_back(place)
        finally:
            process.kill()
