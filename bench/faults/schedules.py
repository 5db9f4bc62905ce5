"""Crash schedules: a run is interrupted at a random call, what a disk may have left of it is recovered, and checked.

One schedule is a workload's seed, and its own number, from which all else follows: a loss of power, or a kill and then a loss of
power; and often a second one, in the recovery itself.
"""

from __future__ import annotations

import multiprocessing
import random
import shutil
import tempfile
import time
from collections import Counter
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import pyarrow.parquet as pq

from bench.faults.crash_disk import CrashDisk, PowerCut
from bench.faults.workload import RUN, VENUE, Workload, store_uninterrupted, table_rows, work
from harvest.pipeline.dead_runs import recover_all
from harvest.pipeline.verify import verify
from harvest.storage import ledger
from harvest.storage.catalog import scan
from harvest.storage.files import DataDirectory
from harvest.storage.journal import JournalError, read_run

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from bench.faults.workload import Rows
    from harvest.pipeline.dead_runs import Recovered

#: Schedules of one workload.
SHARE = 75
#: Each so manieth ends with ``harvest verify``.
VERIFY_EVERY = 50
#: Calls of a recovery, about: where the second crash strikes.
RECOVERY_CALLS = 160


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
    #: Workloads on which ``harvest verify`` cannot be asked: it finds damage without a crash, too.
    unsound: int = 0
    #: Those after which all that was journalled was there, so that all rows are known in advance.
    whole: int = 0
    rows_recovered: int = 0
    rows_held: int = 0
    released: int = 0
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
    with _fast_directory() as directory:
        workload = work(seed, directory / "run")
        _refuse_empty(workload)
        store_uninterrupted(workload, directory / "whole")
        # A venue as bad as this one may leave what ``harvest verify`` finds fault with, without any crash.
        is_sound = not verify(directory / "whole", jobs=1).damage
        tally.unsound += not is_sound
        tally.calls, tally.released = len(workload.disk.calls), workload.released
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


def _fast_directory() -> Any:
    memory = Path("/dev/shm")
    return _Directory(dir=memory if memory.is_dir() else None, prefix="harvest-faults-")


class _Directory(tempfile.TemporaryDirectory):  # type: ignore[type-arg]
    def __enter__(self) -> Path:  # type: ignore[override]
        return Path(super().__enter__())


def _keep(schedule: Schedule, keep: Path | None) -> str | None:
    if keep is None:
        return None
    target = keep / f"{schedule.workload.seed}-{schedule.number}"
    shutil.copytree(schedule.place, target, dirs_exist_ok=True)
    return str(target)


def _refuse_empty(workload: Workload) -> None:
    """Refuse a workload that could not show what is looked for."""
    if not (workload.published and workload.journalled and workload.rows):
        raise RuntimeError(f"workload {workload.seed} has published or journalled nothing")


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

    def run(self, tally: Tally, *, with_verify: bool) -> None:
        """Crash, recover, and check."""
        tally.sorts[self.sort] += 1
        self.place.mkdir()
        root = self._crash(tally)
        try:
            self._results += recover_all(root, filesystem=CrashDisk(root))
        except Exception as error:
            self.found.append(f"the recovery has ended with {type(error).__name__}: {error}")
            return
        for result in self._results:
            tally.rows_recovered += sum(result.rows.values())
            tally.rows_held += sum(result.rows_held.values())
        self.found += [
            f"the recovery has failed: {result.error}" for result in self._results if result.error is not None
        ]
        stored = self._stored(root)
        # What follows from records that are not all there is not what it was.
        is_whole = self._is_whole and not any(result.problems for result in self._results)
        tally.whole += is_whole
        self.found += check_rows(self.workload, self.calls, stored, self._reached, is_whole=is_whole)
        self.found += check_ledger(root)
        before = _listing(root)
        again = list(recover_all(root, filesystem=CrashDisk(root)))
        if again or _listing(root) != before:
            self.found.append("a second recovery has changed something")
        if with_verify and stored:
            tally.verified += 1
            report = verify(root, jobs=1)
            if report.damage:
                self.found.append(f"verify: {report.damage}")

    def _crash(self, tally: Tally) -> Path:
        """Return a directory as the last crash has left it."""
        first, second = self.place / "first", self.place / "second"
        medium = self.workload.disk.medium(self.calls)
        if self.sort == "kill, power cut":
            medium.show(first)
        else:
            medium = medium.leave(first, self.dice)
        # Whatever else happens, recovery is to make rows of all of these.
        self._reached = last_record(first)
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
        disk.medium().leave(second, self.dice)
        return second

    def _stored(self, root: Path) -> Rows:
        """Read every visible file; two of a directory must not cover the same records."""
        catalog, stored = scan(root, VENUE), {}
        self.found += [f"{damage.path}: {damage.why}" for damage in catalog.damage]
        for kind, symbol, day in _directories(catalog):
            files = catalog.files(kind, symbol, day)
            if any(one.last_seq >= other.first_seq for one, other in pairwise(files)):
                self.found.append(f"files of {kind} {symbol} overlap")
            for file in files:
                try:
                    table = pq.ParquetFile(file.path).read(use_threads=False)
                except Exception as error:
                    self.found.append(f"{file.path.relative_to(root)} cannot be read: {error}")
                else:
                    stored.setdefault((kind, symbol), Counter()).update(table_rows(table))
        return stored


def _directories(catalog: Any) -> Iterator[tuple[str, str, int]]:
    for kind in catalog.kinds():
        for symbol in catalog.symbols(kind):
            for day in catalog.days(kind, symbol):
                yield kind, symbol, day


def last_record(root: Path) -> int:
    """Return the ``seq`` up to which the journal of the run goes on without a hole, from where it begins; 0 if there is none."""
    last = 0
    try:
        for entry in read_run(root, VENUE, RUN):
            if last and entry.seq > last + 1:
                break
            last = entry.seq
    except JournalError:
        return 0
    return last


def check_rows(workload: Workload, calls: int, stored: Rows, reached: int, *, is_whole: bool) -> list[str]:
    """Hold what is stored against what was promised before the call, and against the run that was not interrupted."""
    found = []
    durable_seq = max((one.seq for one in workload.journalled if one.calls <= calls), default=0)
    if is_whole:
        durable_seq = max(durable_seq, reached)
    files = [one for one in workload.published if one.calls <= calls]
    ends: Rows = workload.rows_with_end(reached) if reached else {}
    for series, every in workload.rows.items():
        here = stored.get(series, Counter())
        promised = [(one.first_seq, one.last_seq) for one in files if (one.kind, one.symbol) == series]
        promised.append((0, durable_seq))
        must = Counter(
            {row: count for row, count in every.items() if any(a <= row[0] <= b for a, b in promised)}
        )
        if lost := must - here:
            found.append(
                f"{series}: {lost.total()} rows that were durable are lost, first {min(lost, key=_seq)[:4]}"
            )
    for series, here in stored.items():
        if twice := [
            row for row, count in (here - (workload.rows.get(series, Counter()))).items() if count > 1
        ]:
            found.append(f"{series}: {len(twice)} rows are stored twice, first {twice[0][:4]}")
        known = workload.rows.get(series, Counter()) | ends.get(series, Counter())
        # Sums go on over what was lost in between.
        up_to = durable_seq if series[0] == "cvd" else 2**63
        more = [row for row in (here - known) if row[0] <= up_to]
        if more and is_whole:
            found.append(f"{series}: {len(more)} rows are not the run's, first {min(more, key=_seq)}")
    return found


def _seq(row: tuple[Any, ...]) -> int:
    return int(row[0])


def check_ledger(root: Path) -> list[str]:
    """Say which files the ledger does not know, and which it knows that are not there."""
    files = {path.name for path in root.glob("*/venue=*/symbol=*/date=*/*.parquet")}
    known = {entry.file_name for entry in ledger.read(root).entries}
    return [f"the ledger knows {name}, which is lost" for name in sorted(known - files)]


def _listing(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def report(tally: Tally, began: float) -> dict[str, Any]:
    """Say it to people, and return it for machines."""
    seconds = time.monotonic() - began
    sorts = ", ".join(f"{count:,} {sort}" for sort, count in sorted(tally.sorts.items()))
    print(
        f"{tally.schedules:,} schedules ({sorts}) over {tally.calls:,} calls, {tally.in_recovery:,} crashes within a recovery, "
        f"{tally.whole:,} with all of the journal; "
        f"{tally.rows_recovered:,} rows recovered, {tally.rows_held:,} held already, {tally.verified:,} verified ({tally.unsound} workloads could not be): "
        f"{len(tally.violations)} violations, in {seconds:.0f}s"
    )
    return tally.to_json(seconds)
