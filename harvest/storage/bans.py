"""A ban by the venue outlives the process: asked again too early, it grows. So it is remembered beside the data."""

from __future__ import annotations

import json
import os
import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

#: No venue bans for longer than three days; a file that says more is not believed.
LONGEST_NS = 4 * 86_400 * 10**9


class Bans:
    """The bans of REST hosts, in ``<root>/_bans.json``: when each is over, in UTC nanoseconds.

    Several threads may call it: requests that were under way together are refused together.
    """

    def __init__(self, root: Path) -> None:
        self._path = root / "_bans.json"
        self._writing = threading.Lock()

    def remember(self, host: str, until_ns: int) -> None:
        """Remember that ``host`` is not to be asked before ``until_ns``; it blocks on the disk.

        Raises:
            OSError: it could not be written.
        """
        with self._writing:
            self._remember(host, until_ns)

    def _remember(self, host: str, until_ns: int) -> None:
        now_ns = time.time_ns()
        believed = range(now_ns, now_ns + LONGEST_NS)
        bans = {known: until for known, until in self._read().items() if until in believed}
        bans[host] = max(until_ns, bans.get(host, 0))
        self._path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self._path.with_name(f".{self._path.name}.tmp")
        with temporary.open("w", encoding="utf-8") as file:
            json.dump(bans, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self._path)

    def seconds_left(self, host: str, now_ns: int) -> float:
        """Return for how long ``host`` is not to be asked; 0 where no ban is known, or the file cannot be read."""
        until_ns = self._read().get(host, 0)
        left_ns = until_ns - now_ns
        return left_ns / 1e9 if 0 < left_ns <= LONGEST_NS else 0.0

    def _read(self) -> dict[str, int]:
        try:
            stored = json.loads(self._path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}  # None is known; at worst the venue says so again.
        if not isinstance(stored, dict):
            return {}
        return {host: until for host, until in stored.items() if isinstance(until, int)}
