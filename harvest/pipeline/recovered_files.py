"""The files of a recovery: only what no file holds, each read back, each in the ledger."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import pyarrow as pa

from harvest.pipeline.missing_cvd import UnreadablePricesError, missing_cvd
from harvest.storage import ledger
from harvest.storage.layout import date_text
from harvest.storage.parquet import encode
from harvest.storage.remainder import uncommitted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harvest.storage.catalog import Catalog, StoredFile
    from harvest.storage.files import DataDirectory
    from harvest.storage.parquet import Provenance
    from harvest.storage.tables import Sealed


class RecoveredFiles:
    """Publishes rows under the id of a dead run, into directories that may hold a part of them.

    ``rows`` and ``rows_held`` count, by kind, what was published, and what was there already.
    """

    def __init__(
        self,
        directory: DataDirectory,
        catalog: Catalog,
        provenance: Provenance,
        rows: dict[str, int],
        rows_held: dict[str, int],
    ) -> None:
        self.count = 0
        self.problems: list[str] = []
        self._directory, self._catalog = directory, catalog
        self._provenance = attrs.evolve(provenance, extra={**provenance.extra, "recovered": "true"})
        self._rows, self._rows_held = rows, rows_held
        #: Of what was published, to be appended to the ledger together.
        self._entries: list[ledger.Entry] = []

    def write(self, sealed: Sealed) -> None:
        """Publish the rows that no file of their directory covers.

        Raises:
            OSError: as ``DataDirectory.publish`` says.
            UnreadableFileError: it does not read back as it was written.
        """
        kind = sealed.kind.name
        committed = self._catalog.committed(kind, sealed.symbol, sealed.day)
        parts = uncommitted(sealed, committed)
        count = sum(part.count for part in parts)
        self._rows[kind] = self._rows.get(kind, 0) + count
        self._rows_held[kind] = self._rows_held.get(kind, 0) + sealed.count - count
        for part in parts:
            self._publish(part)

    def derive_cvd(self, before_seq: int | None = None) -> None:
        """Publish the rows of ``cvd`` that follow from the ``prices`` of the run, and of those after it, and are in no file.

        ``before_seq`` leaves out ``prices`` from that record on: they are those of a run that goes on, or is not whole yet.

        Raises: as ``write``.
        """
        first_days: dict[str, int] = {}
        for symbol, day in self._dates("prices"):
            first_days.setdefault(symbol, day)
        for symbol, first_day in first_days.items():
            for day in self._catalog.days("prices", symbol):
                if day < first_day:
                    continue
                try:
                    for sealed in missing_cvd(self._catalog, symbol, day, before_seq=before_seq):
                        self.write(sealed)
                except UnreadablePricesError as error:
                    self.problems.append(str(error))

    def last_trade_id(self, symbol: str, before_seq: int) -> int | None:
        """Return the greatest id of ``symbol`` that is stored from before that record."""
        return self._catalog.last_trade_id(symbol, before_seq=before_seq)

    def enter(self) -> None:
        """Append the entries of what was published so far.

        Raises:
            OSError: the ledger cannot be written; ``complete_ledger`` does what is left.
        """
        ledger.append(self._directory.root, self._entries, filesystem=self._directory.filesystem)
        self._entries.clear()

    def complete_ledger(self) -> None:
        """Append an entry for each file of the run that has none.

        Raises:
            OSError: the ledger cannot be read or written.
        """
        self.enter()
        root, venue = self._directory.root, self._provenance.venue
        filesystem = self._directory.filesystem
        for kind in self._catalog.kinds():
            for symbol, day in self._dates(kind):
                page = ledger.read_page(ledger.page_path(root, venue, symbol, date_text(day)))
                known = {(entry.kind, entry.file_name) for entry in page.entries}
                files = [
                    file for file in self._of_run(kind, symbol, day) if (kind, file.path.name) not in known
                ]
                ledger.append(root, filter(None, map(self._account, files)), filesystem=filesystem)

    def _publish(self, sealed: Sealed) -> None:
        provenance = self._provenance
        path = self._directory.path_of(sealed, venue=provenance.venue, run=provenance.run)
        encoded = encode(sealed, provenance)
        self._directory.publish(path, encoded.data)
        self._directory.read_back(path, encoded.data)
        self._catalog.add(sealed.kind.name, sealed.symbol, sealed.day, path)
        self._entries.append(ledger.entry_of_file(encoded.data))
        self.count += 1

    def _account(self, file: StoredFile) -> ledger.Entry | None:
        try:
            return ledger.entry_of_file(file.path)
        except (OSError, pa.ArrowException, LookupError, ValueError) as error:
            self.problems.append(f"{file.path}: cannot be read: {error}")
            return None

    def _dates(self, kind: str) -> Iterator[tuple[str, int]]:
        """Give the symbols and dates of a kind that the run has files of."""
        for symbol in self._catalog.symbols(kind):
            for day in self._catalog.days(kind, symbol):
                if self._of_run(kind, symbol, day):
                    yield symbol, day

    def _of_run(self, kind: str, symbol: str, day: int) -> list[StoredFile]:
        return [file for file in self._catalog.files(kind, symbol, day) if file.run == self._provenance.run]
