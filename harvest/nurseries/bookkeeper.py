"""Keeps the ledger while a run goes on: an entry for each published file, beside the data."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harvest.log import get_logger
from harvest.storage import ledger

if TYPE_CHECKING:
    from pathlib import Path

    from harvest.storage.parquet import EncodedFile


class Bookkeeper:
    """Appends to the ledger of ``root``. Threads may share it, for a line is appended at one stroke."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._log = get_logger("LEDGER")
        #: What could not be entered so far: it goes with the next one.
        self._waiting: list[ledger.Entry] = []
        self.failures = 0

    def enter(self, file: EncodedFile) -> None:
        """Enter a published file; it blocks on the disk. The file stands without its entry too: ``verify`` says so."""
        entries, self._waiting = [*self._waiting, ledger.entry_of_file(file.data)], []
        try:
            ledger.append(self._root, entries)
        except OSError as error:
            self.failures += 1
            self._waiting += entries
            if self.failures == 1:
                self._log.error(
                    f"cannot append to the ledger: {error.strerror}; the files are whole, and their entries "
                    f"are tried again with the next one"
                )
