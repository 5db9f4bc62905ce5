"""``harvest compact``: many small files of a date become one."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Annotated

import attrs
import typer

from harvest.cli.app import app, fail
from harvest.cli.progress import progress_bar

#: Something was left as it is, and was named.
EXIT_LEFT = 1


@app.command()
def compact(
    data: Annotated[Path, typer.Argument(metavar="DIR", help="Data directory.")],
    jobs: Annotated[int, typer.Option(min=1, metavar="N", help="Processes (default: 1).")] = 1,
    older_than: Annotated[
        int, typer.Option(min=0, metavar="DAYS", help="Only dates that ended so many days ago (default: 0).")
    ] = 0,
    max_rows: Annotated[
        int,
        typer.Option(min=1, metavar="N", help="Rows of a file; a date with more gets several."),
    ] = 20_000_000,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")] = False,
    force: Annotated[
        bool,
        typer.Option(
            "--force",
            help="Go on where the file system cannot exchange two directories: a date is not there for a moment.",
        ),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> None:
    """Merge the small files of each past date into one: same rows, checked, and no reader sees a row twice or not at all."""
    from harvest.pipeline.dead_runs import refuse_dead_runs
    from harvest.storage.compaction import Options
    from harvest.storage.compaction import compact as compact_directory
    from harvest.storage.compaction.compactor import DAY_NS
    from harvest.storage.lock import one_writer

    if not data.is_dir():
        fail(f"{data} is not a directory")
    options = Options.at(
        time.time_ns() - older_than * DAY_NS, hours=False, max_rows=max_rows, force=force, dry_run=dry_run
    )
    with (
        one_writer(data, "compact", warn=lambda line: typer.echo(f"harvest: {line}", err=True)),
        progress_bar() as progress,
    ):
        refuse_dead_runs(data)
        task = progress.add_task(f"compacting {data}", total=None)
        done = compact_directory(
            data,
            options,
            jobs=min(jobs, 4 * (os.cpu_count() or 1)),
            on_done=lambda number, of: progress.update(task, completed=number, total=of),
        )
    if as_json:
        typer.echo(json.dumps(attrs.asdict(done), indent=2, ensure_ascii=False))
    else:
        for problem in done.problems:
            typer.echo(f"harvest: {problem}", err=True)
        verb = "would become" if dry_run else "became"
        typer.echo(
            f"{done.files_before:,} files {verb} {done.files_after:,}: {done.rows:,} rows in {done.directories:,} "
            f"directories, {done.seconds:.1f}s"
        )
    sys.exit(EXIT_LEFT if done.problems else 0)
