"""The journal in a run: records go to it before they become rows, and what goes wrong is said once, and its end."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any

import pytest
import structlog
import trio

from harvest.nurseries.intake import Intake
from harvest.nurseries.journaling import REPEAT_S, Journaling
from harvest.pipeline.journal_records import decode_record
from harvest.pipeline.records import Frames, Opened
from harvest.storage.journal import LOST, list_segments, read_run
from harvest.storage.quarantine import Quarantine
from tests.pipeline.wire import Harness, diff, trade
from tests.storage.journal.disks import RUN, VENUE, WAIT_S, FailingDisk, journal_in, until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from harvest.pipeline.records import Record


@pytest.fixture
def lines() -> Iterator[list[Any]]:
    with structlog.testing.capture_logs() as captured:
        yield captured


def intake_into(root: Path, pipeline: Any, journaling: Journaling) -> Intake:
    return Intake(
        pipeline,
        next_seq=1,
        quarantine=Quarantine(root, RUN),
        max_buffered_bytes=10**9,
        buffered_bytes=lambda: 0,
        want_snapshot=lambda symbol: None,
        want_trades=lambda symbol, from_id, to_id: None,
        journal=journaling.take,
    )


def block(seq: int) -> Frames:
    return Frames(seq, seq, seq, "trade-1", [b"x" * 100])


def journalled(root: Path) -> list[Record]:
    return [decode_record(entry) for entry in read_run(root, VENUE, RUN) if entry.kind != LOST]


def texts(lines: list[Any]) -> list[tuple[str, str]]:
    return [(line["tag"], line["log_level"]) for line in lines]


async def test_every_record_is_in_the_journal_as_the_pipeline_got_it_and_before_it(tmp_path: Path) -> None:
    journal = journal_in(tmp_path)
    journaling = Journaling(journal)
    harness = Harness()
    fed: list[Record] = []

    class Watched:
        metrics = harness.metrics

        def feed(self, record: Record) -> Any:
            assert journal._backlog.last_seq == record.seq
            fed.append(record)
            return harness.pipeline.feed(record)

    intake = intake_into(tmp_path, Watched(), journaling)
    trades = intake.opened("trade-1", "trade", ("BTCUSDT",))
    books = intake.opened("orderbook-1", "orderbook", ("BTCUSDT",))
    intake.frames(trades, [trade(1), b"broken", trade(2)], 10, 11)
    intake.frames(books, [diff(1, 2, 0)], 12, 13)
    intake.snapshot("BTCUSDT", b"<html>")
    intake.fetched_trades("BTCUSDT", 3, 4, b"[]")
    intake.unserved("BTCUSDT", 3, 4, "not_served")
    intake.closed(trades, "stall")
    await journaling.close()
    assert journalled(tmp_path) == fed
    assert len(fed) == 8


async def test_a_record_that_the_pipeline_breaks_down_on_is_kept(tmp_path: Path) -> None:
    journaling = Journaling(journal_in(tmp_path))

    class Broken:
        def feed(self, record: Record) -> Any:
            raise ZeroDivisionError("a decoder's bug")

    intake = intake_into(tmp_path, Broken(), journaling)
    with pytest.raises(ZeroDivisionError):
        intake.opened("trade-1", "trade", ("BTCUSDT",))
    await journaling.close()
    (record,) = journalled(tmp_path)
    assert isinstance(record, Opened)


async def test_a_file_waits_for_its_records_but_not_for_a_disk_that_is_behind_anyway(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = FailingDisk()
    journal = journal_in(tmp_path, disk)
    journaling = Journaling(journal)
    journaling.take(block(1))
    journaling.wait_durable(1)
    assert journal.stats.synced_seq == 1
    monkeypatch.setattr("harvest.nurseries.journaling.DURABLE_S", 0.05)
    disk.blocked.clear()
    journaling.take(block(2))
    journaling.wait_durable(2)
    assert journal.stats.lag_s > 0.15
    monkeypatch.setattr(journal, "wait_durable", None)
    journaling.wait_durable(2)
    disk.blocked.set()
    await journaling.close()


async def test_what_the_journal_refuses_is_said_once_and_its_end_too(
    tmp_path: Path, lines: list[Any]
) -> None:
    disk = FailingDisk()
    journal = journal_in(tmp_path, disk, buffer_bytes=2048)
    journaling = Journaling(journal)
    disk.blocked.clear()
    for seq in range(1, 101):
        journaling.take(block(seq))
    refused = journaling.refused
    assert 0 < refused < 100
    assert texts(lines) == [("JOURNAL", "error")]
    disk.blocked.set()
    until(lambda: journal.held_bytes == 0)
    journaling.take(block(101))
    journaling.take(block(102))
    assert texts(lines) == [("JOURNAL", "error"), ("JOURNAL", "warning")]
    assert f"{refused} records are missing" in lines[1]["event"]
    assert journaling.refused == refused
    await journaling.close()
    assert [record.seq for record in journalled(tmp_path)] == [*range(1, 101 - refused), 101, 102]


async def test_a_disk_that_fails_is_an_alarm_from_the_first_failure_on_until_it_takes_it_again(
    tmp_path: Path, lines: list[Any]
) -> None:
    disk = FailingDisk(errno.EROFS)
    journal = journal_in(tmp_path, disk)
    journaling = Journaling(journal)
    journaling.watch()
    assert journaling.trouble is None
    disk.fail("create", float("inf"))
    journaling.take(block(1))
    until(lambda: journal.stats.failures > 0)
    for _ in range(3):
        journaling.watch()
    assert texts(lines) == [("JOURNAL", "error")]
    assert "injected; what is received waits in memory" in lines[0]["event"]
    assert journaling.trouble is not None
    assert "cannot write" in journaling.trouble
    disk.fail("create", 0)
    assert await trio.to_thread.run_sync(journal.flush, WAIT_S)
    for _ in range(3):
        journaling.watch()
    assert texts(lines) == [("JOURNAL", "error"), ("JOURNAL", "warning")]
    assert journaling.trouble is None
    await journaling.close()


async def test_a_failure_between_two_looks_is_said_all_the_same(tmp_path: Path, lines: list[Any]) -> None:
    disk = FailingDisk()
    journal = journal_in(tmp_path, disk)
    journaling = Journaling(journal)
    disk.fail("write")
    journaling.take(block(1))
    assert await trio.to_thread.run_sync(journal.flush, WAIT_S)
    journaling.watch()
    assert texts(lines) == [("JOURNAL", "error"), ("JOURNAL", "warning")]
    await journaling.close()


async def test_a_lasting_trouble_is_said_again_after_an_hour(
    tmp_path: Path, lines: list[Any], autojump_clock: trio.testing.MockClock
) -> None:
    disk = FailingDisk()
    journal = journal_in(tmp_path, disk)
    journaling = Journaling(journal)
    disk.fail("create", float("inf"))
    journaling.take(block(1))
    until(lambda: journal.stats.failures > 0)
    with trio.move_on_after(REPEAT_S * 2.5):
        await journaling.run()
    assert texts(lines) == [("JOURNAL", "error")] * 3
    disk.fail("create", 0)
    assert journal.close(WAIT_S) is None


async def test_what_the_disk_did_not_take_at_the_end_is_named(
    tmp_path: Path, lines: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harvest.nurseries.journaling.CLOSE_S", 0.05)
    disk = FailingDisk()
    disk.fail("write", float("inf"))
    journaling = Journaling(journal_in(tmp_path, disk))
    for seq in (7, 8, 9):
        journaling.take(block(seq))
    await journaling.close()
    assert "seq 7 to 9 is not in it" in lines[-1]["event"]


@pytest.mark.parametrize("is_committed", [True, False])
async def test_at_the_end_segments_go_if_all_rows_are_in_files_and_stay_if_not(
    is_committed: bool, tmp_path: Path, lines: list[Any]
) -> None:
    journaling = Journaling(journal_in(tmp_path))
    journaling.take(block(1))
    await journaling.close()
    await journaling.end(is_committed=is_committed)
    assert len(list_segments(tmp_path)) == (not is_committed)
    assert texts(lines) == ([] if is_committed else [("JOURNAL", "warning")])


async def test_a_disk_that_will_not_remove_it_is_an_error_and_no_crash(
    tmp_path: Path, lines: list[Any]
) -> None:
    class Stubborn(FailingDisk):
        def unlink(self, path: Path) -> None:
            raise OSError(errno.EROFS, "read-only")

    journaling = Journaling(journal_in(tmp_path, Stubborn()))
    journaling.take(block(1))
    await journaling.close()
    await journaling.end(is_committed=True)
    assert "cannot remove" in lines[-1]["event"]
