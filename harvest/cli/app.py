"""The application that every command belongs to, and how it ends when something is wrong."""

from __future__ import annotations

import sys
from typing import Annotated, NoReturn

import typer

from harvest import __version__
from harvest.errors import HarvestError

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
