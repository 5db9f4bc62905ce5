"""`ingest` of the recordings, against the straightforward recorder that reads the same lines."""

from __future__ import annotations

import gzip
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from bench.measures.found import Found
from bench.measures.recordings import MISSING, ingested, recordings
from bench.peers.side_asyncio import Recorder
from bench.ratios import Ratio, of_medians

if TYPE_CHECKING:
    from collections.abc import Callable

TITLE = "ingest of the recordings"


def measure_ingest(*, quick: bool) -> Found:
    """Read the recordings in turn by both; harvest stores diffs, books and flow besides what the other stores."""
    files = recordings()
    if not files:
        return Found(f"{TITLE}; {MISSING}", {})
    lines = sum(_lines(path) for paths in files.values() for path in paths)
    rates: dict[str, list[float]] = {"harvest": [], "asyncio recorder": []}
    cpu: dict[str, list[float]] = {"harvest": [], "asyncio recorder": []}
    rows: dict[str, int] = {}
    sides: dict[str, Callable[[Path], int]] = {
        "harvest": lambda root: sum(ingested(files, root)),
        "asyncio recorder": lambda root: _record(files, root),
    }
    for _ in range(3 if quick else 5):
        for name, read in sides.items():
            with tempfile.TemporaryDirectory(prefix="harvest-bench-") as directory:
                begun, cpu_begun = time.perf_counter(), time.process_time()
                rows[name] = read(Path(directory) / "data")
                rates[name].append(lines / (time.perf_counter() - begun))
                cpu[name].append(lines / (time.process_time() - cpu_begun))
    figures = {"lines": float(lines)}
    for name, of_side in rates.items():
        figures |= {
            f"{name}: lines/s": median(of_side),
            f"{name}: lines a second of CPU": median(cpu[name]),
            f"{name}: rows/s": rows[name] * median(of_side) / lines,
        }
    value = of_medians(rates["harvest"], rates["asyncio recorder"])
    return Found(
        TITLE, figures, [Ratio("ingest, against the asyncio recorder reading the same lines", value, 4, 8)]
    )


def _lines(path: Path) -> int:
    with gzip.open(path) as file:
        return sum(1 for _ in file)


def _record(files: dict[str, list[Path]], root: Path) -> int:
    written = 0
    for venue, paths in files.items():
        recorders: dict[str, Recorder] = {}
        for path in paths:
            symbol = path.name.split("_")[2]
            recorder = recorders.setdefault(symbol, Recorder(root / venue / symbol))
            with gzip.open(path) as file:
                for line in file:
                    frame = line[20:]
                    if frame.startswith(b'{"stream"'):
                        recorder.take(frame)
                    else:
                        recorder.take_snapshot(frame)
        for recorder in recorders.values():
            recorder.write()
            written += recorder.written
    return written
