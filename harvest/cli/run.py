"""``harvest run``: harvest until stopped."""

from __future__ import annotations

import sys
from functools import partial
from typing import TYPE_CHECKING, Annotated, cast

import typer

from harvest.cli.app import app, fail
from harvest.cli.options import (
    Channels,
    Connections,
    DepthInterval,
    Fault,
    FaultFile,
    Hours,
    KeepDays,
    KeepRaw,
    LogFormat,
    LogLevel,
    OutputDir,
    Profile,
    Replay,
    Seed,
    SettingsFile,
    Speed,
    Symbols,
    TradeEvent,
    Venue,
    flags_of,
    load_or_exit,
    load_settings,
    parse_speed,
)

if TYPE_CHECKING:
    from harvest.simulator.rules import VenueName


@app.command()
def run(
    context: typer.Context,
    settings: SettingsFile = None,
    profile: Profile = None,
    venue: Venue = None,
    symbols: Symbols = None,
    output_dir: OutputDir = None,
    trade_event: TradeEvent = None,
    depth_interval_ms: DepthInterval = None,
    channels: Channels = None,
    connections: Connections = None,
    hours: Hours = None,
    keep_days: KeepDays = None,
    keep_raw: KeepRaw = None,
    log_format: LogFormat = None,
    log_level: LogLevel = None,
    simulate: Annotated[
        bool, typer.Option("--simulate", help="Harvest a local, simulated venue: no network needed.")
    ] = False,
    replay: Replay = None,
    fault: Fault = None,
    fault_file: FaultFile = None,
    speed: Speed = "1",
    seed: Seed = 1,
    live: Annotated[
        bool | None, typer.Option("--live/--no-live", help="Show the live table (default: on a terminal).")
    ] = None,
) -> None:
    """Harvest trades and order books until stopped (Ctrl-C), or for --hours."""
    from harvest.run import run_until_done  # the network's libraries are slow to load, and only needed here
    from harvest.simulator import SimulatorConfig, listed_for

    flags = flags_of(context)
    loaded = load_or_exit(settings, profile, flags)
    simulator = None
    if simulate:
        capture = loaded.settings.capture
        simulated_venue = cast("VenueName", capture.venue)
        simulator = SimulatorConfig(
            venue=simulated_venue,
            symbols=() if replay else listed_for(simulated_venue, capture.symbols),
            seed=seed,
            speed=parse_speed(speed),
            faults=tuple(fault or ()),
            fault_file=fault_file,
            replay=tuple(replay or ()),
        )
    elif replay or fault or fault_file:
        fail("--replay and --fault belong to a simulated venue: add --simulate")
    reload = partial(load_settings, settings, profile, flags)
    sys.exit(run_until_done(loaded.settings, simulator=simulator, live=live, reload=reload))
