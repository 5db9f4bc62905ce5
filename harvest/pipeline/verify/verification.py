"""The verification of a whole data directory: one task a series, over all cores."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from harvest.errors import HarvestError
from harvest.pipeline.dead_runs import dead_runs, runs_wait
from harvest.pipeline.verify.discovery import discover
from harvest.pipeline.verify.findings import Findings
from harvest.pipeline.verify.report import Report
from harvest.pipeline.verify.sharing import verify_all
from harvest.storage.ledger import page_path, pages
from harvest.storage.lock import is_held

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from harvest.pipeline.verify.discovery import Series

#: Below this, starting processes takes longer than they save.
WORTH_PROCESSES_BYTES = 8 * 2**20


class NothingToVerifyError(HarvestError):
    """A directory that holds no data."""

    def __init__(self, root: Path) -> None:
        self.root = root
        super().__init__(
            f"{root} holds no data of harvest: name the directory that --output-dir or --data named"
        )


def verify(
    root: Path,
    *,
    jobs: int | None = None,
    on_progress: Callable[[int, int], None] = lambda _done_bytes, _total_bytes: None,
) -> Report:
    """Re-read a data directory, which is not changed.

    ``jobs`` are the processes that read at once: 1 reads in this one, None takes as many as there are cores, if that pays.
    ``on_progress`` gets the bytes that were read, and those that there are. The report does not depend on ``jobs``.

    Raises:
        NothingToVerifyError: there is no data in ``root``.
    """
    started = time.monotonic()
    findings = Findings(root)
    series = discover(root, findings) if root.is_dir() else []
    if not is_held(root) and (runs := dead_runs(root)):
        findings.damaged("unrecovered", runs_wait(root, len(runs)))
    if not series and not findings.damage:
        raise NothingToVerifyError(root)
    _report_ledger_alone(root, series, findings)
    total = sum(one.size_bytes for one in series)
    if jobs is None:
        jobs = (os.cpu_count() or 1) if total >= WORTH_PROCESSES_BYTES else 1
    results = verify_all(root, series, jobs, lambda done: on_progress(done, total))
    findings.close()
    return Report(
        root=root,
        series=[report for result in results for report in result.reports],
        damage=findings.damage + [one for result in results for one in result.damage],
        warnings=findings.warnings + [one for result in results for one in result.warnings],
        seconds=time.monotonic() - started,
    )


def _report_ledger_alone(root: Path, series: list[Series], findings: Findings) -> None:
    """Report what the ledger knows and no data file is there of at all."""
    there = {page_path(root, one.venue, one.symbol, "").parent for one in series}
    for directory in dict.fromkeys(page.parent for page in pages(root)):
        if directory not in there:
            names = f"{directory.parent.name}, {directory.name}"
            findings.warn(f"the ledger knows {names}, of which no file is there", sort="ledger")
