"""The recordings that some measures read; they are not part of the project."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from bench.verify_faults import FILES
from harvest.pipeline.ingest import Ingest
from harvest.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator

DIRECTORY = Path(__file__).resolve().parents[3] / "shared" / "recordings"
MISSING = f"left out: no recordings in {DIRECTORY}"


def recordings() -> dict[str, list[Path]]:
    """Return the files by venue, in their order; none where they are not there."""
    found = {venue: [DIRECTORY / name for name in names] for venue, names in FILES.items()}
    return found if all(path.exists() for paths in found.values() for path in paths) else {}


def copies(files: dict[str, list[Path]], count: int, directory: Path) -> dict[str, list[Path]]:
    """Write each recording ``count`` times, each time as one of another instrument; returns the files by venue."""
    made: dict[str, list[Path]] = {}
    for venue, paths in files.items():
        for path in paths:
            symbol = path.name.split("_")[2].encode()
            lines = gzip.decompress(path.read_bytes())
            for number in range(count):
                other = b"%s%d" % (symbol, number)
                copy = directory / f"{number}_{path.name.removesuffix('.gz')}"
                copy.write_bytes(
                    lines.replace(symbol, other).replace(symbol.upper(), other.upper()) if number else lines
                )
                made.setdefault(venue, []).append(copy)
    return made


def ingested(files: dict[str, list[Path]], root: Path) -> Iterator[int]:
    """Ingest the files of each venue into ``root``; gives the rows of each."""
    plain = Settings()
    for venue, paths in files.items():
        capture = attrs.evolve(plain.capture, venue=venue, output_dir=root)
        yield sum(Ingest(paths, attrs.evolve(plain, capture=capture)).run().rows.values())
