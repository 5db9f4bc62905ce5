"""Reads all that a page says: the verification of the directory, and the measures of each of its instruments."""

from __future__ import annotations

import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import TYPE_CHECKING

import attrs

from harvest.pipeline.verify import Report, verify
from harvest.pipeline.verify.discovery import discover
from harvest.pipeline.verify.findings import Findings
from harvest.pipeline.verify.verification import WORTH_PROCESSES_BYTES
from harvest.report.measures import Measures, measure

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from harvest.pipeline.verify.discovery import Series


@attrs.frozen
class Reading:
    """A data directory, as far as a page shows it. ``measures`` are in the order of venue and symbol."""

    report: Report
    measures: list[Measures]


def read(
    root: Path,
    *,
    jobs: int | None = None,
    on_progress: Callable[[str, int, int], None] = lambda _what, _done_bytes, _total_bytes: None,
) -> Reading:
    """Verify a data directory and measure it; it is not changed. ``jobs`` is as in ``verify``.

    ``on_progress`` gets what is being done, the bytes that were read for it, and those that there are.

    Raises:
        NothingToVerifyError: there is no data in ``root``.
    """
    report = verify(root, jobs=jobs, on_progress=lambda done, total: on_progress("verifying", done, total))
    series = discover(root, Findings(root))
    total = sum(one.size_bytes for one in series)
    if jobs is None:
        jobs = (os.cpu_count() or 1) if total >= WORTH_PROCESSES_BYTES else 1
    done = 0

    def count(size_bytes: int) -> None:
        nonlocal done
        done += size_bytes
        on_progress("measuring", done, total)

    if min(jobs, len(series)) > 1:
        return Reading(report, _measure_in_processes(series, min(jobs, len(series)), count))
    return Reading(report, [_measured(one, count) for one in series])


def _measure_in_processes(series: list[Series], jobs: int, count: Callable[[int], None]) -> list[Measures]:
    # Not fork: the caller may have threads.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=context) as pool:
        # The largest first, so that none is left over at the end.
        by_size = sorted(range(len(series)), key=lambda place: -series[place].size_bytes)
        futures = {pool.submit(measure, series[place]): place for place in by_size}
        found: dict[int, Measures] = {}
        try:
            for future in as_completed(futures):
                place = futures[future]
                found[place] = future.result()
                count(series[place].size_bytes)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return [found[place] for place in range(len(series))]


def _measured(series: Series, count: Callable[[int], None]) -> Measures:
    measures = measure(series)
    count(series.size_bytes)
    return measures
