"""harvest, made ready to run inside a bench, with the settings that users have."""

from __future__ import annotations

import os
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import attrs
import trio

from harvest import log
from harvest.nurseries.instruments import Instruments
from harvest.nurseries.rest import RestClient
from harvest.parts import Parts
from harvest.pipeline.beginning import look_around
from harvest.run import Run
from harvest.settings import load
from harvest.storage.bans import Bans
from harvest.venues import VENUES

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@attrs.frozen(eq=False)
class Harvesting:
    """A run that waits to be started, and everything that it is made of."""

    parts: Parts
    run: Run

    async def until_stopped(self) -> None:
        """Capture until ``run.stop()``, drain, and write."""
        await self.run.until_done(None, has_replay=False)


@asynccontextmanager
async def harvesting(
    ws_url: str, rest_url: str, directory: Path, symbol: str, **environ: str
) -> AsyncIterator[Harvesting]:
    """Wire a run of ``symbol`` from a server; ``environ`` are settings by their variables."""
    variables = dict(os.environ) | {
        "SYMBOLS": symbol,
        "OUTPUT_DIR": str(directory),
        "HARVEST_WS_URL": ws_url,
        "HARVEST_REST_URL": rest_url,
        "HARVEST_LOG_LEVEL": "warning",
        "HARVEST_MIN_FREE_BYTES": "0",
    }
    settings = load(settings_file=None, profile=None, environ=variables | environ, flags={}).settings
    log.configure(log_format="human", level="warning", stream=None)
    venue = VENUES[settings.capture.venue]
    async with RestClient(
        rest_url,
        weight_per_minute=venue.weight_per_minute,
        settings=settings.rest,
        bans=Bans(settings.capture.output_dir),
    ) as client:
        instruments = Instruments(venue, client, settings.capture.symbols, settings.rest)
        beginning = await trio.to_thread.run_sync(look_around, settings, venue.name)
        parts = Parts(
            settings, venue, venue_name=venue.name, ws_url=ws_url, client=client, beginning=beginning
        )
        yield Harvesting(parts, Run(settings, parts, client, instruments, None))
