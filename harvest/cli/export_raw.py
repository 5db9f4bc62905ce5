"""``harvest export-raw``: what was kept of the streams, in the collector's line format."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from harvest.cli.app import app, fail


@app.command("export-raw")
def export_raw(
    data: Annotated[Path, typer.Argument(metavar="DIR", help="Data directory.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where to write; a file an instrument, gzipped.")],
    symbols: Annotated[str | None, typer.Option(metavar="A,B", help="Only these symbols.")] = None,
    from_time: Annotated[
        str | None,
        typer.Option("--from", metavar="TIME", help="From this UTC time on, such as 2026-11-28T12:00."),
    ] = None,
    to_time: Annotated[str | None, typer.Option("--to", metavar="TIME", help="Before this UTC time.")] = None,
) -> None:
    """Export what `run --keep-raw` has kept, in the line format that `ingest` reads: receive time, space, message."""
    from harvest.pipeline.raw_export import export_raw as export

    exported = export(
        data,
        out,
        symbols=None if symbols is None else symbols.upper().split(","),
        from_ns=_nanoseconds("--from", from_time),
        to_ns=_nanoseconds("--to", to_time),
    )
    for path, lines in exported.lines.items():
        typer.echo(f"{path}: {lines:,} lines")
    if not exported.lines:
        typer.echo("nothing of that was kept")


def _nanoseconds(flag: str, text: str | None) -> int | None:
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        fail(f"{flag} {text}: expected a time such as 2026-11-28T12:00")
    return round((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()) * 10**9
