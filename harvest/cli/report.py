"""``harvest report``: one page to look at."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harvest.cli.app import app, fail
from harvest.cli.progress import progress_bar


@app.command()
def report(
    data: Annotated[Path, typer.Argument(metavar="DIR", help="Data directory.")],
    out: Annotated[
        Path, typer.Option(metavar="FILE", help="The page; one that is there is replaced.")
    ] = Path("report.html"),
    title: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Its heading (default: DIR's name).")
    ] = None,
    jobs: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Processes (default: all cores).")
    ] = None,
) -> None:
    """Verify, and write one self-contained page: coverage, gaps, rates, latencies, books. Exit 0 when it is written."""
    from harvest.report import read, render
    from harvest.storage.replacing import replace_file

    with progress_bar() as progress:
        task = progress.add_task(f"verifying {data}", total=None)
        reading = read(
            data,
            jobs=jobs,
            on_progress=lambda what, done, total: progress.update(
                task, description=f"{what} {data}", completed=done, total=total
            ),
        )
    try:
        replace_file(out, render(reading, title=title or data.resolve().name).encode())
    except OSError as error:
        fail(f"cannot write {out}: {error.strerror}")
    typer.echo(reading.report.verdict)
    typer.echo(str(out))
