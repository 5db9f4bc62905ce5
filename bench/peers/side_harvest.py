"""harvest as it is: sockets, watchdogs, sequence, book, flow, rotation, Parquet, ledger, and the journal where it is on."""

from __future__ import annotations

import time

import trio

from bench.peers.harvesting import harvesting
from bench.peers.load import SYMBOL
from bench.peers.side import LIMIT_S, Clock, Task, main, tell

#: How often the watcher looks; it costs the loop a task switch.
LOOK_S = 0.002


async def _harvest(task: Task) -> None:
    clock = Clock()
    async with harvesting(task.ws_url, task.rest_url, task.directory, SYMBOL) as harvest:
        parts = harvest.parts
        trades = parts.metrics.feed("trade", SYMBOL)
        diffs = parts.metrics.feed("orderbook", SYMBOL)
        ahead = 2 if task.mix == "mix" else 1

        async def watch() -> None:
            while trades.stored + diffs.stored <= ahead:
                await trio.sleep(LOOK_S)
            clock.start()
            while trades.stored + diffs.stored < task.messages:
                await trio.sleep(LOOK_S)
            clock.stop()
            harvest.run.stop()

        with trio.fail_after(LIMIT_S):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(watch)
                await harvest.until_stopped()
    rows = parts.writer.stats.rows
    in_files = rows["prices", SYMBOL] + rows["depth", SYMBOL]
    # The snapshot, and the book that begins the date, are rows of depth too.
    snapshots = 1 if task.mix == "mix" else 0
    facts = {
        "orderbook_rows": float(rows["orderbook", SYMBOL]),
        "ofi_rows": float(rows["ofi", SYMBOL]),
        "longest_stall_ms": parts.lag.longest_s * 1000,
        "bytes": float(parts.writer.stats.bytes),
    }
    # What follows the last file (the summary, the end of the journal) is no row of anybody's.
    written = time.perf_counter() - (time.monotonic() - (parts.writer.stats.last_done_s or 0.0))
    tell("harvest", task, clock, in_files - snapshots, facts, written)


def run(task: Task) -> None:
    """Harvest until all is received and written."""
    trio.run(_harvest, task)


if __name__ == "__main__":
    main(run)
