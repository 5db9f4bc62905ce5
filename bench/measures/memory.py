"""Memory of what waits for the disk, and bytes on it: by row."""

from __future__ import annotations

import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from bench.measures.found import Found
from bench.peers.load import SYMBOL, make, trades
from bench.ratios import Ratio
from harvest.metrics import Metrics
from harvest.pipeline.machine import Pipeline
from harvest.pipeline.records import Frames, SnapshotBody
from harvest.storage.parquet import Provenance, encode
from harvest.venues import VENUES

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Frames of a received block of 64 KiB.
BLOCK = 300


def pipeline(symbols: Sequence[str] = (SYMBOL,)) -> Pipeline:
    """Make a machine for the loads of the matches, or for others of these symbols."""
    return Pipeline(
        VENUES["binance-usdm"],
        metrics=Metrics(),
        levels=5,
        max_rows=10_000_000,
        max_pending_diffs=5000,
        resume_cvd=lambda _symbol, _day: 0,
        symbols=symbols,
        id_space="aggregate",
    )


def measure_memory(*, quick: bool) -> Found:
    """Count the bytes of buffered rows, in memory and as Parquet."""
    load = make("mix", 30_000 if quick else 150_000)
    machine = pipeline()
    now = time.time_ns()
    machine.feed(SnapshotBody(1, now, now, SYMBOL, load.snapshot))
    frames = load.frames(frozenset(stream for stream, _ in load.order))
    for seq, start in enumerate(range(0, len(frames), BLOCK), start=2):
        machine.feed(Frames(seq, now + seq, now + seq, "trade-1", frames[start : start + BLOCK]))
    figures: dict[str, float] = {}
    for table in machine.tables:
        if table.count:
            figures[f"{table.kind.name}: bytes a row in memory"] = table.size_bytes / table.count
    buffered = figures["prices: bytes a row in memory"]
    machine.tables.seal_all()
    provenance = Provenance("binance-usdm", "20260101T000000Z0000", trade_ids="aggregate")
    for sealed in machine.tables.take_sealed():
        figures[f"{sealed.kind.name}: bytes a row in Parquet"] = (
            encode(sealed, provenance).size_bytes / sealed.count
        )
    figures["RSS per million buffered trades, MiB"] = _resident_mib_of_a_million(quick=quick)
    ratio = Ratio("RAM of a buffered trade, bytes", buffered, 64, 51, lower_is_better=True)
    return Found("bytes by row", figures, [ratio])


def _resident_mib_of_a_million(*, quick: bool) -> float:
    """Buffer trades in a process of its own, made as they are fed."""
    command = [sys.executable, "-m", "bench.measures.memory", str(200_000 if quick else 1_000_000)]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=True)
    return float(done.stdout)


def _resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize()


def _buffer(count: int) -> float:
    machine, before = pipeline(), 0
    for seq, first in enumerate(range(0, count + BLOCK, BLOCK), start=1):
        machine.feed(Frames(seq, seq, seq, "trade-1", trades(BLOCK, first)))
        if seq == 1:
            before = _resident_bytes()
    return (_resident_bytes() - before) / count * 1e6 / 2**20


if __name__ == "__main__":
    print(_buffer(int(sys.argv[1])))
