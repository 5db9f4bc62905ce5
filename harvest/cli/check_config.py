"""``harvest check-config``: every effective setting, and where it came from."""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer

from harvest.cli.app import EXIT_USAGE, app
from harvest.cli.options import (
    Channels,
    Connections,
    DepthInterval,
    Hours,
    KeepDays,
    KeepRaw,
    LogFormat,
    LogLevel,
    OutputDir,
    Profile,
    SettingsFile,
    Symbols,
    TradeEvent,
    Venue,
    flags_of,
    load_or_exit,
    load_settings,
)
from harvest.errors import SettingsError
from harvest.settings.render import render_table, to_json


@app.command("check-config")
def check_config(
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
    as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> None:
    """Print every effective setting and where it came from; exit 2 if anything is wrong."""
    flags = flags_of(context)
    if not as_json:
        typer.echo(render_table(load_or_exit(settings, profile, flags)))
        return
    try:
        typer.echo(json.dumps(to_json(load_settings(settings, profile, flags)), indent=2, ensure_ascii=False))
    except SettingsError as error:
        typer.echo(json.dumps(to_json(error), indent=2, ensure_ascii=False))
        sys.exit(EXIT_USAGE)
