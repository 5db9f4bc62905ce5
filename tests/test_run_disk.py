"""The whole program on a real disk that is full for a while: it goes on by itself, and nothing is lost that memory can hold."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import defaultdict
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from harvest.storage.journal import list_segments
from tests.program import command, environment, harvest, rows
from tests.test_run_recovery import SYMBOLS, sent_ids, simulated_venue, until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.slow
DISK_BYTES = 8 * 2**20
FULL_S = 12.0
RESUMES_WITHIN_S = 10.0
#: Of a loaded machine, beyond what the program may take.
GRACE_S = 10.0


@contextmanager
def small_disk(where: Path) -> Iterator[Path]:
    """Mount a file system of a few MiB, where that is permitted."""
    where.mkdir()
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("mounting takes Linux, and its root")
    options = f"size={DISK_BYTES}"
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(where)], check=False, capture_output=True
    )
    if mounted.returncode != 0:
        pytest.skip("mounting is not permitted here")
    try:
        yield where
    finally:
        subprocess.run(["umount", "-l", str(where)], check=True)


def fill(path: Path) -> None:
    """Take all that is left of a disk."""
    with path.open("wb", buffering=0) as file:
        for size in (2**16, 512):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                continue


def files(root: Path) -> set[str]:
    return {str(path) for path in root.rglob("*.parquet") if not path.name.startswith(".")}


def test_a_full_disk_is_waited_out_and_nothing_is_lost(tmp_path: Path) -> None:
    sent, said = tmp_path / "sent.jsonl", tmp_path / "log.txt"
    with small_disk(tmp_path / "disk") as disk, simulated_venue(sent) as settings, said.open("w") as log:
        settings["HARVEST_JOURNAL_RESERVE_BYTES"] = str(2**17)
        begun_ns = time.time_ns()
        run = subprocess.Popen(
            command("run", "--symbols", SYMBOLS, "--output-dir", disk / "data", "--no-live"),
            cwd=tmp_path,
            env=environment(**settings),
            stderr=log,
            stdout=log,
            text=True,
        )
        try:
            until(lambda: files(disk), run)
            until(lambda: (disk / "data" / "_journal" / "reserve").exists(), run)
            fill(disk / "ballast")
            until(lambda: "[FLUSH] cannot write" in said.read_text(), run)
            until(lambda: "[JOURNAL] cannot write" in said.read_text(), run)
            before = files(disk)
            time.sleep(FULL_S)
            assert files(disk) == before
            (disk / "ballast").unlink()
            freed_s = time.monotonic()
            until(lambda: files(disk) > before, run)
            assert time.monotonic() - freed_s < RESUMES_WITHIN_S + GRACE_S
            until(
                lambda: "the disk takes the journal again, and nothing of it is lost" in said.read_text(), run
            )
            until(lambda: "[FLUSH] writing again" in said.read_text(), run)
        finally:
            run.send_signal(signal.SIGTERM)
            ended_ns = time.time_ns()
            run.wait()
        assert run.returncode == 0
        assert list_segments(disk / "data") == []
        stored: dict[str, set[int]] = defaultdict(set)
        for symbol in SYMBOLS.split(","):
            for row in rows(disk / "data", "prices", symbol=symbol):
                stored[f"{symbol.lower()}@aggTrade"].add(row["trade_id"])
            for row in rows(disk / "data", "depth", symbol=symbol, source="ws"):
                stored[f"{symbol.lower()}@depth@100ms"].add(row["last_update_id"])
        for stream, ids in sent_ids(sent, begun_ns, ended_ns - 250 * 10**6).items():
            assert ids - stored[stream] == set(), stream
        assert rows(disk / "data", "breaks") == []
        report = harvest("verify", disk / "data", cwd=tmp_path)
        assert report.returncode == 0, report.stdout
        assert "ledger" not in report.stdout
