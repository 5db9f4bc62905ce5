"""Upkeep on the virtual clock: what a full disk says, how often, and what waits in memory when nothing can be written."""

from __future__ import annotations

import errno
import json
import time
from typing import TYPE_CHECKING, Any

import pytest
import structlog
import trio

from harvest.nurseries import upkeep as upkeep_room
from harvest.nurseries.upkeep import INTERVAL_S, REPEAT_S, Upkeep
from harvest.pipeline.machine import DAYS_KEPT
from harvest.storage.files import DataDirectory
from harvest.storage.quarantine import Quarantine
from tests.pipeline.wire import DAY, Harness, trade

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

GIB = 2**30


class Directory:
    """A data directory whose disk has as much room as it is told, or cannot be asked."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.free: int | OSError = 5 * GIB
        self.asked_at: list[float] = []

    def free_bytes(self) -> int:
        self.asked_at.append(len(self.asked_at))
        if isinstance(self.free, OSError):
            raise self.free
        return self.free


class Pipeline:
    def __init__(self) -> None:
        self.forgotten: list[int] = []

    def forget_before(self, day: int) -> None:
        self.forgotten.append(day)


class Bench:
    def __init__(self, root: Path, *, min_free_bytes: int = GIB) -> None:
        self.directory: Any = Directory(root)
        self.pipeline: Any = Pipeline()
        self.quarantine = Quarantine(root, "run")
        self.upkeep = Upkeep(self.directory, self.pipeline, self.quarantine, min_free_bytes=min_free_bytes)

    async def run(self, seconds: float) -> None:
        with trio.move_on_after(seconds):
            await self.upkeep.run()


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


@pytest.fixture
def clock(autojump_clock: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Give the virtual clock, which would jump on while a thread is at work: so there is none."""

    async def run_here(function: Callable[..., Any], *arguments: Any) -> Any:
        await trio.lowlevel.checkpoint()
        return function(*arguments)

    monkeypatch.setattr(trio.to_thread, "run_sync", run_here)
    return autojump_clock


@pytest.fixture
def lines() -> Iterator[list[Any]]:
    with structlog.testing.capture_logs() as captured:
        yield captured


async def test_everything_is_looked_after_once_a_minute(bench, clock, lines):
    await bench.run(10 * INTERVAL_S + 1)
    assert len(bench.directory.asked_at) == len(bench.pipeline.forgotten) == 11
    assert lines == []


async def test_what_waits_for_the_ledger_is_entered_once_a_minute_and_at_the_end(bench, clock):
    entered = []
    bench.upkeep = Upkeep(
        bench.directory,
        bench.pipeline,
        bench.quarantine,
        min_free_bytes=0,
        flush_ledger=lambda: entered.append(1),
    )
    await bench.run(10 * INTERVAL_S + 1)
    assert len(entered) == 11
    assert await bench.upkeep.flush()
    assert len(entered) == 12


async def test_a_low_disk_is_warned_of_at_once_and_then_once_an_hour(bench, clock, lines):
    bench.directory.free = GIB - 1
    await bench.run(2 * REPEAT_S + INTERVAL_S / 2)
    assert [(line["tag"], line["log_level"]) for line in lines] == [("DISK", "warning")] * 3
    assert lines[0]["free_bytes"] == GIB - 1
    assert str(bench.directory.root) in lines[0]["event"]
    assert "min_free_bytes" in lines[0]["event"]


async def test_a_disk_that_becomes_low_later_is_noticed_within_a_minute(bench, clock, lines):
    await bench.run(5000)
    bench.directory.free = 0
    await bench.run(INTERVAL_S)
    assert len(lines) == 1
    assert lines[0]["event"].startswith("only 0.0 GiB free at ")


@pytest.mark.parametrize(("min_free_bytes", "free"), [(GIB, GIB), (0, 0)])
async def test_a_disk_at_the_threshold_is_not_low_and_a_threshold_of_zero_never_warns(
    min_free_bytes, free, tmp_path, clock, lines
):
    bench = Bench(tmp_path, min_free_bytes=min_free_bytes)
    bench.directory.free = free
    await bench.run(200)
    assert lines == []


async def test_the_free_space_is_told_as_it_was_at_the_last_look(bench, clock, lines):
    assert bench.upkeep.free_text == "unknown"
    await bench.run(1)
    assert bench.upkeep.free_text == "5.0 GiB"
    bench.directory.free = 1234 * GIB
    await bench.run(1)
    assert bench.upkeep.free_text == "1,234.0 GiB"


async def test_a_disk_that_cannot_be_asked_is_unknown_again_and_the_upkeep_goes_on(bench, clock, lines):
    await bench.run(1)
    bench.directory.free = OSError(errno.EIO, "Input/output error")
    await bench.run(INTERVAL_S + 1)
    assert bench.upkeep.free_text == "unknown"
    assert [line["log_level"] for line in lines] == ["error"] * 2
    assert lines[0]["event"] == f"cannot tell the free space of {bench.directory.root}: Input/output error"
    assert len(bench.pipeline.forgotten) == 3
    bench.directory.free = 2 * GIB
    await bench.run(1)
    assert bench.upkeep.free_text == "2.0 GiB"


async def test_the_real_disk_is_asked_even_before_the_data_directory_is_there(tmp_path, clock, lines):
    bench = Bench(tmp_path)
    bench.upkeep = Upkeep(
        DataDirectory(tmp_path / "a" / "b"), bench.pipeline, bench.quarantine, min_free_bytes=0
    )
    await bench.run(1)
    assert bench.upkeep.free_text.endswith(" GiB")
    assert not (tmp_path / "a").exists()
    assert lines == []


async def test_malformed_messages_are_in_their_file_within_a_minute(bench, clock):
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bench.upkeep.run)
        await trio.sleep(1)
        bench.quarantine.add(7, "trade-1", "no JSON", b"broken")
        await trio.sleep(INTERVAL_S)
        nursery.cancel_scope.cancel()
    assert json.loads(bench.quarantine.path.read_text()) == {
        "recv_ns": 7,
        "connection": "trade-1",
        "why": "no JSON",
        "text": "broken",
    }


async def test_what_cannot_be_written_waits_in_memory_and_is_written_once_when_it_can(bench, clock, lines):
    # A file where the directory should be.
    blocked = bench.quarantine.path.parent
    blocked.write_text("in the way")
    bench.quarantine.add(1, "trade-1", "why", b"first")
    await bench.run(INTERVAL_S + 1)
    assert [(line["tag"], line["log_level"]) for line in lines] == [("DISK", "error")] * 2
    assert lines[0]["event"].startswith(f"cannot write {bench.quarantine.path}: ")
    assert lines[0]["event"].endswith("; malformed messages wait in memory")
    bench.quarantine.add(2, "trade-1", "why", b"second")
    blocked.unlink()
    await bench.upkeep.flush()
    await bench.upkeep.flush()
    kept = [json.loads(line)["text"] for line in bench.quarantine.path.read_text().splitlines()]
    assert kept == ["first", "second"]


async def test_old_dates_are_let_go_and_those_of_the_last_days_kept(tmp_path, clock, monkeypatch):
    bench, harness = Bench(tmp_path), Harness()
    bench.upkeep = Upkeep(bench.directory, harness.pipeline, bench.quarantine, min_free_bytes=0)
    monkeypatch.setattr(
        upkeep_room, "time", type("Time", (), {"time_ns": lambda: (DAY + 5) * 86_400 * 10**9})
    )
    for number, age in enumerate((0, DAYS_KEPT, DAYS_KEPT + 1)):
        harness.frames(trade(number + 1, at_ms=(DAY + 5 - age) * 86_400_000))
    harness.rows("prices")
    # One that still holds rows is never dropped, however old.
    harness.frames(trade(9, at_ms=(DAY - 3) * 86_400_000))
    await bench.run(1)
    days = {table.day for table in harness.pipeline.tables if table.kind.name == "prices"}
    assert days == {DAY + 5, DAY + 5 - DAYS_KEPT, DAY - 3}


async def test_cancelled_while_the_disk_is_slow_it_ends_with_the_disk_and_loses_nothing(bench, monkeypatch):
    def slow() -> int:
        time.sleep(0.1)
        return GIB

    monkeypatch.setattr(bench.directory, "free_bytes", slow)
    bench.quarantine.add(1, "trade-1", "why", b"kept")
    with trio.fail_after(20):
        await bench.run(0.02)
        await bench.upkeep.flush()
    assert "kept" in bench.quarantine.path.read_text()
