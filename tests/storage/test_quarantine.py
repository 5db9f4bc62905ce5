"""What is malformed is kept: each message once, whatever fails, and durably once it is flushed."""

from __future__ import annotations

import errno
import json
import random
from typing import TYPE_CHECKING

import pytest

from bench.faults.crash_disk import CrashDisk, Refusal
from harvest.storage import quarantine as quarantine_room
from harvest.storage.quarantine import Quarantine

if TYPE_CHECKING:
    from pathlib import Path

RUN = "20261122T000000Z00ff"
TEXTS = ("first", "第二", "third")


def fill(quarantine: Quarantine) -> None:
    for number, text in enumerate(TEXTS):
        quarantine.add(number, "connection", "why", text.encode())


def texts(path: Path) -> list[str]:
    return [json.loads(line)["text"] for line in path.read_text(encoding="utf-8").splitlines()]


def test_what_was_flushed_is_there_after_any_loss_of_power(tmp_path: Path) -> None:
    root = tmp_path / "disk"
    root.mkdir()
    disk = CrashDisk(root)
    quarantine = Quarantine(root, RUN, filesystem=disk)
    fill(quarantine)
    quarantine.flush()
    for number in range(20):
        left = tmp_path / f"{number}"
        disk.medium().leave(left, random.Random(number))
        assert texts(Quarantine(left, RUN).path) == list(TEXTS)


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC])
def test_a_flush_that_fails_at_any_call_takes_nothing_and_the_next_one_keeps_each_message_once(
    tmp_path: Path, code: int
) -> None:
    for at in range(1000):
        root = tmp_path / f"{at}"
        root.mkdir()
        refusal = Refusal(at, code)
        quarantine = Quarantine(root, RUN, filesystem=CrashDisk(root, refusal=refusal))
        fill(quarantine)
        try:
            quarantine.flush()
        except OSError:
            quarantine.flush()
        assert texts(quarantine.path) == list(TEXTS), at
        if not refusal.count:
            break
    assert at > 5


@pytest.mark.parametrize("left", range(60))
def test_what_a_crash_has_torn_is_completed_and_what_is_whole_is_not_kept_twice(
    tmp_path: Path, left: int
) -> None:
    before = Quarantine(tmp_path, RUN)
    fill(before)
    before.flush()
    whole = before.path.read_bytes()
    # Somewhere within a letter of three bytes, too.
    cut = whole[: len(whole) - len(whole.splitlines()[-1]) - 1 - left]
    before.path.write_bytes(cut)
    again = Quarantine(tmp_path, RUN)
    fill(again)
    again.leave_out_known()
    again.flush()
    assert before.path.read_bytes() == whole


def test_where_there_are_no_locks_it_is_kept_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_descriptor: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(quarantine_room, "wait_for_lock", refuse)
    quarantine = Quarantine(tmp_path, RUN)
    fill(quarantine)
    quarantine.flush()
    assert texts(quarantine.path) == list(TEXTS)
