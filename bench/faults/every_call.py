"""A fault at every single call of a flush and of a compaction, one after the other: write, fsync, link and all others that change something.

Each call fails once; then it and all after it, for as long as anybody looks; with an input/output error, and as a full disk does: of a
write that fails one half was written. And after each call the power goes. What was not said to be done must go on waiting, and be
done once when the disk works again; what was said to be done must be there, whatever a loss of power then leaves.
"""

from __future__ import annotations

import errno
import random
import shutil
import time
from collections import Counter
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import attrs
import trio
from structlog.testing import capture_logs

from bench.faults.checks import quarantined, read_rows
from bench.faults.crash_disk import CrashDisk, Refusal
from bench.faults.medium import Medium
from bench.faults.places import fast_directory
from harvest.nurseries.bookkeeper import Bookkeeper
from harvest.nurseries.writer import Writer
from harvest.settings import JournalSettings, WriterSettings
from harvest.storage import ledger
from harvest.storage.compaction import Options, compact
from harvest.storage.files import DataDirectory
from harvest.storage.journal import (
    FIRST_KIND,
    Journal,
    commit,
    list_segments,
    read_run,
    remove_segments,
)
from harvest.storage.parquet import Provenance
from harvest.storage.quarantine import Quarantine
from tests.storage.rows import one_of_each, sealed_trades
from tests.storage.small_files import publish

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from bench.faults.workload import Rows
    from harvest.storage.parquet import EncodedFile

VENUE, RUN = "binance-usdm", "20261122T000000Z0001"
ENTRIES, MALFORMED = 4, ("malformed, 牛", "malformed, too")
#: States that a loss of power may leave, tried after each call.
STATES = 6
#: Calls that fail before a disk that refuses all of them is looked at, and works again.
LASTING = 12
WAIT_S = 20.0
LATER = Options(closed_before=2**31)


class NeverDoneError(RuntimeError):
    """What was tried again and again on a disk that works, and could not be done."""


@attrs.define
class Points:
    """What was tried, by operation and sort of fault, and what was not as promised."""

    counts: Counter[tuple[str, str]] = attrs.Factory(Counter)
    violations: list[str] = attrs.Factory(list)
    seconds: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """Return it for machines."""
        points = {f"{what}, {sort}": count for (what, sort), count in self.counts.items()}
        return {"points": points, "violations": self.violations, "seconds": round(self.seconds, 1)}

    def __str__(self) -> str:
        """Say it to people."""
        points = ", ".join(f"{count:,} of {what} ({sort})" for (what, sort), count in self.counts.items())
        return f"{self.counts.total():,} points: {points}; {len(self.violations)} violations, in {self.seconds:.0f}s"


@attrs.frozen
class Operation:
    """What is interrupted. ``begin`` makes a directory, ``work`` goes on until all is done, ``check`` says what is not as it must be.

    ``check_visible`` says what readers must not see at any moment.
    """

    name: str
    begin: Callable[[Path], None]
    work: Callable[[Path, CrashDisk], None]
    check: Callable[[Path], list[str]]
    check_visible: Callable[[Path], list[str]]


def run_every_call(*, step: int = 1) -> Points:
    """Try every call of every operation; or one in ``step`` of them."""
    points, began = Points(), time.monotonic()
    with fast_directory() as directory, _impatient(), capture_logs():
        for operation in (_flush(), _compaction(directory / "rows")):
            _try_all(operation, directory, points, step)
    points.seconds = time.monotonic() - began
    return points


@contextmanager
def _impatient() -> Iterator[None]:
    """Let a journal try again at once: nobody is to wait for tries that are made as often as this."""
    before = commit.FIRST_RETRY_S, commit.LAST_RETRY_S
    commit.FIRST_RETRY_S = commit.LAST_RETRY_S = 0.001
    try:
        yield
    finally:
        commit.FIRST_RETRY_S, commit.LAST_RETRY_S = before


def _try_all(operation: Operation, directory: Path, points: Points, step: int) -> None:
    root = directory / operation.name
    operation.begin(root)
    begun = Medium.of(root)
    disk = CrashDisk(root, medium=begun)
    operation.work(root, disk)

    def note(where: str, found: list[str]) -> None:
        points.violations += [f"{operation.name}, {where}: {what}" for what in found]

    note("without a fault", operation.check(root))
    for calls in range(0, len(disk.calls) + 1, step):
        points.counts[operation.name, "a loss of power"] += 1
        where = f"the power went after call {calls} ({disk.calls[calls - 1].what if calls else 'none'})"
        for state in range(STATES):
            note(
                where,
                _after_power_cut(
                    operation, disk.medium(calls), directory / "left", state, is_done=calls == len(disk.calls)
                ),
            )
    for code in (errno.EIO, errno.ENOSPC):
        for lasts in (False, True):
            sort = f"{errno.errorcode[code]}, {'and from then on' if lasts else 'once'}"
            for at in range(0, disk.tried, step):
                points.counts[operation.name, sort] += 1
                refusal = Refusal(at, code, lasts=lasts, until=LASTING)
                note(f"{sort} at call {at}", _after_refusal(operation, directory / "refused", refusal))
    shutil.rmtree(root)


def _after_power_cut(
    operation: Operation, medium: Medium, left: Path, state: int, *, is_done: bool
) -> list[str]:
    medium = medium.leave(left, random.Random(state))
    found = operation.check(left) if is_done else operation.check_visible(left)
    DataDirectory(left, filesystem=(disk := CrashDisk(left, medium=medium))).remove_stale_temporaries()
    found += [f"done again: {what}" for what in (*_work(operation, left, disk), *operation.check(left))]
    shutil.rmtree(left)
    return found


def _after_refusal(operation: Operation, root: Path, refusal: Refusal) -> list[str]:
    operation.begin(root)
    found: list[str] = []
    refusal.on_heal = lambda: found.extend(operation.check_visible(root))
    disk = CrashDisk(root, refusal=refusal)
    found += _work(operation, root, disk)
    found += operation.check(root)
    for state in range(STATES):
        left = root.with_name("after")
        disk.medium().leave(left, random.Random(state))
        found += [f"after a loss of power: {what}" for what in operation.check(left)]
        shutil.rmtree(left)
    shutil.rmtree(root)
    return found


def _work(operation: Operation, root: Path, disk: CrashDisk) -> list[str]:
    try:
        operation.work(root, disk)
    except NeverDoneError as error:
        return [str(error)]
    return []


def _flush() -> Operation:
    """Make what a rotation and the journal beside it do: records, files with their entries in the ledger, what is malformed."""
    tables = [*one_of_each()[:3], sealed_trades(3, first_seq=50, symbol="牛来USDT")]
    rows: Rows = {}

    def begin(root: Path) -> None:
        root.mkdir()

    def work(root: Path, disk: CrashDisk) -> None:
        settings = JournalSettings(write_ms=60_000, sync_ms=60_000, reserve_bytes=0)
        journal = Journal(root, venue=VENUE, run=RUN, facts={}, settings=settings, filesystem=disk)
        if len(_journalled(root)) < ENTRIES:
            # What a crash has left of it is for recovery; here it begins anew.
            remove_segments(list_segments(root), filesystem=disk)
            journal.start()
            for seq in range(1, ENTRIES + 1):
                journal.append(FIRST_KIND, seq, b"entry %d" % seq)
            if not journal.flush(WAIT_S):
                raise NeverDoneError("the journal does not become durable")
            journal.close(WAIT_S)
        trio.run(_publish, root, disk, tables)
        quarantine = Quarantine(root, RUN, filesystem=disk)
        for number, text in enumerate(MALFORMED):
            quarantine.add(number, "connection", "why", text.encode())
        quarantine.leave_out_known()
        _until_done(quarantine.flush)

    def check_visible(root: Path) -> list[str]:
        found: list[str] = []
        for series, here in read_rows(root, found).items():
            if here - rows.get(series, here):
                found.append(f"{series}: rows that are nobody's")
        return found

    def check(root: Path) -> list[str]:
        found: list[str] = []
        here = read_rows(root, found)
        if here != (rows or here) or not here:
            found.append("the rows that are stored are not those that were published")
        rows.update(here)
        found += _ledger_findings(root)
        if _journalled(root) != list(range(1, ENTRIES + 1)):
            found.append(f"the journal has {_journalled(root)}")
        if not set(MALFORMED) <= set(quarantined(Quarantine(root, RUN).path)):
            found.append("the quarantine has not what is malformed")
        return found

    return Operation("a flush", begin, work, check, check_visible)


async def _publish(root: Path, disk: CrashDisk, tables: list[Any]) -> None:
    # After a crash, files that were published have their entries or not; recovery appends those alone that are missing.
    known = {(entry.kind, entry.symbol) for entry in ledger.read(root).entries}
    bookkeeper = Bookkeeper(root, filesystem=disk)

    def enter(file: EncodedFile) -> None:
        if (file.metadata["kind"], file.metadata["symbol"]) not in known:
            bookkeeper.enter(file)

    writer = Writer(
        directory=DataDirectory(root, filesystem=disk),
        provenance=Provenance(VENUE, RUN, "raw"),
        settings=WriterSettings(save_concurrency=1, retry_initial_s=0.001, retry_max_s=0.001),
        on_published=enter,
    )
    for sealed in tables:
        writer.submit_nowait(sealed)
    writer.close()
    with trio.fail_after(WAIT_S):
        await writer.run()

    def flush() -> None:
        if not bookkeeper.flush():
            raise OSError(errno.EIO, "some of it waits still")

    _until_done(flush)


def _compaction(template: Path) -> Operation:
    """Make one file of three, which a run has left, in each of two directories."""
    for symbol in ("BTCUSDT", "牛来USDT"):
        for number in range(3):
            publish(
                template,
                sealed_trades(2, symbol=symbol, first_seq=1 + 10 * number, first_id=100 + 2 * number),
            )
    rows = read_rows(template, [])

    def work(root: Path, disk: CrashDisk) -> None:
        def once() -> None:
            if problems := compact(root, LATER, filesystem=disk).problems:
                raise OSError(problems[0])

        _until_done(once)

    def check_visible(root: Path) -> list[str]:
        found: list[str] = []
        if read_rows(root, found) != rows:
            found.append("readers do not see each row once")
        return found

    def check(root: Path) -> list[str]:
        found = [*check_visible(root), *_ledger_findings(root)]
        if any(
            len(list(path.glob("*.parquet"))) != 1 for path in root.glob("prices/venue=*/symbol=*/date=*")
        ):
            found.append("files are left that are not compacted")
        return found

    return Operation("a compaction", partial(shutil.copytree, template), work, check, check_visible)


def _until_done(attempt: Callable[[], object]) -> None:
    """Try as a run does, again and again."""
    for _ in range(10 * LASTING):
        try:
            attempt()
        except OSError:
            continue
        return
    raise NeverDoneError("the disk works again, and it still cannot be done")


def _journalled(root: Path) -> list[int]:
    return [entry.seq for entry in read_run(root, VENUE, RUN)]


def _ledger_findings(root: Path) -> Iterator[str]:
    """Say how the ledger differs from what is there: each file once."""
    contents = ledger.read(root)
    known = Counter((entry.kind, entry.symbol, entry.file_name) for entry in contents.entries)
    files = [path for path in root.glob("*/venue=*/symbol=*/date=*/*.parquet") if path.parts[-5][0] != "_"]
    if known.total() != len(files) or {name for _, _, name in known} != {path.name for path in files}:
        yield f"the ledger has {known.total()} entries for {len(files)} files"
    if len(known) != known.total():
        yield "the ledger has a file twice"
