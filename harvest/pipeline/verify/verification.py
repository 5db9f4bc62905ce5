"""The verification of a whole data directory: one task a series, over all cores."""

from __future__ import annotations

import multiprocessing
import os
import time
from concurrent.futures import Future, ProcessPoolExecutor, wait
from typing import TYPE_CHECKING

from harvest.errors import HarvestError
from harvest.pipeline.dead_runs import dead_runs, runs_wait
from harvest.pipeline.verify.discovery import discover
from harvest.pipeline.verify.findings import Findings
from harvest.pipeline.verify.report import Report
from harvest.pipeline.verify.series import SeriesResult, verify_series
from harvest.storage.ledger import page_path, pages
from harvest.storage.lock import is_held

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.sharedctypes import Synchronized
    from pathlib import Path

    from harvest.pipeline.verify.discovery import Series

#: Below this, starting processes takes longer than they save.
WORTH_PROCESSES_BYTES = 8 * 2**20
#: Between two reports of progress, while other processes work.
POLL_S = 0.1


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
    jobs = min(jobs, len(series))
    if jobs > 1:
        results = _verify_in_processes(root, series, jobs, lambda done: on_progress(done, total))
    else:
        results = _verify_here(root, series, lambda done: on_progress(done, total))
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


def _verify_here(root: Path, series: list[Series], on_bytes: Callable[[int], None]) -> list[SeriesResult]:
    done = 0

    def count(size_bytes: int) -> None:
        nonlocal done
        done += size_bytes
        on_bytes(done)

    return [verify_series(root, one, count) for one in series]


def _verify_in_processes(
    root: Path, series: list[Series], jobs: int, on_bytes: Callable[[int], None]
) -> list[SeriesResult]:
    # Not fork: the caller may have threads.
    context = multiprocessing.get_context("spawn")
    done: Synchronized[int] = context.Value("q", 0)
    with ProcessPoolExecutor(jobs, mp_context=context, initializer=_begin, initargs=(done,)) as pool:
        # The largest first, so that none is left over at the end.
        by_size = sorted(range(len(series)), key=lambda place: -series[place].size_bytes)
        futures: dict[int, Future[SeriesResult]] = {
            place: pool.submit(_verify_there, root, series[place]) for place in by_size
        }
        try:
            waiting = set(futures.values())
            while waiting:
                _, waiting = wait(waiting, timeout=POLL_S)
                on_bytes(done.value)
            return [futures[place].result() for place in range(len(series))]
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


#: Bytes that all processes have read; set once a process by its initializer.
_done: Synchronized[int] | None = None


def _begin(done: Synchronized[int]) -> None:
    global _done
    _done = done


def _verify_there(root: Path, series: Series) -> SeriesResult:
    return verify_series(root, series, _count)


def _count(size_bytes: int) -> None:
    assert _done is not None
    with _done.get_lock():
        _done.value += size_bytes
