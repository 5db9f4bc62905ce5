"""Recovery beside a run: a real child, and what the run does when it is through, fails, or has no time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import structlog
import trio

from harvest.nurseries import recovery
from harvest.nurseries.recovery import Recovery
from harvest.pipeline.dead_runs import dead_runs
from harvest.pipeline.resume import Stored, look_at_stored
from harvest.storage.journal import list_segments
from tests.pipeline.test_dead_runs import LATER_RUN, journal, trades_of
from tests.pipeline.wire import DAY

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def lines() -> Iterator[list[Any]]:
    with structlog.testing.capture_logs() as captured:
        yield captured


class _Run:
    def __init__(self, root: Path) -> None:
        self.resumed: list[dict[str, int] | None] = []
        self.recovery = Recovery(
            root,
            dead_runs(root),
            living=LATER_RUN,
            living_seq=100,
            look=lambda: look_at_stored(root, "binance-usdm", ["BTCUSDT"], DAY, before_seq=100),
            go_on=self.go_on,
            go_on_without=lambda: self.resumed.append(None),
        )

    def go_on(self, stored: Stored) -> None:
        self.resumed.append(stored.last_trade_ids)


async def test_dead_runs_are_recovered_and_the_living_one_goes_on_from_their_rows(
    tmp_path: Path, lines: list[Any]
) -> None:
    journal(tmp_path, trades_of(1, [10, 11]))
    journal(tmp_path, trades_of(100, [50]), LATER_RUN)
    run = _Run(tmp_path)
    # Its own segments are in nobody's way.
    run.recovery._runs = dead_runs(tmp_path, living=[LATER_RUN])
    assert not run.recovery.ended.is_set()
    await run.recovery.run()
    assert run.resumed == [{"BTCUSDT": 11}]
    assert run.recovery.ended.is_set()
    assert run.recovery.succeeded
    assert {segment.run for segment in list_segments(tmp_path)} == {LATER_RUN}
    assert [line["tag"] for line in lines] == ["RECOVER"] * 3
    assert "4 rows of 1 symbols were in no file" in lines[1]["event"]


async def test_with_nothing_to_recover_there_is_nothing_to_do(tmp_path: Path, lines: list[Any]) -> None:
    run = _Run(tmp_path)
    assert run.recovery.succeeded
    assert run.recovery.ended.is_set()
    await run.recovery.run()
    assert run.resumed == []
    assert lines == []


async def test_a_recovery_that_fails_is_said_and_the_run_goes_on_without(
    tmp_path: Path, lines: list[Any]
) -> None:
    journal(tmp_path, trades_of(1, [10, 11]), venue="binance-coinm")
    run = _Run(tmp_path)
    await run.recovery.run()
    assert run.resumed == [None]
    assert not run.recovery.succeeded
    assert run.recovery.ended.is_set()
    assert [line["log_level"] for line in lines] == ["warning", "error", "error"]
    assert len(list_segments(tmp_path)) == 1


@pytest.mark.parametrize("ended_by", ["patience", "end"])
async def test_a_recovery_without_time_is_left_to_the_next_start(
    ended_by: str, tmp_path: Path, lines: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    journal(tmp_path, trades_of(1, [10, 11]))
    run = _Run(tmp_path)
    monkeypatch.setattr(recovery, "PATIENCE_S", 0.02 if ended_by == "patience" else 60)
    with trio.move_on_after(60 if ended_by == "patience" else 0.02):
        await run.recovery.run()
    assert run.resumed == [None]
    assert run.recovery.ended.is_set()
    assert len(list_segments(tmp_path)) == 1
    again = _Run(tmp_path)
    monkeypatch.setattr(recovery, "PATIENCE_S", 60)
    await again.recovery.run()
    assert again.resumed == [{"BTCUSDT": 11}]


async def test_a_disk_that_refuses_is_asked_again(
    tmp_path: Path, lines: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    journal(tmp_path, trades_of(1, [10, 11]))
    monkeypatch.setattr(recovery, "RETRY_S", 0.1)
    in_the_way = tmp_path / "prices"
    in_the_way.write_text("no directory")
    run = _Run(tmp_path)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run.recovery.run)
        with trio.fail_after(60):
            while not any("could not be recovered" in line["event"] for line in lines):  # noqa: ASYNC110
                await trio.sleep(0.05)
        in_the_way.unlink()
    assert run.resumed == [{"BTCUSDT": 11}]
