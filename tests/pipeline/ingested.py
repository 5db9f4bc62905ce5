"""Recordings written by hand, ingested, and read back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs
import pyarrow.parquet as pq

from harvest.pipeline.ingest import Ingest
from harvest.settings import Settings
from harvest.storage.catalog import scan

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from harvest.pipeline.summary import Summary

STAMP = 1_721_347_021_434_994_132


def write_recording(
    path: Path, frames: Iterable[bytes], *, start_ns: int = STAMP, step_ns: int = 1000
) -> Path:
    """Write a recording of one frame a line, ``step_ns`` apart."""
    path.write_bytes(
        b"".join(b"%d %s\n" % (start_ns + number * step_ns, frame) for number, frame in enumerate(frames))
    )
    return path


def settings_for(root: Path, venue: str = "binance-usdm", **changes: Any) -> Settings:
    """Make settings for an ingest into ``root``; ``changes`` are whole concerns, such as ``book``."""
    plain = Settings()
    return attrs.evolve(plain, capture=attrs.evolve(plain.capture, venue=venue, output_dir=root), **changes)


def ingest(paths: list[Path], root: Path, venue: str = "binance-usdm", **changes: Any) -> Summary:
    """Ingest recordings into ``root``."""
    return Ingest(paths, settings_for(root, venue, **changes)).run()


def stored(
    root: Path, kind: str, symbol: str, venue: str = "binance-usdm", day: int | None = None
) -> list[dict]:
    """Read all rows of a kind and symbol, of one date or of all, in the order in which they were received."""
    catalog = scan(root, venue)
    assert catalog.damage == []
    days = catalog.days(kind, symbol) if day is None else [day]
    rows = [
        row
        for one in days
        for file in catalog.files(kind, symbol, one)
        # Not by dataset: its directories would become columns.
        for row in pq.ParquetFile(file.path).read().to_pylist()
    ]
    rows.sort(key=lambda row: row["seq"])
    return rows


def contents(root: Path) -> dict[str, bytes]:
    """Return every file below ``root`` by its path from there."""
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}
