"""The commands. No logic: options in, the right room called, an exit code out."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn, cast

import typer

from harvest import __version__
from harvest.errors import HarvestError, SettingsError
from harvest.settings import load
from harvest.settings.catalog import BY_FLAG
from harvest.settings.render import render_table, to_json

if TYPE_CHECKING:
    from harvest.settings import Loaded
    from harvest.simulator.rules import VenueName

#: Nothing ran, because something in the settings or the input is wrong.
EXIT_USAGE = 2

app = typer.Typer(
    name="harvest",
    help="A market-data harvester that can prove what it recorded.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

# Options that several commands share.
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
LogFormat = Annotated[str | None, typer.Option(metavar="FORMAT", help="human (default) or json.")]
LogLevel = Annotated[
    str | None, typer.Option(metavar="LEVEL", help="debug, info (default), warning or error.")
]
Hours = Annotated[str | None, typer.Option(metavar="HOURS", help="End after so many hours (default: never).")]
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


def main() -> None:
    """Run the command line; never returns."""
    try:
        app()
    except HarvestError as error:
        fail(str(error))


def fail(message: str) -> NoReturn:
    """Print what is wrong to standard error, and exit with 2."""
    typer.echo(f"harvest: {message}", err=True)
    sys.exit(EXIT_USAGE)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"harvest {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit."),
    ] = False,
) -> None:
    """Record trades and order books to Parquet, and prove what was recorded."""


def _flags(context: typer.Context) -> dict[str, object]:
    """Return the options of a command that are settings, by flag; None where one was not given."""
    return {flag: context.params[flag.removeprefix("--").replace("-", "_")] for flag in BY_FLAG}


def _load(settings: Path | None, profile: str | None, flags: dict[str, object]) -> Loaded:
    return load(settings_file=settings, profile=profile, environ=os.environ, flags=flags)


def _load_or_exit(settings: Path | None, profile: str | None, flags: dict[str, object]) -> Loaded:
    try:
        loaded = _load(settings, profile, flags)
    except SettingsError as error:
        typer.echo("harvest: these settings cannot be run with:", err=True)
        for problem in error.problems:
            typer.echo(f"  {problem}", err=True)
        sys.exit(EXIT_USAGE)
    for warning in loaded.warnings:
        typer.echo(f"harvest: {warning}", err=True)
    return loaded


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
    connections: Connections = None,
    hours: Hours = None,
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

    flags = _flags(context)
    loaded = _load_or_exit(settings, profile, flags)
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
    sys.exit(run_until_done(loaded.settings, simulator=simulator, live=live))


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
    connections: Connections = None,
    hours: Hours = None,
    log_format: LogFormat = None,
    log_level: LogLevel = None,
    as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> None:
    """Print every effective setting and where it came from; exit 2 if anything is wrong."""
    flags = _flags(context)
    if not as_json:
        typer.echo(render_table(_load_or_exit(settings, profile, flags)))
        return
    try:
        typer.echo(json.dumps(to_json(_load(settings, profile, flags)), indent=2, ensure_ascii=False))
    except SettingsError as error:
        typer.echo(json.dumps(to_json(error), indent=2, ensure_ascii=False))
        sys.exit(EXIT_USAGE)


@app.command()
def ingest(
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE...", help="Recordings in the collector's line format.")
    ],
    venue: Annotated[str, typer.Option(metavar="NAME", help="binance-usdm or binance-spot.")],
    data: Annotated[Path, typer.Option("--data", "--output-dir", metavar="DIR", help="Data directory.")],
    settings: SettingsFile = None,
    profile: Profile = None,
) -> None:
    """Send recordings through the very same path as `run`, as fast as the machine allows."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    from harvest.pipeline.ingest import Ingest

    loaded = _load_or_exit(settings, profile, {"--venue": venue, "--output-dir": str(data)})
    job = Ingest(files, loaded.settings)
    columns = TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(f"ingesting {len(files)} files", total=job.total_bytes)
        summary = job.run(lambda done_bytes: progress.update(task, completed=done_bytes))
    summary.print(Console())


@app.command()
def verify(
    data: Annotated[Path, typer.Argument(metavar="DIR", help="Data directory.")],
    jobs: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Processes (default: all cores).")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> None:
    """Re-read everything, and say of every id: stored, or missing and why. Exit 0 complete, 1 explained gaps, 3 damage."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    from harvest.pipeline.verify import verify as verify_directory

    columns = TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(f"verifying {data}", total=None)
        report = verify_directory(
            data,
            jobs=jobs,
            on_progress=lambda done, total: progress.update(task, completed=done, total=total),
        )
    if as_json:
        typer.echo(json.dumps(report.to_json(), indent=2, ensure_ascii=False))
    else:
        report.render(Console())
    sys.exit(report.exit_code)


@app.command()
def simulate(
    venue: Annotated[
        str, typer.Option(metavar="NAME", help="binance-usdm or binance-spot.")
    ] = "binance-usdm",
    symbols: Symbols = None,
    seed: Seed = 1,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 takes a free one.")] = 0,
    speed: Speed = "1",
    replay: Replay = None,
    fault: Fault = None,
    fault_file: FaultFile = None,
) -> None:
    """Serve a faithful local Binance; prints its addresses as one JSON line."""
    from harvest.simulator import SimulatorConfig
    from harvest.simulator import main as serve

    config = SimulatorConfig(
        venue=cast("VenueName", venue),
        symbols=tuple(symbols.upper().split(",")) if symbols else (),
        seed=seed,
        host=host,
        port=port,
        speed=parse_speed(speed),
        faults=tuple(fault or ()),
        fault_file=fault_file,
        replay=tuple(replay or ()),
    )
    serve(config)


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
