"""The runs that have died and left their records in the journal of a data directory: which they are, and all of them recovered."""

from __future__ import annotations

import time
from itertools import groupby
from typing import TYPE_CHECKING

import attrs
import msgspec

from harvest.errors import HarvestError
from harvest.pipeline.journal_survey import Survey, survey
from harvest.pipeline.recover import SEAL_BYTES, RecoveryReport, RunFacts, complete
from harvest.pipeline.recovery_processes import Work, recover_slices
from harvest.storage.catalog import scan
from harvest.storage.files import DataDirectory
from harvest.storage.filesystem import Filesystem
from harvest.storage.journal import (
    JournalError,
    RunContents,
    keep_damage,
    keep_raw,
    list_segments,
    read_header,
    remove_segments,
)
from harvest.storage.parquet import Provenance
from harvest.venues import VENUES

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from pathlib import Path

    from harvest.storage.journal import SegmentFile

#: Of a journal for each process that shares in it: less is through before another process has started.
JOB_BYTES = 16 * 2**20


class RunsWaitError(HarvestError):
    """The data directory is not whole before its dead runs are recovered."""

    def __init__(self, root: Path, runs: int) -> None:
        self.root, self.runs = root, runs
        super().__init__(runs_wait(root, runs))


def runs_wait(root: Path, runs: int) -> str:
    """Say that runs wait to be recovered, and what to do."""
    who = "1 run waits" if runs == 1 else f"{runs} runs wait"
    return f"{who} in the journal of {root}, with rows that are in no file yet; run `harvest recover {root}`"


@attrs.frozen
class DeadRun:
    """A run that has left segments. ``venue`` is the name that its rows lie under."""

    run: str
    venue: str
    segments: list[SegmentFile]

    @property
    def size_bytes(self) -> int:
        """How large they are."""
        return sum(segment.size_bytes for segment in self.segments)


class Recovered(msgspec.Struct, kw_only=True):
    """What came of the recovery of one dead run, as its process says it in a line of JSON.

    ``error`` is why it could not be ended: its segments stay then, and it can be repeated. ``is_disk`` tells that it may go better
    the next time, for it was the disk that refused.
    """

    run: str
    venue: str
    bytes: int
    seconds: float
    records: int = 0
    rows: dict[str, int] = {}
    rows_held: dict[str, int] = {}
    files: int = 0
    symbols: int = 0
    torn_bytes: int = 0
    damaged_bytes: int = 0
    problems: list[str] = []
    error: str | None = None
    is_disk: bool = False

    def __str__(self) -> str:
        """Say it to people."""
        if self.error is not None:
            return f"run {self.run} ({self.venue}) could not be recovered: {self.error}; its journal stays, to be tried again"
        return (
            f"run {self.run} ({self.venue}): {self.records:,} records ({self.bytes / 2**20:,.1f} MiB) in {self.seconds:.1f}s; "
            f"{sum(self.rows.values()):,} rows of {self.symbols} symbols were in no file, and are in {self.files:,} now; "
            f"{sum(self.rows_held.values()):,} were stored already"
        )


def dead_runs(root: Path, *, living: Collection[str] = ()) -> list[DeadRun]:
    """List the runs that have left segments, but for the ``living`` ones, oldest first."""
    left = [segment for segment in list_segments(root) if segment.run not in living]
    runs = [
        DeadRun(run, venue, list(segments))
        for (run, venue), segments in groupby(left, lambda segment: (segment.run, segment.path.parent.name))
    ]
    return sorted(runs, key=lambda one: one.segments[0].first_seq)


def refuse_dead_runs(root: Path) -> None:
    """Refuse to write rows behind those of runs that wait to be recovered.

    Raises:
        RunsWaitError: there are some.
    """
    if runs := dead_runs(root):
        raise RunsWaitError(root, len(runs))


def recover_all(
    root: Path,
    *,
    living: str | None = None,
    living_seq: int | None = None,
    keeps_raw: bool = False,
    jobs: int = 1,
    job_bytes: int = JOB_BYTES,
    filesystem: Filesystem | None = None,
) -> Iterator[Recovered]:
    """Recover the dead runs of a data directory, one after the other, and give what came of each; its segments go then.

    ``living`` is the run that goes on meanwhile, from ``living_seq`` on. What is damaged in the journal is kept in ``_quarantine``. Where one cannot be
    recovered, those after it wait too: their sums go on from its. ``keeps_raw`` keeps the segments as raw capture;
    where not all could be made good, they are kept so anyway. Up to ``jobs`` processes share a run, one for each ``job_bytes`` of it.
    """
    filesystem = filesystem or Filesystem()
    runs = dead_runs(root, living=() if living is None else (living,))
    bounds = [*(run.segments[0].first_seq for run in runs), living_seq]
    for run, next_run_seq in zip(runs, bounds[1:], strict=True):
        began, size = time.monotonic(), run.size_bytes
        result = Recovered(run=run.run, venue=run.venue, bytes=size, seconds=0.0)
        try:
            # A process that was killed may have written records and named files, and not have lived to force them to the medium.
            filesystem.sync(root)
            _recover(root, run, next_run_seq, result, filesystem, max(min(jobs, size // job_bytes), 1))
            if keeps_raw or result.problems:
                keep_raw(root, run.segments, filesystem=filesystem)
            remove_segments(run.segments, filesystem=filesystem)
        except (OSError, HarvestError) as error:
            result.error, result.is_disk = str(error), isinstance(error, OSError)
        result.seconds = time.monotonic() - began
        yield result
        if result.error is not None:
            return


def _recover(
    root: Path, run: DeadRun, next_run_seq: int | None, result: Recovered, filesystem: Filesystem, jobs: int
) -> None:
    contents = RunContents(run.segments)
    facts, found, report = _facts(run), Survey(), RecoveryReport(run.run)
    if facts is not None:
        venue, settings = _understood(run, facts)
        found = survey(contents, VENUES[venue])
        provenance = Provenance(run.venue, run.run, settings.id_space, settings.max_pending_diffs)
        parts = found.slices(jobs)
        seal_bytes = SEAL_BYTES // len(parts)
        work = Work(root, venue, provenance, settings, run.segments, found.first_seq, filesystem, seal_bytes)
        report = recover_slices(work, parts)
        catalog, directory = scan(root, run.venue), DataDirectory(root, filesystem=filesystem)
        report.add(
            complete(catalog=catalog, directory=directory, provenance=provenance, next_run_seq=next_run_seq)
        )
    else:
        found.records = sum(1 for _ in contents)
        if found.records:
            raise JournalError(f"no segment of run {run.run} says with which settings it was made")
    keep_damage(root, contents, filesystem=filesystem)
    result.records, result.rows, result.rows_held = found.records, report.rows, report.rows_held
    result.files, result.symbols = report.files, len(report.restored)
    result.torn_bytes = contents.torn_bytes
    result.damaged_bytes = sum(damage.end - damage.start for damage in contents.damage)
    result.problems = [
        *report.problems,
        *(f"{symbol}: it has no checkpoint, and was not recovered" for symbol in report.without_checkpoint),
        *(f"seq {first} to {last} is not in the journal" for first, last in found.holes),
        *(f"{one.path}: bytes {one.start} to {one.end} are damaged, and kept" for one in contents.damage),
    ]


def _facts(run: DeadRun) -> dict[str, object] | None:
    """Read the settings that decide the rows of a run, from the first of its segments that says so."""
    for segment in run.segments:
        header = read_header(segment.path)
        if header is not None:
            return header.facts
    return None


def _understood(run: DeadRun, facts: dict[str, object]) -> tuple[str, RunFacts]:
    """Return the name of the venue that decodes the records of a run, and the settings that decide its rows."""
    venue = str(facts.get("venue"))
    if venue not in VENUES:
        raise JournalError(f"{run.run} is of the venue {venue}, which this harvest does not know")
    try:
        return venue, msgspec.convert(facts, RunFacts)
    except msgspec.ValidationError as error:
        raise JournalError(f"the settings of {run.run} cannot be understood: {error}") from error
