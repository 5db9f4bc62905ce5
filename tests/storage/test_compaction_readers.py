"""Readers go on reading while their files are compacted: each read gives every row once, or fails as a whole."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING

import msgspec
import pytest

from harvest.storage.compaction import Options, compact
from harvest.storage.compaction.compactor import DAY_NS
from harvest.storage.compaction.job import Job
from tests.program import ROOT, environment, harvest
from tests.storage.rows import DAY, sealed_trades
from tests.storage.small_files import publish, small_files, stored

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

duckdb = pytest.importorskip("duckdb", reason="the readers are not installed")
pl = pytest.importorskip("polars", reason="the readers are not installed")

LATER = Options.at((DAY + 2) * DAY_NS)


def read_by_duckdb(root: Path) -> tuple[int, int, int]:
    with duckdb.connect() as connection:
        files = f"{root}/prices/**/*.parquet"
        (row,) = connection.sql(
            f"SELECT count(*), count(DISTINCT seq), sum(trade_id) FROM '{files}'"
        ).fetchall()
    return row


def read_by_polars(root: Path) -> tuple[int, int, int]:
    frame = pl.scan_parquet(f"{root}/prices/**/*.parquet", hive_partitioning=True).collect()
    return len(frame), frame["seq"].n_unique(), frame["trade_id"].sum()


@pytest.mark.parametrize("read", [read_by_duckdb, read_by_polars])
def test_a_reader_never_sees_a_row_twice_or_not_at_all(
    tmp_path: Path, read: Callable[[Path], tuple[int, int, int]]
) -> None:
    small_files(tmp_path, 12)
    # Files come later: what a read gave must be a state from the last one that was published before it began, up to the last
    # one that was being published when it ended.
    states = [read(tmp_path)]
    published = [0]
    reads: list[tuple[int, int, tuple[int, int, int]]] = []
    failures: list[str] = []
    done = threading.Event()

    def hammer() -> None:
        while not done.is_set():
            since = published[0]
            try:
                result = read(tmp_path)
            except (OSError, duckdb.Error, pl.exceptions.PolarsError) as error:
                failures.append(str(error))
            else:
                reads.append((since, len(states), result))

    reader = threading.Thread(target=hammer)
    reader.start()
    try:
        for number in range(15):
            rows, distinct, total = states[-1]
            first_id = 10_000 + number
            states.append((rows + 1, distinct + 1, total + first_id))
            publish(tmp_path, sealed_trades(1, first_seq=1000 + 10 * number, first_id=first_id))
            published[0] = len(states) - 1
            assert compact(tmp_path, LATER).problems == []
            time.sleep(0.05)
    finally:
        done.set()
        reader.join()
    assert len(reads) > 3
    for since, until, result in reads:
        assert result in states[since:until], (since, until, result)
    # One that had listed the files before, and opens them afterwards, learns that they are gone.
    assert all("No such file" in failure or "No files found" in failure for failure in failures), failures
    assert read(tmp_path) == states[-1]


def test_a_killed_compaction_is_completed_by_the_next_one(tmp_path: Path) -> None:
    directories = [small_files(tmp_path, 8, day=day) for day in range(DAY - 6, DAY)]
    before = [stored(directory) for directory in directories]
    chaos = random.Random(4)
    for _ in range(4):
        child = subprocess.Popen(
            [sys.executable, "-m", "harvest", "compact", str(tmp_path)],
            env=environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + 30
        while not (tmp_path / "_compact").exists() and child.poll() is None and time.monotonic() < deadline:
            time.sleep(0.005)
        time.sleep(chaos.random() * 0.1)
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        for directory, rows in zip(directories, before, strict=True):
            assert stored(directory).equals(rows)
    assert harvest("compact", tmp_path, cwd=tmp_path).returncode == 0
    for directory, rows in zip(directories, before, strict=True):
        assert stored(directory).equals(rows)
        assert len(list(directory.iterdir())) == 1


def test_the_command_says_what_it_did_and_then_has_nothing_to_do(tmp_path: Path) -> None:
    small_files(tmp_path)
    done = harvest("compact", ".", "--jobs", "2", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("6 files became 1: 30 rows in 1 directories")
    assert harvest("compact", ".", cwd=tmp_path).stdout.startswith("0 files became 0")


def test_the_child_of_a_run_compacts_and_ends_with_its_parent(tmp_path: Path) -> None:
    directory = small_files(tmp_path)
    job = msgspec.json.encode(Job(str(tmp_path), 1000, None, None, is_first=True)).decode()
    command = [sys.executable, "-m", "harvest.storage.compaction", job]
    with subprocess.Popen(
        command, cwd=ROOT, env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        assert b'"files_before":6,"files_after":1,"rows":30' in child.stdout.read()
    assert len(list(directory.iterdir())) == 1
    # Its standard input has ended: the parent is gone.
    gone = subprocess.run(
        command, cwd=ROOT, env=environment(), stdin=subprocess.DEVNULL, timeout=60, check=False
    )
    assert gone.returncode in (0, 1)
