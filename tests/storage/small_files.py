"""Data directories of many small files, and their rows as one table."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from harvest.storage import ledger
from harvest.storage.files import DataDirectory
from harvest.storage.layout import parse_file_name
from harvest.storage.parquet import Provenance, encode
from tests.storage.rows import DAY, one_of_each, sealed_trades

if TYPE_CHECKING:
    from pathlib import Path

    from harvest.storage.tables import Sealed

RUNS = ("20261122T000000Z0001", "20261122T120000Z0002")
VENUE = "binance-usdm"


def publish(root: Path, sealed: Sealed, run: str = RUNS[0]) -> Path:
    """Publish sealed rows as a run would, with their entry in the ledger."""
    directory = DataDirectory(root)
    path = directory.path_of(sealed, venue=VENUE, run=run)
    encoded = encode(sealed, Provenance(VENUE, run, trade_ids="raw"))
    directory.publish(path, encoded.data)
    ledger.append(root, [ledger.entry_of_file(encoded.data, duplicates=1)])
    return path


def small_files(root: Path, count: int = 6, *, rows: int = 5, day: int = DAY) -> Path:
    """Publish ``count`` files of trades of one run; returns their directory."""
    for number in range(count):
        sealed = sealed_trades(rows, day=day, first_seq=1 + number * 10, first_id=100 + number * rows)
        path = publish(root, sealed)
    return path.parent


def every_kind(root: Path) -> None:
    """Publish two files of every kind."""
    for shift in (0, 100):
        for sealed in one_of_each():
            for place in range(1, len(sealed.marks), 4):
                sealed.marks[place] += shift
            moved = type(sealed)(
                sealed.kind, sealed.symbol, sealed.day, sealed.count, sealed.first_seq + shift,
                sealed.last_seq + shift, sealed.rows, sealed.marks, sealed.levels,
            )  # fmt: skip
            publish(root, moved)


def stored(directory: Path) -> pa.Table:
    """Read all rows of the files that readers see, file by file in the order of their first record."""
    names = sorted((parse_file_name(path.name).first_seq, path) for path in directory.glob("*.parquet"))
    return pa.concat_tables([pq.ParquetFile(path).read() for _, path in names])


def names(directory: Path) -> list[str]:
    """Return what is in a directory, hidden things too."""
    return sorted(path.name for path in directory.iterdir())
