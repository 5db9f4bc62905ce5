"""harvest as it is: sockets, watchdogs, sequence, book, flow, rotation, Parquet, ledger, and the journal where it is on."""

from __future__ import annotations

import os

import trio

from bench.peers.load import SYMBOL
from bench.peers.side import LIMIT_S, Clock, Task, main, tell
from harvest import log
from harvest.nurseries.instruments import Instruments
from harvest.nurseries.rest import RestClient
from harvest.parts import Parts, look_at_stored, plan_connections
from harvest.run import Run
from harvest.settings import load
from harvest.storage.bans import Bans
from harvest.venues import VENUES

#: How often the watcher looks; it costs the loop a task switch.
LOOK_S = 0.002


async def _harvest(task: Task) -> None:
    environ = dict(os.environ) | {
        "SYMBOLS": SYMBOL,
        "OUTPUT_DIR": str(task.directory),
        "HARVEST_WS_URL": task.ws_url,
        "HARVEST_REST_URL": task.rest_url,
        "HARVEST_LOG_LEVEL": "warning",
        "HARVEST_MIN_FREE_BYTES": "0",
    }
    settings = load(settings_file=None, profile=None, environ=environ, flags={}).settings
    log.configure(log_format="human", level="warning", stream=None)
    venue = VENUES[settings.capture.venue]
    client = RestClient(
        task.rest_url,
        weight_per_minute=venue.weight_per_minute,
        settings=settings.rest,
        bans=Bans(settings.capture.output_dir),
    )
    clock = Clock()
    async with client:
        instruments = Instruments(venue, client, settings.capture.symbols, settings.rest)
        stored = await trio.to_thread.run_sync(look_at_stored, settings, venue.name)
        parts = Parts(settings, venue, venue_name=venue.name, client=client, stored=stored)
        run = Run(settings, parts, client, instruments)
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
            run.stop()

        with trio.fail_after(LIMIT_S):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(watch)
                plans = plan_connections(venue, settings, task.ws_url)
                await run.until_done(list(plans.values()), None, has_replay=False)
    rows = parts.writer.stats.rows
    in_files = rows["prices", SYMBOL] + rows["depth", SYMBOL]
    # The snapshot, and the book that begins the date, are rows of depth too.
    snapshots = 1 if task.mix == "mix" else 0
    facts = {
        "orderbook_rows": float(rows["orderbook", SYMBOL]),
        "ofi_rows": float(rows["ofi", SYMBOL]),
        "largest_stall_ms": parts.lag.largest_s * 1000 if hasattr(parts.lag, "largest_s") else 0.0,
        "bytes": float(parts.writer.stats.bytes),
    }
    tell("harvest", task, clock, in_files - snapshots, facts)


def run(task: Task) -> None:
    """Harvest until all is received and written."""
    trio.run(_harvest, task)


if __name__ == "__main__":
    main(run)
