"""Memory of what waits for the disk, and bytes on it: by row."""

from __future__ import annotations

import time

from bench.measures.found import Found
from bench.peers.load import SNAPSHOT_ID, SYMBOL, make
from bench.ratios import Ratio
from harvest.metrics import Metrics
from harvest.pipeline.machine import Pipeline
from harvest.pipeline.records import Frames, SnapshotBody
from harvest.storage.parquet import Provenance, encode
from harvest.venues import VENUES

#: Frames of a received block of 64 KiB.
BLOCK = 300


def pipeline() -> Pipeline:
    """Make a machine for the loads of the matches."""
    return Pipeline(
        VENUES["binance-usdm"],
        metrics=Metrics(),
        levels=5,
        max_rows=10_000_000,
        max_pending_diffs=5000,
        resume_cvd=lambda _symbol, _day: 0,
        symbols=[SYMBOL],
        id_space="aggregate",
    )


def measure_memory(*, quick: bool) -> Found:
    """Count the bytes of buffered rows, in memory and as Parquet."""
    load = make("mix", 30_000 if quick else 150_000)
    machine = pipeline()
    now = time.time_ns()
    machine.feed(SnapshotBody(1, now, now, SYMBOL, load.snapshot))
    assert SNAPSHOT_ID
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
    ratio = Ratio("RAM of a buffered trade, bytes", buffered, 64, 51, lower_is_better=True)
    return Found("bytes by row", figures, [ratio])
