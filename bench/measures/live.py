"""A run of harvest at a live pace, in this process: how long each message takes to its buffer, and what it costs."""

from __future__ import annotations

import io
import tempfile
import time
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import numpy as np
import trio

from bench.peers.harvesting import harvesting
from bench.peers.load import EVENT_TIME, STAMP_DIGITS, SYMBOL
from bench.peers.match import blast
from harvest.venues.blocks import payloads

if TYPE_CHECKING:
    from bench.peers.harvesting import Harvesting
    from bench.peers.load import Mix
    from harvest.market import Feed
    from harvest.pipeline.events import Outcome
    from harvest.pipeline.records import Opened
    from harvest.venues.blocks import Block

#: Connections that a run makes: one of each feed.
CONNECTIONS = 2
#: The first seconds are those of the start.
SETTLE_S = 0.5
LIMIT_S = 120


@attrs.frozen
class Live:
    """What was seen of one run: of each message the microseconds from its sending until its row was in the buffer."""

    messages: int
    latencies_us: np.ndarray[tuple[int], np.dtype[np.int64]]
    cpu_seconds: float


def live(mix: Mix, *, rate: float, seconds: float) -> Live:
    """Run harvest against a server that sends ``rate`` messages a second on each connection, for some seconds."""
    connections = CONNECTIONS if mix == "mix" else 1
    # In a mix there are four trades to a diff: the depth stream ends first, and with it the measure.
    messages = round(rate * seconds * (5 if mix == "mix" else 1))
    with (
        tempfile.TemporaryDirectory(prefix="harvest-bench-") as directory,
        blast(mix, messages, connections=CONNECTIONS, rate=rate) as port,
        # The summary of the run would stand between the tables.
        redirect_stdout(io.StringIO()),
    ):
        return trio.run(_live, port, Path(directory), connections, rate, seconds)


async def _live(port: int, directory: Path, connections: int, rate: float, seconds: float) -> Live:
    taken: list[tuple[int, Block]] = []
    async with harvesting(f"ws://127.0.0.1:{port}", f"http://127.0.0.1:{port}", directory, SYMBOL) as harvest:
        _note_what_is_taken(harvest, taken)
        feeds: list[Feed] = ["trade", "orderbook"]
        stats = [harvest.parts.metrics.feed(feed, SYMBOL) for feed in feeds[:connections]]
        with trio.fail_after(LIMIT_S + seconds):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(harvest.until_stopped)
                while any(one.stored < rate * SETTLE_S for one in stats):
                    await trio.sleep(0.05)
                del taken[:]
                cpu_begun = time.process_time()
                await trio.sleep(seconds - 2 * SETTLE_S)
                cpu_seconds, seen = time.process_time() - cpu_begun, taken[:]
                harvest.run.stop()
    latencies = [
        done_us - int(frame[at : at + STAMP_DIGITS])
        for done_us, frames in seen
        for frame in payloads(frames)
        if (at := frame.find(EVENT_TIME) + len(EVENT_TIME)) >= len(EVENT_TIME)
    ]
    return Live(len(latencies), np.array(latencies), cpu_seconds)


def _note_what_is_taken(harvest: Harvesting, taken: list[tuple[int, Block]]) -> None:
    intake = harvest.parts.intake
    take = intake.frames

    def noted(connection: Opened, frames: Block, recv_ns: int, mono_ns: int) -> Outcome:
        outcome = take(connection, frames, recv_ns, mono_ns)
        taken.append((time.time_ns() // 1000, frames))
        return outcome

    intake.frames = noted  # type: ignore[method-assign]
