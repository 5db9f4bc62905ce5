"""The passes of a run: in a real child process, over real files."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import structlog
import trio

from harvest.nurseries.compactor import Compactor
from harvest.settings import CompactionSettings
from tests.storage.small_files import small_files

if TYPE_CHECKING:
    from pathlib import Path

TODAY = time.time_ns() // (86_400 * 10**9)


async def test_a_pass_compacts_past_dates_and_removes_what_is_no_longer_kept(tmp_path: Path) -> None:
    kept = small_files(tmp_path, day=TODAY - 3)
    gone = small_files(tmp_path, day=TODAY - 9)
    current = small_files(tmp_path, day=TODAY)
    with structlog.testing.capture_logs() as lines:
        await Compactor(tmp_path, CompactionSettings(keep_days=5)).once()
    assert not gone.exists()
    assert len(list(kept.iterdir())) == 1
    # Written in this hour.
    assert len(list(current.iterdir())) == 6
    assert [line["log_level"] for line in lines] == ["info", "info"]
    assert "no longer kept" in lines[0]["event"]


async def test_with_everything_off_there_is_nothing_to_wait_for(tmp_path: Path) -> None:
    with trio.fail_after(5):
        await Compactor(tmp_path, CompactionSettings(interval_s=0)).run()


async def test_a_cancelled_pass_leaves_no_child(tmp_path: Path) -> None:
    directory = small_files(tmp_path, day=TODAY - 3)
    with trio.move_on_after(0.05):
        await Compactor(tmp_path, CompactionSettings()).once()
    assert len(list(directory.iterdir())) in (1, 6)
    await Compactor(tmp_path, CompactionSettings()).once()
    assert len(list(directory.iterdir())) == 1
