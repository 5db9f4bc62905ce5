"""Options that several commands share, and the settings that they make."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harvest.cli.app import EXIT_USAGE, fail
from harvest.errors import SettingsError
from harvest.settings import load
from harvest.settings.catalog import BY_FLAG

if TYPE_CHECKING:
    from harvest.settings import Loaded

SettingsFile = Annotated[
    Path | None,
    typer.Option("--settings", metavar="FILE", help="Settings file (default: ./settings.toml, if there)."),
]
Profile = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="conservative, aggressive or testing; see `check-config`."),
]
Venue = Annotated[str | None, typer.Option(metavar="NAME", help="binance-usdm (default) or binance-spot.")]
Symbols = Annotated[str | None, typer.Option(metavar="A,B", help="Symbols, separated by commas.")]
OutputDir = Annotated[
    str | None,
    typer.Option("--output-dir", "--data", metavar="DIR", help="Data directory (default: data)."),
]
TradeEvent = Annotated[
    str | None, typer.Option(metavar="EVENT", help="aggTrade (default) or trade: aggregate or raw trades.")
]
DepthInterval = Annotated[
    str | None,
    typer.Option("--depth-interval-ms", metavar="MS", help="Interval of the depth diffs (default: 100)."),
]
Connections = Annotated[
    str | None, typer.Option(metavar="N", help="Sockets on the same streams (default: 1; 2 leave no hole).")
]
Channels = Annotated[
    str | None,
    typer.Option(metavar="A,B", help="What to record besides: bbo, mark, … (see settings.toml)."),
]
LogFormat = Annotated[str | None, typer.Option(metavar="FORMAT", help="human (default) or json.")]
LogLevel = Annotated[
    str | None, typer.Option(metavar="LEVEL", help="debug, info (default), warning or error.")
]
Hours = Annotated[str | None, typer.Option(metavar="HOURS", help="End after so many hours (default: never).")]
KeepDays = Annotated[
    str | None,
    typer.Option("--keep-days", metavar="N", help="Remove dates older than this (default: never)."),
]
KeepRaw = Annotated[
    bool | None,
    typer.Option(
        "--keep-raw", help="Keep everything received, compressed, for `export-raw` (needs the journal)."
    ),
]
Replay = Annotated[
    list[Path] | None,
    typer.Option(metavar="FILE", help="Serve this recording instead of the random market; repeatable."),
]
Fault = Annotated[
    list[str] | None,
    typer.Option(metavar="SCRIPT", help="A fault, such as 'stall trades at 10s'; repeatable."),
]
FaultFile = Annotated[Path | None, typer.Option(metavar="FILE", help="Faults as a TOML file.")]
Speed = Annotated[str, typer.Option(metavar="N|max", help="How fast the simulated venue's time runs.")]
Seed = Annotated[int, typer.Option(help="Seed of the simulated market.")]


def flags_of(context: typer.Context) -> dict[str, object]:
    """Return the options of a command that are settings, by flag; None where one was not given."""
    return {flag: context.params[flag.removeprefix("--").replace("-", "_")] for flag in BY_FLAG}


def load_settings(settings: Path | None, profile: str | None, flags: dict[str, object]) -> Loaded:
    """Load the settings, as they are everywhere: file, profile, environment, flags."""
    return load(settings_file=settings, profile=profile, environ=os.environ, flags=flags)


def load_or_exit(settings: Path | None, profile: str | None, flags: dict[str, object]) -> Loaded:
    """Load the settings; what is wrong with them is printed, and ends the program with 2."""
    try:
        loaded = load_settings(settings, profile, flags)
    except SettingsError as error:
        typer.echo("harvest: these settings cannot be run with:", err=True)
        for problem in error.problems:
            typer.echo(f"  {problem}", err=True)
        sys.exit(EXIT_USAGE)
    for warning in loaded.warnings:
        typer.echo(f"harvest: {warning}", err=True)
    return loaded


def parse_speed(text: str) -> float | None:
    """Read ``--speed``: a positive factor, or None for ``max``."""
    if text == "max":
        return None
    try:
        factor = float(text)
    except ValueError:
        factor = 0.0
    if not 0 < factor < float("inf"):
        fail(f"--speed {text}: expected a positive number or max")
    return factor
