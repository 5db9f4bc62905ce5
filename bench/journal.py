"""What the journal costs: an append in the receiving loop, and how fast its threads bring it to the disk.

python -m bench.journal --directory . --seconds 5
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
import time
from pathlib import Path

from harvest.pipeline.journal_records import decode_record, encode_record
from harvest.pipeline.records import Frames
from harvest.settings import JournalSettings
from harvest.storage.journal import Journal, read_run

FRAME_BYTES = 195
RUN = "20261122T000000Z00ff"
#: Appends that are measured together: a clock costs as much as one.
BATCH = 50
#: Messages a second of a busy day, and of an extreme one.
RATES = (1_000, 10_000, 100_000)


def block(seq: int, frames: int) -> Frames:
    """Make a block as the intake makes it."""
    return Frames(seq, time.time_ns(), time.monotonic_ns(), "trade-1", [bytes(FRAME_BYTES)] * frames)


def journal_in(root: Path) -> Journal:
    """Start a journal with the settings that users have, and room for all that the bench gives it."""
    journal = Journal(
        root, venue="bench", run=RUN, facts={}, settings=JournalSettings(buffer_bytes=8 * 2**30)
    )
    journal.start()
    return journal


def measure_appends(root: Path, frames: int, batches: int) -> None:
    """Append blocks at a pace that a disk takes, and print the processor's time that one costs the loop."""
    journal, seq, costs = journal_in(root), 0, []
    for _ in range(batches):
        records = [block(seq + number, frames) for number in range(1, BATCH + 1)]
        seq += BATCH
        begun = time.thread_time_ns()
        for record in records:
            journal.append(*encode_record(record))
        costs.append((time.thread_time_ns() - begun) / BATCH / 1e3)
        time.sleep(0.001)
    journal.close(60)
    costs.sort()
    print(
        f"append, blocks of {frames:>3} frames: median {statistics.median(costs):.2f} µs, "
        f"best {costs[0]:.2f}, 99th {costs[len(costs) * 99 // 100]:.1f}"
    )


def measure_throughput(root: Path, total_bytes: int) -> None:
    """Append as fast as it goes, then read it all, and print both rates."""
    journal, seq = journal_in(root), 0
    frames = block(0, 10).frames
    begun = time.perf_counter()
    while journal.stats.appended_bytes < total_bytes:
        for _ in range(1000):
            seq += 1
            journal.append(*encode_record(Frames(seq, seq, seq, "trade-1", frames)))
    appended = time.perf_counter() - begun
    if journal.close(600) is not None:
        raise SystemExit("the disk did not take it within ten minutes")
    taken, stats = time.perf_counter() - begun, journal.stats
    print(
        f"through the threads: {stats.appended_bytes / taken / 1e6:,.0f} MB/s to durable, appended at "
        f"{stats.appended_bytes / appended / 1e6:,.0f} MB/s, {stats.segments} segments, {stats.syncs} syncs"
    )
    begun, messages = time.perf_counter(), 0
    for entry in read_run(root, "bench", RUN):
        record = decode_record(entry)
        if isinstance(record, Frames):
            messages += len(record.frames)
    spent = time.perf_counter() - begun
    print(
        f"read and decoded: {stats.appended_bytes / spent / 1e6:,.0f} MB/s, {messages / spent:,.0f} messages/s"
    )


def measure_stall(root: Path, rate: int, seconds: float) -> None:
    """Append at a rate, as a loop that does nothing else, and print how late the loop was at the worst."""
    journal, seq = journal_in(root), 0
    pause = 10 / rate
    due = time.perf_counter()
    end, late, lag_s = due + seconds, [], 0.0
    while due < end:
        due += max(pause, 0.001)
        time.sleep(max(due - time.perf_counter(), 0))
        late.append(time.perf_counter() - due)
        for _ in range(max(1, round(0.001 / pause))):
            seq += 1
            journal.append(*encode_record(block(seq, 10)))
        lag_s = max(lag_s, journal.stats.lag_s)
    journal.close(60)
    late.sort()
    print(
        f"{rate:>7,} messages/s: the loop wakes {late[len(late) // 2] * 1e3:.2f} ms late at the median, "
        f"{late[len(late) * 999 // 1000] * 1e3:.1f} at the 99.9th, {late[-1] * 1e3:.1f} at worst; "
        f"the oldest entry not durable was {lag_s * 1e3:.0f} ms old"
    )


def main() -> None:
    """Print all figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "--directory", type=Path, default=Path(), help="where to write; it is removed at the end"
    )
    parser.add_argument("--seconds", type=float, default=5.0, help="for each rate")
    parser.add_argument("--megabytes", type=int, default=500, help="for the throughput")
    arguments = parser.parse_args()
    root = Path(tempfile.mkdtemp(prefix="journal-bench-", dir=arguments.directory))
    try:
        for frames in (1, 10, 100):
            measure_appends(root / f"append-{frames}", frames, 400)
        measure_throughput(root / "throughput", arguments.megabytes * 10**6)
        for rate in RATES:
            measure_stall(root / f"stall-{rate}", rate, arguments.seconds)
    finally:
        shutil.rmtree(root)


if __name__ == "__main__":
    main()
