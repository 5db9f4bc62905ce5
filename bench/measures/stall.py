"""The longest time that the event loop does not come round, while full buffers are written beside a loop at load.

Everything is the product's: the state machine, the journal, the writer's threads, Parquet, the ledger. What is left out is the
socket, so that no server takes one of the two cores.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import trio

from bench.measures.found import Found
from bench.measures.memory import BLOCK, pipeline
from bench.peers.load import DEPTH, SYMBOL, TRADES, make
from bench.ratios import Ratio
from harvest.interpreter import settle
from harvest.nurseries.bookkeeper import Bookkeeper
from harvest.nurseries.journaling import Journaling
from harvest.nurseries.writer import Writer
from harvest.pipeline.records import Frames, SnapshotBody
from harvest.settings import JournalSettings, WriterSettings
from harvest.storage.files import DataDirectory
from harvest.storage.journal import Journal
from harvest.storage.parquet import Provenance, warm_up

if TYPE_CHECKING:
    from bench.peers.load import Load
    from harvest.pipeline.machine import Pipeline

#: Rows of the fullest buffer, as many as one may have.
ROWS = 200_000
#: The load: a block of so many frames this often is 10,000 messages a second.
FRAMES, EVERY_S = 10, 0.001
RUN = "20260101T000000Z0000"


class Watch(trio.abc.Instrument):
    """How long the loop stood still: tasks that ran, and a wake-up later than asked for, one by one."""

    def __init__(self) -> None:
        self.stalls_s: list[float] = []
        self._woke_at = self._expected_at = time.perf_counter()

    def before_io_wait(self, timeout: float) -> None:
        """Note how long the tasks ran."""
        now = time.perf_counter()
        self.stalls_s.append(now - self._woke_at)
        self._expected_at = now + timeout

    def after_io_wait(self, timeout: float) -> None:
        """Note how late the loop woke."""
        self._woke_at = time.perf_counter()
        if timeout > 0:
            self.stalls_s.append(self._woke_at - self._expected_at)


def measure_stall(*, quick: bool) -> Found:
    """Write full buffers of every kind, round after round; the stall is the median of the rounds' longest ones."""
    settle()
    warm_up()
    load = make("mix", (ROWS // 4 if quick else ROWS) * 5 // 4)
    before: list[float] = []
    writing: list[float] = []
    seconds: list[float] = []
    for _ in range(3 if quick else 5):
        with tempfile.TemporaryDirectory(prefix="harvest-bench-") as directory:
            quiet, busy, took_s = trio.run(_round, load, Path(directory))
        before.append(max(quiet))
        writing.append(max(busy))
        seconds.append(took_s)
    figures = {
        "seconds of writing": median(seconds),
        "longest stall at load, nothing written: ms": median(before) * 1000,
        "longest stall while writing: ms": median(writing) * 1000,
        "the same in the best round: ms": min(writing) * 1000,
        "the same in the worst round: ms": max(writing) * 1000,
    }
    value = figures["longest stall while writing: ms"]
    ratio = Ratio("largest stall of the loop while writing, ms", value, 10, 3, lower_is_better=True)
    return Found("stalls of the loop", figures, [ratio])


async def _round(load: Load, root: Path) -> tuple[list[float], list[float], float]:
    full, live = _begun(load), _begun(load)
    frames = load.frames(frozenset((TRADES, DEPTH)))
    for seq, start in enumerate(range(0, len(frames), BLOCK), start=2):
        full.feed(Frames(seq, seq, seq, "trade-1", frames[start : start + BLOCK]))
    journal = Journal(root, venue="bench", run=RUN, facts={}, settings=JournalSettings())
    writer = Writer(
        directory=DataDirectory(root),
        provenance=Provenance("bench", RUN, trade_ids="aggregate"),
        settings=WriterSettings(),
        on_published=Bookkeeper(root).enter,
    )
    journaling = Journaling(journal)
    journaling.start()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_receive, live, journaling, frames)
        quiet = Watch()
        trio.lowlevel.add_instrument(quiet)
        await trio.sleep(1)
        trio.lowlevel.remove_instrument(quiet)
        busy, begun = Watch(), time.perf_counter()
        trio.lowlevel.add_instrument(busy)
        full.tables.seal_all()
        for sealed in full.tables.take_sealed():
            assert writer.submit_nowait(sealed)
        writer.close()
        await writer.run()
        trio.lowlevel.remove_instrument(busy)
        took_s = time.perf_counter() - begun
        nursery.cancel_scope.cancel()
    await journaling.close()
    return quiet.stalls_s, busy.stalls_s, took_s


def _begun(load: Load) -> Pipeline:
    machine = pipeline()
    machine.feed(SnapshotBody(1, 1, 1, SYMBOL, load.snapshot))
    return machine


async def _receive(machine: Pipeline, journaling: Journaling, frames: list[bytes]) -> None:
    begun = trio.current_time()
    for number, start in enumerate(range(0, len(frames) - FRAMES, FRAMES), start=2):
        await trio.sleep_until(begun + number * EVERY_S)
        now = time.time_ns()
        record = Frames(number, now, now, "trade-1", frames[start : start + FRAMES])
        journaling.take(record)
        machine.feed(record)
