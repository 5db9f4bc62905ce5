"""``harvest ingest``: recordings through the path of ``run``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harvest.cli.app import app
from harvest.cli.options import Channels, Profile, SettingsFile, load_or_exit
from harvest.cli.progress import progress_bar


@app.command()
def ingest(
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE...", help="Recordings in the collector's line format.")
    ],
    venue: Annotated[str, typer.Option(metavar="NAME", help="binance-usdm or binance-spot.")],
    data: Annotated[Path, typer.Option("--data", "--output-dir", metavar="DIR", help="Data directory.")],
    channels: Channels = None,
    settings: SettingsFile = None,
    profile: Profile = None,
) -> None:
    """Send recordings through the very same path as `run`, as fast as the machine allows."""
    from rich.console import Console

    from harvest.pipeline.ingest import Ingest
    from harvest.storage.lock import one_writer

    flags: dict[str, object] = {"--venue": venue, "--output-dir": str(data), "--channels": channels}
    loaded = load_or_exit(settings, profile, flags)
    with (
        one_writer(data, "ingest", warn=lambda line: typer.echo(f"harvest: {line}", err=True)) as lock,
        progress_bar() as progress,
    ):
        job = Ingest(files, loaded.settings)
        lock.name_run(job.run_id)
        task = progress.add_task(f"ingesting {len(files)} files", total=job.total_bytes)
        summary = job.run(lambda done_bytes: progress.update(task, completed=done_bytes))
    summary.print(Console())
