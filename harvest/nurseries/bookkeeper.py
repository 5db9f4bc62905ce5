"""Keeps the ledger while a run goes on: an entry for each published file, beside the data."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from harvest.log import get_logger
from harvest.storage import ledger

if TYPE_CHECKING:
    from pathlib import Path

    from harvest.storage.filesystem import Filesystem
    from harvest.storage.parquet import EncodedFile


class Bookkeeper:
    """Appends to the ledger of ``root``. Threads may share it, for a line is appended at one stroke."""

    def __init__(self, root: Path, *, filesystem: Filesystem | None = None) -> None:
        self._root, self._filesystem = root, filesystem
        self._log = get_logger("LEDGER")
        #: What could not be entered so far.
        self._waiting: deque[ledger.Entry] = deque()
        self.failures = 0

    def enter(self, file: EncodedFile) -> None:
        """Enter a published file; it blocks on the disk. The file stands without its entry too: ``verify`` says so."""
        self._waiting.append(ledger.entry_of_file(file.data))
        self.flush()

    def flush(self) -> bool:
        """Enter what could not be entered before, too; it blocks on the disk. Returns False where some of it waits still."""
        while self._waiting:
            try:
                entry = self._waiting.popleft()
            except IndexError:
                break  # Another thread was faster.
            try:
                ledger.append(self._root, [entry], filesystem=self._filesystem)
            except OSError as error:
                self._waiting.appendleft(entry)
                self.failures += 1
                if self.failures == 1:
                    self._log.error(
                        f"cannot append to the ledger: {error.strerror}; the files are whole, and their entries "
                        f"are tried again"
                    )
                return False
        return True
