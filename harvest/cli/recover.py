"""``harvest recover``: what runs that died have left in the journal becomes files."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer

from harvest.cli.app import app, fail

#: A run could not be recovered, or not all of it; its journal stays, or what is wrong was named.
EXIT_LEFT = 1


@app.command()
def recover(
    data: Annotated[Path, typer.Argument(metavar="DIR", help="Data directory.")],
    as_json: Annotated[bool, typer.Option("--json", help="For machines: a line a run.")] = False,
    keep_raw: Annotated[
        bool, typer.Option("--keep-raw", help="Keep the journal for `export-raw`, compressed.")
    ] = False,
    jobs: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Processes (default: one a core, and a GiB of memory)."),
    ] = None,
    living: Annotated[str | None, typer.Option(hidden=True)] = None,
    living_seq: Annotated[int | None, typer.Option(hidden=True)] = None,
) -> None:
    """Make files of what runs that died have left in the journal, as every `harvest run` does when it starts."""
    import msgspec

    from harvest.parent import serve_parent
    from harvest.pipeline.dead_runs import recover_all
    from harvest.pipeline.recovery_processes import most_jobs
    from harvest.storage.lock import one_writer

    if not data.is_dir():
        fail(f"{data} is not a directory")
    if living is not None:
        # The run that has started us holds the lock.
        serve_parent()
    code = count = 0
    with nullcontext() if living is not None else one_writer(data, "recover", warn=_warn):
        results = recover_all(
            data,
            living=living,
            living_seq=living_seq,
            keeps_raw=keep_raw,
            jobs=jobs or most_jobs(),
        )
        for result in results:
            count += 1
            if as_json:
                print(msgspec.json.encode(result).decode(), flush=True)
            else:
                typer.echo(str(result))
                for problem in result.problems:
                    typer.echo(f"  {problem}")
            if result.error is not None:
                code = EXIT_LEFT
    if not count and not as_json:
        typer.echo(f"nothing waits in the journal of {data}")
    sys.exit(code)


def _warn(line: str) -> None:
    typer.echo(f"harvest: {line}", err=True)
