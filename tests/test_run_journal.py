"""The whole program and its journal: what it leaves when it is killed, and what a run after it makes of that."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections import defaultdict
from typing import TYPE_CHECKING

import pytest

from harvest.pipeline.journal_records import decode_record
from harvest.pipeline.records import Frames
from harvest.storage.journal import last_seq, list_segments, read_run, read_segment
from tests.program import ROOT, command, environment, harvest, rows

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow
VENUE = "simulated-binance-usdm"
SYMBOLS = "BTCUSDT,ETHUSDT"
RUN = ("run", "--symbols", SYMBOLS, "--simulate", "--output-dir", "data", "--no-live")


def test_a_killed_run_has_journalled_every_message_that_was_sent_more_than_250_ms_before(
    tmp_path: Path,
) -> None:
    simulator = subprocess.Popen(
        [
            *(sys.executable, "-m", "harvest.simulator"),
            *("--symbols", SYMBOLS, "--port", "0", "--sent-log", str(tmp_path / "sent.jsonl")),
        ],
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert simulator.stdout is not None
        ends = json.loads(simulator.stdout.readline())
        run = subprocess.Popen(
            command("run", "--symbols", SYMBOLS, "--output-dir", "data", "--no-live"),
            cwd=tmp_path,
            env=environment(
                HARVEST_WS_URL=ends["ws"],
                HARVEST_REST_URL=ends["rest"],
            ),
            stderr=subprocess.DEVNULL,
        )
        sent = tmp_path / "sent.jsonl"
        deadline = time.monotonic() + 60
        while not sent.exists() or sent.stat().st_size < 20_000:
            assert time.monotonic() < deadline
            assert run.poll() is None
            time.sleep(0.1)
        run.send_signal(signal.SIGKILL)
        killed_ns = time.time_ns()
        run.wait()
    finally:
        simulator.terminate()
        simulator.wait()
        simulator.stdout.close()
    assert rows(tmp_path / "data", "prices") == []
    must: dict[str, list[int]] = defaultdict(list)
    for line in sent.read_text().splitlines():
        one = json.loads(line)
        if one["id"] is not None and one["t"] < killed_ns - 250 * 10**6:
            must[one["stream"]].append(one["id"])
    (run_id,) = {segment.run for segment in list_segments(tmp_path / "data")}
    contents = read_run(tmp_path / "data", "binance-usdm", run_id)
    found: dict[str, list[int]] = defaultdict(list)
    for entry in contents:
        record = decode_record(entry)
        if isinstance(record, Frames):
            for frame in record.frames:
                message = json.loads(frame)
                if "stream" in message:
                    data = message["data"]
                    found[message["stream"]].append(data["u"] if "u" in data else data["a"])
    assert contents.damage == []
    assert len(must) == 4
    for stream, ids in must.items():
        assert found[stream][: len(ids)] == ids, stream


def test_a_run_after_a_killed_one_makes_files_of_what_it_left_and_goes_on_behind_its_numbers(
    tmp_path: Path,
) -> None:
    with subprocess.Popen(
        command(*RUN), cwd=tmp_path, env=environment(), stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    ) as run:
        deadline = time.monotonic() + 60
        while last_seq(tmp_path / "data") < 20:
            assert time.monotonic() < deadline
            assert run.poll() is None
            time.sleep(0.1)
        run.kill()
    root = tmp_path / "data"
    left = list_segments(root)
    last = last_seq(root)
    header = read_segment(left[0].path).header
    assert header is not None
    assert header.facts["symbols"] == SYMBOLS.split(",")
    assert header.facts["venue"] == "binance-usdm"
    waiting = harvest("verify", "data", cwd=tmp_path)
    assert waiting.returncode == 3
    assert "1 run waits in the journal" in waiting.stdout
    # Too short for it: what the first run has left stays, and so does what would say how the second goes on from there.
    done = harvest(*RUN, "--hours", "0.0001", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "[RECOVER] 1 runs that did not end have left" in done.stderr
    assert "not all is recovered" in done.stderr
    assert set(left) < set(list_segments(root))
    assert min(row["seq"] for row in rows(root, "depth")) > last
    # By hand, all of it.
    recovered = harvest("recover", "data", cwd=tmp_path)
    assert recovered.returncode == 0, recovered.stdout
    assert recovered.stdout.count("were stored already") == 2
    assert list_segments(root) == []
    assert min(row["seq"] for row in rows(root, "depth")) < last
    assert harvest("verify", "data", cwd=tmp_path).returncode in (0, 1)


def test_the_journal_of_a_healthy_run_is_let_go_behind_its_files(tmp_path: Path) -> None:
    quick = {
        "PARQUET_ROTATE_SEC": "1",
        "EXTREME_ROTATE_SEC": "0.9",
        "HARVEST_JOURNAL_SEGMENT_SEC": "1",
        "HARVEST_CHECKPOINT_SEC": "1",
    }
    root = tmp_path / "data"
    with subprocess.Popen(
        command(*RUN),
        cwd=tmp_path,
        env=environment(**quick),
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    ) as run:
        deadline = time.monotonic() + 90
        while not (left := list_segments(root)) or left[0].number == 1:
            assert time.monotonic() < deadline
            assert run.poll() is None
            time.sleep(0.2)
        # What is left is enough: it dies, and what is in no file follows from it.
        run.kill()
    last = last_seq(root)
    recovered = harvest("recover", "data", cwd=tmp_path)
    assert recovered.returncode == 0, recovered.stdout
    assert last - 20 < max(row["seq"] for row in rows(root, "depth")) <= last + 1
    assert harvest("verify", "data", cwd=tmp_path).returncode in (0, 1)


def test_a_run_without_journal_creates_none(tmp_path: Path) -> None:
    done = harvest(*RUN, "--hours", "0.0003", cwd=tmp_path, HARVEST_JOURNAL="false")
    assert done.returncode == 0, done.stderr
    assert rows(tmp_path / "data", "prices") != []
    assert not (tmp_path / "data" / "_journal").exists()
