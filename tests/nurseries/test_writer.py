from __future__ import annotations

import contextlib
import errno
import threading
from typing import TYPE_CHECKING, Any

import attrs
import pyarrow.parquet as pq
import pytest
import structlog
import trio
import trio.testing

from harvest.nurseries.writer import Unwritten, Writer
from harvest.storage.files import DataDirectory
from harvest.storage.filesystem import Filesystem
from harvest.storage.parquet import Provenance
from tests.storage.rows import sealed_sums, sealed_trades

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from harvest.storage.tables import Sealed

RUN = "20261122T000000Z00ff"
PROVENANCE = Provenance("binance-usdm", RUN, trade_ids="aggregate")


@attrs.frozen
class Settings:
    save_concurrency: int = 2
    queue_tables: int = 8
    retry_initial_s: float = 1.0
    retry_max_s: float = 60.0


class Disk(Filesystem):
    """Fails while ``fails`` is set; writes wait while ``gate`` is closed. It counts links, and writes at once."""

    def __init__(self) -> None:
        self.fails: set[str] = set()
        self.code = errno.ENOSPC
        self.gate = threading.Event()
        self.gate.set()
        self.linked: list[str] = []
        self.at_once = self.most_at_once = 0
        self._lock = threading.Lock()

    def write(self, descriptor: int, data: memoryview) -> int:
        with self._lock:
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
        self.gate.wait(10)
        with self._lock:
            self.at_once -= 1
        return super().write(descriptor, data)

    def link(self, source: Path, target: Path) -> None:
        if any(part in str(target) for part in self.fails):
            raise OSError(self.code, "No space left on device")
        super().link(source, target)
        self.linked.append(target.name)


@pytest.fixture
def disk() -> Iterator[Disk]:
    disk = Disk()
    yield disk
    disk.gate.set()


@pytest.fixture
def virtual_clock(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> trio.testing.MockClock:
    """Run what belongs in threads at once, for the virtual clock does not wait for threads."""

    async def run_sync(
        function: Any, *args: Any, limiter: Any = None, abandon_on_cancel: bool = False
    ) -> Any:
        async with limiter or contextlib.nullcontext():
            await trio.lowlevel.checkpoint()
            return function(*args)

    monkeypatch.setattr(trio.to_thread, "run_sync", run_sync)
    return autojump_clock


def make(root: Path, disk: Disk, **settings: Any) -> Writer:
    directory = DataDirectory(root, filesystem=disk)
    return Writer(directory=directory, provenance=PROVENANCE, settings=Settings(**settings))  # type: ignore[arg-type]


def paths(root: Path) -> list[Path]:
    return sorted(path for path in root.rglob("*.parquet") if not path.name.startswith("."))


def stored(root: Path) -> list[str]:
    return sorted(path.name for path in paths(root))


def some(count: int, first: int = 0) -> list[Sealed]:
    return [sealed_trades(2, first_seq=10 * index) for index in range(first, first + count)]


def name_of(sealed: Sealed) -> str:
    return f"{RUN}-{sealed.first_seq}-{sealed.last_seq}.parquet"


async def until(condition: Any) -> None:
    """Wait for other threads, in real time."""
    with trio.fail_after(30):
        while not condition():  # noqa: ASYNC110 - what is awaited happens in threads
            await trio.sleep(0.001)


async def test_a_file_is_published_when_its_records_are_durable_and_not_before(
    tmp_path: Path, disk: Disk
) -> None:
    (sealed,) = some(1)
    waited: list[tuple[int, list[str]]] = []
    writer = Writer(
        directory=DataDirectory(tmp_path, filesystem=disk),
        provenance=PROVENANCE,
        settings=Settings(),  # type: ignore[arg-type]
        wait_durable=lambda seq: waited.append((seq, stored(tmp_path))),
    )
    assert writer.submit_nowait(sealed)
    writer.close()
    await writer.run()
    assert waited == [(sealed.last_seq, [])]
    assert stored(tmp_path) == [name_of(sealed)]


async def test_what_is_submitted_before_and_while_running_is_published(tmp_path: Path, disk: Disk) -> None:
    writer = make(tmp_path, disk)
    tables = some(6)
    for sealed in tables[:3]:
        assert writer.submit_nowait(sealed)
    async with trio.open_nursery() as nursery:
        await nursery.start(writer.run)
        for sealed in tables[3:]:
            assert writer.submit_nowait(sealed)
        writer.close()
    assert stored(tmp_path) == sorted(map(name_of, tables))
    assert writer.unwritten() == []
    assert writer.stats.files == 6
    assert writer.stats.rows == {("prices", "BTCUSDT"): 12}
    assert writer.stats.bytes == sum(path.stat().st_size for path in paths(tmp_path))
    assert writer.stats.last_path is not None
    assert writer.stats.last_duration_s is not None
    pending = writer.pending()
    assert (pending.tables, pending.bytes, pending.in_flight, pending.failing) == (0, 0, 0, 0)


async def test_files_carry_the_provenance_of_their_time(tmp_path: Path, disk: Disk) -> None:
    writer = make(tmp_path, disk)
    writer.provenance = attrs.evolve(PROVENANCE, trade_ids="raw")
    writer.submit_nowait(sealed_trades())
    writer.close()
    await writer.run()
    (path,) = paths(tmp_path)
    assert pq.read_metadata(path).metadata[b"harvest.trade_ids"] == b"raw"


async def test_no_more_flushes_run_at_once_than_allowed(tmp_path: Path, disk: Disk) -> None:
    writer = make(tmp_path, disk, save_concurrency=3)
    disk.gate.clear()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(writer.run)
        for sealed in some(8):
            assert writer.submit_nowait(sealed)
        await until(lambda: disk.at_once == 3)
        pending = writer.pending()
        assert (pending.tables, pending.in_flight, pending.failing) == (8, 3, 0)
        assert pending.bytes == writer.waiting_bytes > 0
        disk.gate.set()
        writer.close()
    assert disk.most_at_once == 3
    assert len(stored(tmp_path)) == 8


async def test_a_full_queue_refuses_and_takes_again_when_there_is_room(tmp_path: Path, disk: Disk) -> None:
    writer = make(tmp_path, disk, queue_tables=2)
    first, second, third = some(3)
    assert writer.submit_nowait(first)
    assert writer.submit_nowait(second)
    assert not writer.submit_nowait(third)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(writer.run)
        await writer.submit(third)
        writer.close()
    assert len(stored(tmp_path)) == 3


async def test_a_cancelled_submit_has_taken_nothing(tmp_path: Path, disk: Disk) -> None:
    writer = make(tmp_path, disk, queue_tables=1)
    first, second = some(2)
    with trio.CancelScope() as scope:
        scope.cancel()
        await writer.submit(first)
    assert writer.unwritten() == []
    assert writer.submit_nowait(first)
    with trio.move_on_after(0.01):
        await writer.submit(second)
    assert [rows.first_seq for rows in writer.unwritten()] == [first.first_seq]


async def test_a_closed_writer_takes_nothing(tmp_path: Path, disk: Disk) -> None:
    writer = make(tmp_path, disk, queue_tables=1)
    writer.submit_nowait(sealed_trades())
    async with trio.open_nursery() as nursery:

        async def submit() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await writer.submit(sealed_sums([1.0]))

        nursery.start_soon(submit)
        await trio.testing.wait_all_tasks_blocked()
        writer.close()
    with pytest.raises(trio.ClosedResourceError):
        writer.submit_nowait(sealed_trades())
    await writer.run()
    assert len(stored(tmp_path)) == 1


async def test_a_failing_disk_loses_nothing_and_nothing_is_written_twice(
    tmp_path: Path, disk: Disk, virtual_clock: trio.testing.MockClock
) -> None:
    writer = make(tmp_path, disk)
    tables = some(5)
    disk.fails = {"prices"}
    with structlog.testing.capture_logs() as logs:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(writer.run)
            for sealed in tables:
                writer.submit_nowait(sealed)
            raw_bytes = writer.waiting_bytes
            await trio.sleep(100)
            pending = writer.pending()
            assert pending.failing == pending.tables == 5
            assert pending.failing_for_s == pytest.approx(100)
            assert pending.last_error == "No space left on device"
            assert 0 < pending.bytes != raw_bytes, "encoded rows wait, not packed ones"
            assert stored(tmp_path) == []
            assert len(writer.unwritten()) == 5
            disk.fails = set()
            await trio.sleep(61)
            assert writer.pending().tables == 0
            writer.close()
    assert sorted(disk.linked) == stored(tmp_path) == sorted(map(name_of, tables))
    assert writer.stats.files == 5
    errors = [line for line in logs if line["log_level"] == "error"]
    assert errors[0]["tag"] == "FLUSH"
    assert errors[0]["errno"] == errno.ENOSPC
    assert errors[0]["free_bytes"] > 0
    assert "No space left on device (free: " in errors[0]["event"]
    assert name_of(tables[0])[:20] in errors[0]["path"]
    assert len(errors) == 2, "at once, and after a minute"
    recovered = [line for line in logs if line["log_level"] == "warning"]
    assert len(recovered) == 1
    assert recovered[0]["event"].startswith("writing again after ")


async def test_the_first_failure_is_logged_at_once(
    tmp_path: Path, disk: Disk, virtual_clock: trio.testing.MockClock
) -> None:
    writer = make(tmp_path, disk)
    disk.fails = {"prices"}
    with structlog.testing.capture_logs() as logs:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(writer.run)
            writer.submit_nowait(sealed_trades())
            await trio.sleep(0.001)
            assert trio.current_time() < 0.1
            assert [line["log_level"] for line in logs] == ["error"]
            nursery.cancel_scope.cancel()


async def test_waits_between_attempts_grow_to_their_bound(
    tmp_path: Path, disk: Disk, virtual_clock: trio.testing.MockClock
) -> None:
    writer = make(tmp_path, disk, retry_initial_s=1.0, retry_max_s=8.0)
    disk.fails = {"prices"}
    async with trio.open_nursery() as nursery:
        nursery.start_soon(writer.run)
        writer.submit_nowait(sealed_trades())
        await trio.sleep(800)
        # At most eight seconds and at least four lie between two attempts, but for the first few.
        assert 100 <= writer.stats.failures <= 206
        nursery.cancel_scope.cancel()


async def test_one_file_that_cannot_be_written_keeps_no_other_from_the_disk(
    tmp_path: Path, disk: Disk, virtual_clock: trio.testing.MockClock
) -> None:
    writer = make(tmp_path, disk, save_concurrency=1)
    disk.fails = {"symbol=BAD"}
    async with trio.open_nursery() as nursery:
        nursery.start_soon(writer.run)
        writer.submit_nowait(sealed_trades(symbol="BAD"))
        for sealed in some(5):
            writer.submit_nowait(sealed)
        await trio.sleep(1)
        assert len(stored(tmp_path)) == 5
        assert [rows.symbol for rows in writer.unwritten()] == ["BAD"]
        nursery.cancel_scope.cancel()


async def test_a_success_wakes_those_that_wait_for_another_attempt(
    tmp_path: Path, disk: Disk, virtual_clock: trio.testing.MockClock
) -> None:
    writer = make(tmp_path, disk, retry_initial_s=1.0, retry_max_s=100_000.0)
    disk.fails = {"cvd"}
    async with trio.open_nursery() as nursery:
        nursery.start_soon(writer.run)
        for first_seq in (1, 2):
            writer.submit_nowait(sealed_sums([1.0], first_seq=first_seq))
        await trio.sleep(10_000)
        disk.fails = set()
        with trio.fail_after(100_000):
            while len(writer.unwritten()) == 2:  # noqa: ASYNC110 - the very first success is awaited
                await trio.sleep(1)
        await trio.sleep(1)
        assert writer.unwritten() == [], "the other's wait would have been hours"
        nursery.cancel_scope.cancel()


async def test_closing_tries_again_at_once(
    tmp_path: Path, disk: Disk, virtual_clock: trio.testing.MockClock
) -> None:
    writer = make(tmp_path, disk, retry_initial_s=600.0, retry_max_s=600.0)
    disk.fails = {"prices"}
    async with trio.open_nursery() as nursery:
        nursery.start_soon(writer.run)
        writer.submit_nowait(sealed_trades())
        await trio.sleep(1000)
        disk.fails = set()
        begun = trio.current_time()
        writer.close()
    assert trio.current_time() - begun < 1
    assert len(stored(tmp_path)) == 1


async def test_a_disk_that_fails_by_turns_does_not_flood_the_log(
    tmp_path: Path, disk: Disk, virtual_clock: trio.testing.MockClock
) -> None:
    writer = make(tmp_path, disk, retry_initial_s=0.1, retry_max_s=0.1)
    with structlog.testing.capture_logs() as logs:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(writer.run)
            for index in range(40):
                disk.fails = {"prices"}
                writer.submit_nowait(sealed_trades(first_seq=10 * index))
                await trio.sleep(0.5)
                disk.fails = set()
                await trio.sleep(0.5)
            writer.close()
    assert len(stored(tmp_path)) == 40
    assert 4 <= len([line for line in logs if line["log_level"] == "error"]) <= 9
    assert 4 <= len([line for line in logs if line["log_level"] == "warning"]) <= 9


async def test_another_file_of_that_name_is_kept_and_the_rows_too(
    tmp_path: Path, disk: Disk, virtual_clock: trio.testing.MockClock
) -> None:
    writer = make(tmp_path, disk)
    sealed = sealed_trades()
    path = DataDirectory(tmp_path).path_of(sealed, venue="binance-usdm", run=RUN)
    path.parent.mkdir(parents=True)
    path.write_text("mine")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(writer.run)
        writer.submit_nowait(sealed)
        await trio.sleep(10)
        assert path.read_text() == "mine"
        assert len(writer.unwritten()) == 1
        path.unlink()
        writer.close()
    assert pq.read_metadata(path).num_rows == 3


async def test_cancelled_it_names_what_is_not_written_and_the_thread_ends_whole(
    tmp_path: Path, disk: Disk
) -> None:
    writer = make(tmp_path, disk, save_concurrency=1)
    disk.gate.clear()
    first, second = some(2)
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(writer.run)
            writer.submit_nowait(first)
            writer.submit_nowait(second)
            await until(lambda: disk.at_once == 1)
            scope.cancel()
    assert writer.unwritten() == [
        Unwritten("prices", "BTCUSDT", 2, first.first_seq, first.last_seq),
        Unwritten("prices", "BTCUSDT", 2, second.first_seq, second.last_seq),
    ]
    assert stored(tmp_path) == []
    disk.gate.set()
    await until(lambda: len(writer.unwritten()) == 1)
    assert stored(tmp_path) == [name_of(first)]
    assert writer.stats.files == 1
    assert pq.read_metadata(paths(tmp_path)[0]).num_rows == 2


async def test_a_drain_under_a_deadline_ends_at_the_deadline(
    tmp_path: Path, disk: Disk, virtual_clock: trio.testing.MockClock
) -> None:
    writer = make(tmp_path, disk)
    disk.fails = {"cvd"}
    writer.submit_nowait(sealed_trades())
    writer.submit_nowait(sealed_sums([1.0, 2.0], first_seq=7))
    writer.close()
    with trio.move_on_after(30) as scope:
        await writer.run()
    assert scope.cancelled_caught
    assert trio.current_time() == pytest.approx(30)
    assert writer.unwritten() == [Unwritten("cvd", "BTCUSDT", 2, 7, 8)]
    assert len(stored(tmp_path)) == 1


async def test_a_bug_in_the_encoder_is_not_retried_but_seen(
    tmp_path: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def encode(*_args: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("harvest.nurseries.writer.encode", encode)
    writer = make(tmp_path, disk)
    writer.submit_nowait(sealed_trades())
    writer.close()
    with pytest.raises(ExceptionGroup) as caught:
        await writer.run()
    assert caught.group_contains(ZeroDivisionError)
    assert len(writer.unwritten()) == 1


async def test_want_of_memory_is_waited_out(
    tmp_path: Path,
    disk: Disk,
    monkeypatch: pytest.MonkeyPatch,
    virtual_clock: trio.testing.MockClock,
) -> None:
    from harvest.nurseries import writer as module

    real, attempts = module.encode, []

    def encode(*args: Any) -> Any:
        attempts.append(args)
        if len(attempts) == 1:
            raise MemoryError
        return real(*args)

    monkeypatch.setattr(module, "encode", encode)
    writer = make(tmp_path, disk)
    writer.submit_nowait(sealed_trades())
    writer.close()
    await writer.run()
    assert len(attempts) == 2
    assert len(stored(tmp_path)) == 1


async def test_a_file_that_does_not_read_back_is_hidden_and_written_again_before_it_counts(
    tmp_path: Path, disk: Disk, virtual_clock: trio.testing.MockClock
) -> None:
    writer = make(tmp_path, disk)
    sealed = sealed_trades()
    path = DataDirectory(tmp_path).path_of(sealed, venue="binance-usdm", run=RUN)
    link, rotten = disk.link, 2

    def link_and_rot(source: Path, target: Path) -> None:
        nonlocal rotten
        link(source, target)
        if rotten:
            rotten -= 1
            target.write_bytes(b"rot")

    disk.link = link_and_rot  # type: ignore[method-assign]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(writer.run)
        writer.submit_nowait(sealed)
        await trio.sleep(0.5)
        assert writer.stats.files == 0
        assert len(writer.unwritten()) == 1
        assert stored(tmp_path) == []
        await trio.sleep(10)
        writer.close()
    assert writer.stats.files == 1
    assert pq.read_metadata(path).num_rows == 3
    hidden = sorted(path.parent.glob(".*.unreadable"))
    assert [one.read_bytes() for one in hidden] == [b"rot", b"rot"]


async def test_a_file_that_would_take_the_journals_room_waits(
    tmp_path: Path, disk: Disk, virtual_clock: trio.testing.MockClock
) -> None:
    free = 10_000
    disk.free_bytes = lambda path: free  # type: ignore[method-assign]
    directory = DataDirectory(tmp_path, filesystem=disk)
    settings = Settings()
    writer = Writer(
        directory=directory,
        provenance=PROVENANCE,
        settings=settings,  # type: ignore[arg-type]
        room_bytes=9_999,
    )
    with structlog.testing.capture_logs() as logs:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(writer.run)
            writer.submit_nowait(sealed_trades())
            await trio.sleep(5)
            assert stored(tmp_path) == []
            free = 20_000
            await trio.sleep(60)
            assert len(stored(tmp_path)) == 1
            writer.close()
    assert "would be left for the journal" in logs[0]["event"]
