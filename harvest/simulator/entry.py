"""The simulator as a program: it says where it listens, and ends with its parent where asked to."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import msgspec
import trio

from harvest.errors import HarvestError
from harvest.simulator.server import serve

if TYPE_CHECKING:
    from harvest.simulator.config import SimulatorConfig


def main(config: SimulatorConfig) -> None:
    """Serve until interrupted, or until stdin ends where ``config.exit_with_parent``.

    Prints one JSON line on stdout once it listens: ``{"venue": …, "ws": …, "rest": …}``.

    Raises:
        SimulatorError: It cannot be served.
        RecordingError: A file to replay cannot be read.
    """
    refused: HarvestError | None = None
    try:
        trio.run(_run, config)
    except* KeyboardInterrupt:
        print("simulator: interrupted", file=sys.stderr)
    except* HarvestError as group:
        refused = _first(group)
    if refused is not None:
        raise refused


def _first(group: ExceptionGroup[HarvestError]) -> HarvestError:
    first = group.exceptions[0]
    return _first(first) if isinstance(first, ExceptionGroup) else first


async def _run(config: SimulatorConfig) -> None:
    async with trio.open_nursery() as nursery:
        if config.exit_with_parent:
            nursery.start_soon(_end_with_stdin, nursery.cancel_scope)
        endpoints = await nursery.start(serve, config)
        line = msgspec.json.encode(
            {"venue": endpoints.venue, "ws": endpoints.ws_url, "rest": endpoints.rest_url}
        )
        print(line.decode(), flush=True)


async def _end_with_stdin(scope: trio.CancelScope) -> None:
    # os.read, because a thread that waits in sys.stdin would hold its lock when the interpreter ends.
    while await trio.to_thread.run_sync(os.read, 0, 4096, abandon_on_cancel=True):
        await trio.lowlevel.checkpoint()
    scope.cancel()
