"""``harvest simulate``: a faithful local Binance."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, cast

import typer

from harvest.cli.app import app
from harvest.cli.options import Fault, FaultFile, Replay, Seed, Speed, Symbols, parse_speed

if TYPE_CHECKING:
    from harvest.simulator.rules import VenueName


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
