"""How fast a dead run's records become rows again: ``python -m bench.recovery RECORDING … [--jobs 2] [--block 10]``.

The recordings (USD-M, the collector's line format, one symbol a file) are spliced by their receive times into one run, whose
blocks hold ``--block`` frames; nothing of it is in files. With ``--jobs`` processes share the symbols, as a recovery may.
"""

from __future__ import annotations

import argparse
import heapq
import multiprocessing
import resource
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from harvest.metrics import Metrics
from harvest.pipeline.machine import Pipeline
from harvest.pipeline.recordings import Line, in_order, read
from harvest.pipeline.records import Checkpoint, Frames, SnapshotBody
from harvest.pipeline.recover import RunFacts, recover
from harvest.storage.catalog import scan
from harvest.storage.files import DataDirectory
from harvest.storage.parquet import Provenance
from harvest.venues import VENUES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harvest.pipeline.records import Record

VENUE = VENUES["binance-usdm"]
FACTS = RunFacts(levels=5, max_pending_diffs=5000, patience_s=0.2, id_space="raw")
RUN = "20240718T235900Z0001"


def spliced(paths: list[Path], block: int) -> list[Record]:
    """Make the records of one run; bookTicker, which nobody records, is left out."""
    recordings = in_order(paths)
    symbols = [recording.symbols[0] for recording in recordings]
    empty = Pipeline(
        VENUE, metrics=Metrics(), levels=5, max_rows=1, max_pending_diffs=1, resume_cvd=None, symbols=symbols
    )
    records: list[Record] = []
    for symbol in dict.fromkeys(symbols):
        seq = len(records) + 1
        records.append(Checkpoint(seq, 0, 0, symbol, 1, len(symbols), empty.checkpoint(symbol)))
    frames: list[bytes] = []
    every = (_lines(recording.path, symbol) for recording, symbol in zip(recordings, symbols, strict=True))
    for line, symbol in heapq.merge(*every, key=lambda one: one[0].recv_ns):
        at = len(records) + 1, line.recv_ns, line.recv_ns
        if line.is_snapshot:
            records.append(SnapshotBody(*at, symbol, line.frame))
        elif b"@bookTicker" not in line.frame:
            frames.append(line.frame)
            if len(frames) == block:
                records.append(Frames(*at, "spliced-1", frames))
                frames = []
    return records


def _lines(path: Path, symbol: str) -> Iterator[tuple[Line, str]]:
    with path.open("rb") as file:
        for line in read(file):
            yield line, symbol


def recover_share(root: Path, records: list[Record], symbols: list[str]) -> str:
    """Recover some symbols in a process of their own; returns what it took."""
    began, began_cpu = time.monotonic(), time.process_time()
    report = recover(
        records,
        venue=VENUE,
        facts=FACTS,
        catalog=scan(root, VENUE.name),
        directory=DataDirectory(root),
        provenance=Provenance(VENUE.name, RUN, trade_ids="raw"),
        symbols=symbols,
    )
    seconds, cpu = time.monotonic() - began, time.process_time() - began_cpu
    rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    rows = sum(report.rows.values())
    return f"{','.join(symbols)}: {rows:,} rows in {seconds:.2f}s (CPU {cpu:.2f}s), RSS {rss:.0f} MiB"


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recordings", nargs="+", type=Path)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--block", type=int, default=10)
    arguments = parser.parse_args()
    records = spliced(arguments.recordings, arguments.block)
    frames = [frame for record in records if isinstance(record, Frames) for frame in record.frames]
    size_mb = sum(map(len, frames)) / 1e6
    symbols = sorted({record.symbol for record in records if isinstance(record, Checkpoint)})
    shares = [share for job in range(arguments.jobs) if (share := symbols[job :: arguments.jobs])]
    with tempfile.TemporaryDirectory() as directory:
        began = time.monotonic()
        # Forked, they have the records already.
        with multiprocessing.get_context("fork").Pool(len(shares)) as pool:
            took = pool.starmap(recover_share, [(Path(directory), records, share) for share in shares])
        seconds = time.monotonic() - began
    for line in took:
        print(line)
    print(
        f"{len(records):,} records, {len(frames):,} frames, {size_mb:.1f} MB in {seconds:.2f}s: "
        f"{len(frames) / seconds:,.0f} frames/s, {size_mb / seconds:.1f} MB/s, 1 GB in {1000 / size_mb * seconds:.0f}s"
    )


if __name__ == "__main__":
    main()
