"""A disk that is full for a while under a flood: it must go on by itself, and what is lost is exactly what is said to be.

The program writes to a small file system of its own (a tmpfs), which a thread keeps full to the last byte. What must be there is
asked of the sender: which ids it has sent.
"""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import pyarrow.compute as pc
import pyarrow.dataset as ds

from bench.faults.burst import BEHIND_S, flooding, peak_rss_mib, start_run, wait_until_read
from harvest.storage import ledger
from harvest.storage.journal import list_segments
from tests.program import harvest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

#: Messages a second: two and a half times the recordings' rate, about a megabyte a second in memory.
RATE = 2_400.0
MESSAGE_BYTES = 450
#: Room for the whole run, and for the reserve many times over.
DISK_BYTES = 512 * 2**20
#: What the sender goes on for before the disk is full (at least), and after it has room again.
BEFORE_S, AFTER_S = 15.0, 15.0
#: Within this the program must write again, by itself.
RESUMES_WITHIN_S = 10.0
#: The part of what comes while the disk is full that a memory which is too small holds.
TOO_SMALL = 0.3
#: Tables wait to be written whenever the disk gets room again.
SETTINGS = {"PARQUET_ROTATE_SEC": "5", "EXTREME_ROTATE_SEC": "4", "HARVEST_MIN_FREE_BYTES": "0"}
TICK_S = 0.02


class NoSmallDiskError(RuntimeError):
    """No file system can be mounted here."""


@attrs.frozen
class Loss:
    """What was sent of one stream and is not stored, against what ``harvest verify`` and the ledger say of it.

    ``silent`` ids are lost and in no interval; ``false`` ones are in an interval, and stored, or were never sent.
    """

    sent: int
    stored: int
    silent: list[int]
    false: list[int]
    #: Intervals by the reason that ``harvest verify`` gives, and those that the ledger has with the reason ``overload``.
    why: dict[str, int]
    overloads: int

    @property
    def lost(self) -> int:
        """How many messages are not stored."""
        return self.sent - self.stored


@attrs.frozen
class FullDisk:
    """What came of one full disk. ``journal_s`` and ``files_s`` passed from the room's return to the first new record and file."""

    case: str
    full_s: float
    journal_s: float | None
    files_s: float | None
    losses: dict[str, Loss]
    #: Messages that the program says it has let go.
    let_go: int
    rss_mib: float
    verify_exit: int
    damage: list[Any]
    exit_code: int
    is_loss_expected: bool

    @property
    def is_kept(self) -> bool:
        """Whether it went on in time, and what is lost is what is said: nothing where memory was enough."""
        lost = sum(loss.lost for loss in self.losses.values())
        in_time = all(
            took is not None and took <= RESUMES_WITHIN_S for took in (self.journal_s, self.files_s)
        )
        is_accounted = lost == self.let_go and not any(
            loss.silent or loss.false or (loss.lost and not loss.overloads) for loss in self.losses.values()
        )
        is_sound = not self.damage and not self.exit_code and self.verify_exit == (1 if lost else 0)
        return in_time and is_accounted and is_sound and bool(lost) == self.is_loss_expected

    def to_json(self) -> dict[str, Any]:
        """Return it for machines."""
        lost = {stream: loss.lost for stream, loss in self.losses.items()}
        return attrs.asdict(self) | {"lost": lost, "kept": self.is_kept}

    def __str__(self) -> str:
        """Say it to people."""
        lines = [
            f"{self.case}: the disk (a tmpfs) was full for {self.full_s:.0f}s; the first new record was durable after "
            f"{_seconds(self.journal_s)}, the first new file there after {_seconds(self.files_s)}; {self.let_go:,} messages were let "
            f"go; peak RSS {self.rss_mib:.0f} MiB; exit {self.exit_code}; harvest verify says {self.verify_exit}",
            *(
                f"  {stream}: {loss.sent:,} sent, {loss.stored:,} stored, {loss.lost:,} lost; {len(loss.silent):,} in no interval, "
                f"{len(loss.false):,} in one wrongly; intervals {loss.why}, {loss.overloads} of them for overload in the ledger"
                for stream, loss in self.losses.items()
            ),
            *map(str, self.damage[:20]),
        ]
        return "\n".join(lines)


def run_full_disks(seconds: float, *, rate: float = RATE) -> Iterator[FullDisk]:
    """Fill a disk for so long, once with memory enough for all that comes meanwhile, and once with too little.

    Raises:
        NoSmallDiskError: it takes Linux, and the right to mount.
    """
    comes = rate * seconds * MESSAGE_BYTES
    budget = max(4 * 2**20, int(comes * TOO_SMALL))
    yield fill_disk("memory enough", seconds, rate, {}, is_loss_expected=False)
    small = {"HARVEST_MAX_BUFFERED_BYTES": str(budget)}
    yield fill_disk(f"{budget / 2**20:.0f} MiB of memory", seconds, rate, small, is_loss_expected=True)


def fill_disk(
    case: str, full_s: float, rate: float, settings: dict[str, str], *, is_loss_expected: bool
) -> FullDisk:
    """Record a flood on a disk that is full for ``full_s`` seconds, and account for everything that was sent."""
    with (
        tempfile.TemporaryDirectory(prefix="harvest-full-disk-") as name,
        small_disk(Path(name, "disk")) as disk,
        flooding(rate, BEFORE_S + full_s + AFTER_S) as (port, flood),
        Path(name, "run.log").open("wb") as log,
    ):
        data, said = disk / "data", Path(name, "run.log")
        run = start_run(port, Path(name), log, data, **SETTINGS, **settings)
        try:
            _until(lambda: bool(_files(data)) and (data / "_journal" / "reserve").exists(), run)
            with kept_full(disk / "ballast"):
                _until(lambda: "[JOURNAL] cannot write" in said.read_text(), run)
                time.sleep(full_s)
                before, written = _files(data), _journalled(data)
                freed_s = time.monotonic()
            journal_s: float | None = None
            files_s: float | None = None
            while time.monotonic() < freed_s + 2 * RESUMES_WITHIN_S and None in (journal_s, files_s):
                time.sleep(TICK_S)
                if journal_s is None and _journalled(data) > written and _takes_journal(said):
                    journal_s = time.monotonic() - freed_s
                if files_s is None and _files(data) - before:
                    files_s = time.monotonic() - freed_s
            assert flood.stdout is not None
            sent = {one["stream"]: one for one in (json.loads(flood.stdout.readline()) for _ in range(2))}
            wait_until_read(run, port)
        finally:
            rss_mib = peak_rss_mib(run.pid)
            run.send_signal(signal.SIGTERM)
            code = run.wait(BEHIND_S)
        verified = harvest("verify", data, "--json", cwd=Path(name), timeout_s=600)
        report = json.loads(verified.stdout)
        let_go = re.search(r"([\d,]+) messages lost to overload", said.read_text())
        return FullDisk(
            case,
            full_s,
            journal_s,
            files_s,
            {
                stream: account(data, kind, feed, sent[stream]["ids"], report)
                for stream, kind, feed in (("trades", "prices", "trade"), ("diffs", "depth", "orderbook"))
            },
            int(let_go[1].replace(",", "")) if let_go else 0,
            rss_mib,
            verified.returncode,
            report["damage"],
            code,
            is_loss_expected,
        )


@contextmanager
def small_disk(where: Path, size: int = DISK_BYTES) -> Iterator[Path]:
    """Mount a file system of ``size`` bytes.

    Raises:
        NoSmallDiskError: it takes Linux, and the right to mount.
    """
    where.mkdir()
    if sys.platform != "linux" or shutil.which("mount") is None:
        raise NoSmallDiskError("a small file system is mounted on Linux alone")
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(where)],
        check=False,
        capture_output=True,
        text=True,
    )
    if mounted.returncode:
        raise NoSmallDiskError(f"{mounted.stderr.strip()} (`unshare -rm` before the command may help)")
    try:
        yield where
    finally:
        subprocess.run(["umount", "-l", str(where)], check=True)


@contextmanager
def kept_full(ballast: Path) -> Iterator[None]:
    """Take all that is left of a disk, and whatever becomes free; at the end it has room again."""
    is_over = threading.Event()

    def fill() -> None:
        with ballast.open("wb", buffering=0) as file:
            while not is_over.is_set():
                for size in (2**20, 2**12, 1):
                    with suppress(OSError):
                        while file.write(bytes(size)) == size and not is_over.is_set():
                            pass
                is_over.wait(TICK_S)

    filling = threading.Thread(target=fill)
    filling.start()
    try:
        yield
    finally:
        is_over.set()
        filling.join()
        ballast.unlink()


def _until(is_so: Callable[[], bool], run: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + BEHIND_S
    while not is_so():
        if run.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"harvest run does not come so far (exit {run.poll()})")
        time.sleep(TICK_S)


def _files(data: Path) -> set[Path]:
    return {path for path in data.glob("*/venue=*/symbol=*/date=*/*.parquet") if path.name[0] != "."}


def _journalled(data: Path) -> tuple[int, int]:
    """Return the number of the newest segment, and its bytes."""
    for segment in reversed(list_segments(data)):
        with suppress(FileNotFoundError):
            return segment.number, segment.size_bytes
    return 0, 0


def _takes_journal(said: Path) -> bool:
    """Tell whether the program says that the disk takes the journal, which it says after an fsync alone."""
    text = said.read_text()
    return text.rfind("the disk takes the journal again") > text.rfind("[JOURNAL] cannot write")


def account(data: Path, kind: str, feed: str, sent: list[list[int]], report: dict[str, Any]) -> Loss:
    """Hold the ids that were sent (first, last, step) against what is stored, and what ``harvest verify`` names as missing."""
    ids = {one for first, last, step in sent for one in range(first, last + 1, step)}
    stored = set(_stored(data, kind))
    missing = [one for series in report["series"] if series["kind"] == kind for one in series["missing"]]
    # Of diffs an interval begins behind the last that is stored.
    is_after = kind == "depth"
    named = {one for gap in missing for one in ids if gap["from_id"] + is_after <= one <= gap["to_id"]}
    never_sent = [gap["to_id"] for gap in missing if gap["to_id"] not in ids]
    why: dict[str, int] = {}
    for gap in missing:
        why[gap["why"]] = why.get(gap["why"], 0) + 1
    told = {
        (gap.from_id, gap.to_id)
        for entry in ledger.read(data).entries
        for gap in entry.missing
        if gap.feed == feed and gap.why == "overload"
    }
    # Whatever became of them later: the ledger says first why they are missing.
    overloads = told & {(gap["from_id"], gap["to_id"]) for gap in missing}
    return Loss(
        len(ids),
        len(stored & ids),
        sorted(ids - stored - named)[:100],
        sorted((named & stored) | set(never_sent) | (stored - ids))[:100],
        why,
        len(overloads) if len(overloads) == len(missing) else 0,
    )


def _stored(data: Path, kind: str) -> list[int]:
    column = {"prices": "trade_id", "depth": "last_update_id"}[kind]
    files = [str(path) for path in _files(data) if path.relative_to(data).parts[0] == kind]
    table = ds.dataset(files, format="parquet").to_table(columns=[column, "source"])
    found: list[int] = table.filter(pc.equal(table["source"], "ws"))[column].to_pylist()
    if len(found) != len(set(found)):
        raise RuntimeError(f"{len(found) - len(set(found))} messages of {kind} are stored twice")
    return found


def _seconds(value: float | None) -> str:
    return "(never)" if value is None else f"{value:.1f}s"
