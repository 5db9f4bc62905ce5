"""What an ingest that did not come to its end has published: it is removed when the same recordings are ingested again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from harvest.storage import ledger
from harvest.storage.filesystem import Filesystem
from harvest.storage.layout import date_text
from harvest.storage.parquet import read_facts

if TYPE_CHECKING:
    from pathlib import Path

    from harvest.storage.catalog import Catalog

#: What the files of an ingest say of the recordings that they were made of.
DIGEST = "ingest_digest"


def remove_unfinished(
    catalog: Catalog, run: str, digest: str, *, filesystem: Filesystem | None = None
) -> bool:
    """Remove the files of an ingest that has not ended, and return whether it was one; else nothing is removed.

    It has not ended where the ledger knows none of its files, for that gets all of them at the end. All of them must say that
    they were made of the very recordings of ``digest``: they are made again.

    Raises:
        OSError: the ledger cannot be read, or a file not be removed; then the rest is left as it is.
    """
    paths = []
    for kind in catalog.kinds():
        for symbol in catalog.symbols(kind):
            for day in catalog.days(kind, symbol):
                files = [file.path for file in catalog.files(kind, symbol, day) if file.run == run]
                page = ledger.page_path(catalog.root, catalog.venue, symbol, date_text(day))
                if files and any(entry.run == run for entry in ledger.read_page(page).entries):
                    return False
                paths += files
    # Where there are none, they were compacted.
    if not paths or not all(_is_of(path, digest) for path in paths):
        return False
    filesystem = filesystem or Filesystem()
    for path in paths:
        filesystem.unlink(path)
    return True


def _is_of(path: Path, digest: str) -> bool:
    try:
        return read_facts(pq.read_metadata(path).metadata).get(DIGEST) == digest
    except (OSError, pa.ArrowException):
        return False
