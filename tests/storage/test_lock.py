from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from harvest.storage.flock import try_lock
from harvest.storage.lock import DirectoryLock, DirectoryLockedError, one_writer, read_holder
from tests.program import environment, harvest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

RUN = "20261122T000000Z0001"
HOLDS = """
import sys, subprocess, time
from pathlib import Path
from harvest.storage.lock import DirectoryLock
lock = DirectoryLock(Path(sys.argv[1]), "run")
lock.name_run(sys.argv[2])
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(30)"], close_fds=False) if len(sys.argv) > 3 else None
print(child.pid if child else 0, flush=True)
time.sleep(30)
"""


class Other:
    """Another process, which holds the lock of a directory."""

    def __init__(self, root: Path, *more: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", HOLDS, str(root), RUN, *more],
            env=environment(),
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        self.child = int(self.process.stdout.readline())

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture
def other(tmp_path: Path) -> Iterator[Other]:
    process = Other(tmp_path)
    yield process
    process.kill()
    assert process.process.stdout is not None
    process.process.stdout.close()


def test_a_second_process_is_refused_with_the_first_ones_pid_host_and_run(
    tmp_path: Path, other: Other
) -> None:
    with pytest.raises(DirectoryLockedError) as caught:
        DirectoryLock(tmp_path, "run")
    assert caught.value.holder is not None
    assert (caught.value.holder.pid, caught.value.holder.run) == (other.process.pid, RUN)
    assert f"harvest run (process {other.process.pid} on {os.uname().nodename}, run {RUN}, since 2" in str(
        caught.value
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ("compact", "."),
        ("ingest", "nothing", "--venue", "binance-usdm", "--data", "."),
        ("run", "--simulate", "--data", "."),
    ],
    ids=lambda arguments: arguments[0],
)
def test_every_command_that_writes_is_refused_with_exit_2(
    tmp_path: Path, other: Other, arguments: tuple[str, ...]
) -> None:
    done = harvest(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert f"process {other.process.pid} on" in done.stderr


def test_what_a_dead_process_said_is_no_obstacle(tmp_path: Path, other: Other) -> None:
    os.kill(other.process.pid, signal.SIGKILL)
    other.process.wait()
    holder = read_holder(tmp_path)
    assert holder is not None
    assert holder.pid == other.process.pid
    with one_writer(tmp_path, "ingest", warn=pytest.fail) as lock:
        lock.name_run(RUN)
        mine = read_holder(tmp_path)
        assert mine is not None
        assert (mine.pid, mine.command) == (os.getpid(), "ingest")
    assert read_holder(tmp_path) is None


def test_a_child_that_outlives_the_holder_does_not_keep_the_lock(tmp_path: Path) -> None:
    holder = Other(tmp_path, "with a child")
    try:
        holder.kill()
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            try:
                DirectoryLock(tmp_path, "run").release()
                break
            except DirectoryLockedError:
                time.sleep(0.05)
        else:
            pytest.fail("the child kept the lock")
        os.kill(holder.child, 0)
    finally:
        os.kill(holder.child, signal.SIGKILL)
        assert holder.process.stdout is not None
        holder.process.stdout.close()


def test_a_file_system_without_locks_is_warned_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(descriptor: int) -> bool:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr("harvest.storage.lock.try_lock", refuse)
    warnings: list[str] = []
    with one_writer(tmp_path, "run", warn=warnings.append):
        pass
    assert len(warnings) == 1
    assert "cannot be locked (Function not implemented)" in warnings[0]


def test_two_openings_of_one_process_exclude_each_other_too(tmp_path: Path) -> None:
    with one_writer(tmp_path, "run", warn=pytest.fail), pytest.raises(DirectoryLockedError):
        DirectoryLock(tmp_path, "run")
    descriptor = os.open(tmp_path / "_lock", os.O_RDWR)
    assert try_lock(descriptor)
    os.close(descriptor)
