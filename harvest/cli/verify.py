"""``harvest verify``: of every id, stored, or missing and why."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from harvest.cli.app import app
from harvest.cli.progress import progress_bar


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

    from harvest.pipeline.verify import verify as verify_directory

    with progress_bar() as progress:
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
