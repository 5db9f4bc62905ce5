"""Crash schedules: a run is interrupted at a random call, what a disk may have left of it is recovered, and checked.

One schedule is a workload's seed, and its own number, from which all else follows: a loss of power, or a kill and then a loss of
power; and often a second one, in the recovery itself, or in a compaction after it.
"""

from __future__ import annotations

import multiprocessing
import random
import shutil
import time
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Any

import attrs

from bench.faults.checks import (
    check_ledger,
    check_quarantine,
    check_readers,
    check_rows,
    last_record,
    read_rows,
)
from bench.faults.crash_disk import CrashDisk, PowerCut
from bench.faults.places import fast_directory
from bench.faults.workload import COMPACTS_ALL, Workload, store_uninterrupted, work
from harvest.pipeline.dead_runs import recover_all
from harvest.pipeline.verify import verify
from harvest.storage.compaction import compact
from harvest.storage.compaction.swap import STAGING
from harvest.storage.files import DataDirectory

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from bench.faults.medium import Medium
    from bench.faults.workload import Rows
    from harvest.pipeline.dead_runs import Recovered

#: Schedules of one workload.
SHARE = 75
#: From the seed of a workload that shows nothing to the next one that is tried: beyond all that are asked for.
OTHER_SEED = 10**9
#: Each so manieth ends with ``harvest verify``.
VERIFY_EVERY = 50
#: Calls of a recovery, about: where the second crash strikes.
RECOVERY_CALLS = 160
#: Each so manieth ends with a compaction that is cut off, and how many calls one takes, about.
COMPACT_EVERY = 3
COMPACTION_CALLS = 300


@attrs.frozen
class Violation:
    """A promise that was not kept: what reproduces it, and where the directory is kept, if it was asked for."""

    seed: int
    number: int
    calls: int
    sort: str
    what: str
    kept: str | None = None

    def __str__(self) -> str:
        """Say it to people."""
        kept = f" (kept in {self.kept})" if self.kept else ""
        return (
            f"--seed {self.seed} --only {self.number}, {self.sort} after call {self.calls}: {self.what}{kept}"
        )


@attrs.define
class Tally:
    """What was tried, and what came of it."""

    schedules: int = 0
    calls: int = 0
    sorts: Counter[str] = attrs.Factory(Counter)
    #: Crashes that struck the recovery before it had ended.
    in_recovery: int = 0
    verified: int = 0
    #: Crashes that struck a compaction after the recovery.
    in_compaction: int = 0
    #: Workloads on which ``harvest verify`` cannot be asked: it finds damage without a crash, too.
    unsound: int = 0
    #: Those after which all that was journalled was there, so that all rows are known in advance.
    whole: int = 0
    rows_recovered: int = 0
    rows_held: int = 0
    released: int = 0
    #: Directories that the workloads have compacted.
    compacted: int = 0
    violations: list[Violation] = attrs.Factory(list)

    def add(self, other: Tally) -> None:
        """Take in what another process found."""
        for field in attrs.fields(Tally):
            setattr(self, field.name, getattr(self, field.name) + getattr(other, field.name))

    def to_json(self, seconds: float) -> dict[str, Any]:
        """Return it for machines."""
        return attrs.asdict(self) | {"seconds": round(seconds, 1)}


def run_schedules(count: int, *, seed: int, only: int | None, jobs: int | None, keep: Path | None) -> Tally:
    """Try ``count`` schedules, on all cores; with ``only``, that one of the workload ``seed``."""
    if only is not None:
        return try_schedules((seed, range(only, only + 1)), keep=keep)
    shares = [(seed + start // SHARE, range(min(SHARE, count - start))) for start in range(0, count, SHARE)]
    total = Tally()
    # Not forked: the workloads have threads.
    with multiprocessing.get_context("spawn").Pool(jobs) as pool:
        for found in pool.imap_unordered(partial(try_schedules, keep=keep), shares):
            total.add(found)
            for violation in found.violations:
                print(violation, flush=True)
            print(f"{total.schedules:,} schedules, {len(total.violations)} violations", flush=True)
    return total


def try_schedules(share: tuple[int, Sequence[int]], *, keep: Path | None) -> Tally:
    """Try some schedules of one workload, in this process."""
    seed, numbers = share
    tally = Tally()
    with fast_directory() as directory:
        workload = _workload(seed, directory)
        store_uninterrupted(workload, directory / "whole")
        # A venue as bad as this one may leave what ``harvest verify`` finds fault with, without any crash.
        is_sound = not verify(directory / "whole", jobs=1).damage
        tally.unsound += not is_sound
        tally.calls, tally.released = len(workload.disk.calls), workload.released
        tally.compacted = workload.compacted
        for number in numbers:
            tally.schedules += 1
            schedule = Schedule(workload, number, directory / f"{number}")
            schedule.run(tally, with_verify=is_sound and number % VERIFY_EVERY == 0)
            if schedule.found:
                kept = _keep(schedule, keep)
                tally.violations += [
                    Violation(seed, number, schedule.calls, schedule.sort, what, kept)
                    for what in schedule.found
                ]
            shutil.rmtree(schedule.place)
    return tally


def _keep(schedule: Schedule, keep: Path | None) -> str | None:
    if keep is None:
        return None
    target = keep / f"{schedule.workload.seed}-{schedule.number}"
    shutil.copytree(schedule.place, target, dirs_exist_ok=True)
    return str(target)


def _workload(seed: int, directory: Path) -> Workload:
    """Make the workload of a seed; for one that by chance could not show what is looked for, that of another seed."""
    for number in range(seed, seed + 10 * OTHER_SEED, OTHER_SEED):
        workload = work(number, directory / f"run-{number}")
        if workload.published and workload.journalled and workload.rows:
            return workload
    raise RuntimeError(f"no workload of seed {seed} has published and journalled anything")


class Schedule:
    """One crash of a workload, and all that follows. ``found`` are the promises that were not kept."""

    def __init__(self, workload: Workload, number: int, place: Path) -> None:
        self.workload = workload
        self.number = number
        self.place = place
        self.dice = random.Random(f"{workload.seed} {number}")
        self.calls = self.dice.randint(0, len(workload.disk.calls))
        self.sort = self.dice.choice(("power cut", "power cut, twice", "kill, power cut"))
        self.found: list[str] = []
        self._reached = 0
        self._is_whole = True
        self._results: list[Recovered] = []
        #: What is there when the last recovery begins, and what of that is durable.
        self._medium: Medium | None = None

    def run(self, tally: Tally, *, with_verify: bool) -> None:
        """Crash, recover, and check."""
        tally.sorts[self.sort] += 1
        self.place.mkdir()
        root = self._crash(tally)
        disk = CrashDisk(root, medium=self._medium)
        try:
            self._results += recover_all(root, filesystem=disk)
        except Exception as error:
            self.found.append(f"the recovery has ended with {type(error).__name__}: {error}")
            return
        for result in self._results:
            tally.rows_recovered += sum(result.rows.values())
            tally.rows_held += sum(result.rows_held.values())
        self.found += [
            f"the recovery has failed: {result.error}" for result in self._results if result.error is not None
        ]
        stored = read_rows(root, self.found)
        # What follows from records that are not all there is not what it was.
        is_whole = self._is_whole and not any(result.problems for result in self._results)
        tally.whole += is_whole
        self.found += check_rows(self.workload, self.calls, stored, self._reached, is_whole=is_whole)
        self.found += check_ledger(root, is_complete=bool(self._results))
        self.found += check_quarantine(self.workload, self.calls, self._reached if is_whole else 0, root)
        before = _listing(root)
        again = list(recover_all(root, filesystem=CrashDisk(root)))
        if again or _listing(root) != before:
            self.found.append("a second recovery has changed something")
        if with_verify and stored:
            tally.verified += 1
            report = verify(root, jobs=1)
            if report.damage:
                self.found.append(f"verify: {report.damage}")
        if self.number % COMPACT_EVERY == 0:
            self._compact(root, disk.medium(), stored, tally)

    def _compact(self, root: Path, medium: Medium, stored: Rows, tally: Tally) -> None:
        """Cut a compaction off, and let the next one complete it; whoever reads meanwhile finds each row once."""
        disk = CrashDisk(root, medium=medium, cut_at=self.dice.randrange(COMPACTION_CALLS))
        left = self.place / "compacted"
        try:
            compact(root, COMPACTS_ALL, filesystem=disk)
        except PowerCut:
            tally.in_compaction += 1
        if read_rows(root, self.found) != stored:
            self.found.append("a compaction that was cut off has changed what readers see")
        medium = disk.medium().leave(left, self.dice)
        if read_rows(left, self.found) != stored:
            self.found.append("a loss of power in a compaction has changed what readers see")
        done = compact(left, COMPACTS_ALL, filesystem=CrashDisk(left, medium=medium))
        self.found += [f"the next compaction: {problem}" for problem in done.problems]
        if read_rows(left, self.found) != stored:
            self.found.append("the compaction after it has changed what readers see")
        if staged := [path for path in (left / STAGING).glob("*/**/*") if path.is_file()]:
            self.found.append(f"the compaction after it has left {len(staged)} files staged")
        self.found += check_ledger(left, is_complete=bool(self._results), is_compacted=True)

    def _crash(self, tally: Tally) -> Path:
        """Return a directory as the last crash has left it."""
        first, second = self.place / "first", self.place / "second"
        medium = self.workload.disk.medium(self.calls)
        if self.sort == "kill, power cut":
            medium.show(first)
        else:
            medium = medium.leave(first, self.dice)
        self.found += check_readers(self.workload, self.calls, first)
        # Whatever else happens, recovery is to make rows of all of these.
        self._reached = last_record(first)
        self._medium = medium
        if self.sort == "power cut":
            return first
        disk = CrashDisk(first, medium=medium, cut_at=self.dice.randrange(RECOVERY_CALLS))
        try:
            # A start removes what was half-written, before all.
            DataDirectory(first, filesystem=disk).remove_stale_temporaries()
            self._results += recover_all(first, filesystem=disk)
        except PowerCut:
            tally.in_recovery += 1
            if self.sort == "kill, power cut" and not any(call.what == "sync" for call in disk.calls):
                # What the process had written was lost with the power, before anybody could force it to the medium.
                self._is_whole = False
        self._medium = disk.medium().leave(second, self.dice)
        return second


def _listing(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def report(tally: Tally, began: float) -> dict[str, Any]:
    """Say it to people, and return it for machines."""
    seconds = time.monotonic() - began
    sorts = ", ".join(f"{count:,} {sort}" for sort, count in sorted(tally.sorts.items()))
    print(
        f"{tally.schedules:,} schedules ({sorts}) over {tally.calls:,} calls, {tally.in_recovery:,} crashes within a recovery, "
        f"{tally.in_compaction:,} within a compaction after it, {tally.compacted:,} directories compacted before, {tally.whole:,} with all of the journal; "
        f"{tally.rows_recovered:,} rows recovered, {tally.rows_held:,} held already, {tally.verified:,} verified ({tally.unsound} workloads could not be): "
        f"{len(tally.violations)} violations, in {seconds:.0f}s"
    )
    return tally.to_json(seconds)
