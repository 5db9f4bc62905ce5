"""The whole program, killed at random and started again: nothing that was sent is lost, and nothing is stored twice."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from collections import defaultdict
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from harvest.storage.journal import list_segments
from tests.program import ROOT, command, environment, harvest, rows

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.slow
SYMBOLS = "BTCUSDT,ETHUSDT"
KILLS = 3


@contextmanager
def simulated_venue(sent: Path, *faults: str) -> Iterator[dict[str, str]]:
    """Start a venue that logs what it sends; gives the settings that lead to it."""
    simulator = subprocess.Popen(
        [
            *(sys.executable, "-m", "harvest.simulator"),
            *("--symbols", SYMBOLS, "--port", "0", "--sent-log", str(sent)),
            *(word for fault in faults for word in ("--fault", fault)),
        ],
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert simulator.stdout is not None
        ends = json.loads(simulator.stdout.readline())
        yield {
            "HARVEST_WS_URL": ends["ws"],
            "HARVEST_REST_URL": ends["rest"],
            "PARQUET_ROTATE_SEC": "1",
            "EXTREME_ROTATE_SEC": "0.9",
            "HARVEST_JOURNAL_SEGMENT_SEC": "1",
            "HARVEST_CHECKPOINT_SEC": "1",
        }
    finally:
        simulator.terminate()
        simulator.wait()
        assert simulator.stdout is not None
        simulator.stdout.close()


def until(condition: Any, run: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        assert run.poll() is None
        time.sleep(0.1)


def runs_in(data: Path) -> int:
    return len({segment.run for segment in list_segments(data)})


def sent_ids(sent: Path, from_ns: int, before_ns: int) -> dict[str, set[int]]:
    """Return the ids that were sent between two times, by stream."""
    found = defaultdict(set)
    for line in sent.read_text().splitlines()[:-1]:
        one = json.loads(line)
        if one["id"] is not None and from_ns <= one["t"] < before_ns:
            found[one["stream"]].add(one["id"])
    return found


def test_runs_that_are_killed_at_random_lose_nothing_that_was_sent_250_ms_before_and_store_nothing_twice(
    tmp_path: Path,
) -> None:
    chance = random.Random(4)
    sent, data = tmp_path / "sent.jsonl", tmp_path / "data"
    log = (tmp_path / "log.txt").open("a")
    must: dict[str, set[int]] = defaultdict(set)
    line = command("run", "--symbols", SYMBOLS, "--output-dir", "data", "--no-live")
    with simulated_venue(sent) as settings, log:
        for kill in range(KILLS + 1):

            def said() -> str:
                return (tmp_path / "log.txt").read_text()

            log.truncate(0)
            # What was on its way when the run before was killed is not this one's; a process takes longer to start.
            begun_ns = time.time_ns() + 200 * 10**6
            run = subprocess.Popen(
                line, cwd=tmp_path, env=environment(**settings), stderr=log, stdout=log, text=True
            )
            try:
                until(lambda: any(ids for ids in sent_ids(sent, 0, 2**63).values()), run)
                size = sent.stat().st_size
                until(lambda size=size: sent.stat().st_size > size + 20_000, run)
                if kill == KILLS:
                    # What is left in the journal is this run's own.
                    until(lambda: "receiving" in said() and runs_in(data) < 2, run)
                    time.sleep(2)
                else:
                    time.sleep(chance.uniform(0, 3))
            finally:
                run.send_signal(signal.SIGKILL if kill < KILLS else signal.SIGTERM)
                ended_ns = time.time_ns()
                run.wait()
            for stream, ids in sent_ids(sent, begun_ns, ended_ns - 250 * 10**6).items():
                must[stream] |= ids
            if kill < KILLS:
                assert list_segments(data) != []
    assert list_segments(data) == []
    for symbol in SYMBOLS.split(","):
        trades = [row["trade_id"] for row in rows(data, "prices", symbol=symbol)]
        diffs = [row["last_update_id"] for row in rows(data, "depth", symbol=symbol, source="ws")]
        for stored, suffix in ((trades, "aggTrade"), (diffs, "depth@100ms")):
            assert len(stored) == len(set(stored))
            assert must[f"{symbol.lower()}@{suffix}"] - set(stored) == set()
    report = harvest("verify", "data", "--json", cwd=tmp_path)
    verdict = json.loads(report.stdout)
    assert verdict["damage"] == []
    assert report.returncode in (0, 1), report.stdout
    assert {one["why"] for series in verdict["series"] for one in series["missing"]} <= {"downtime"}


def test_a_gap_that_a_killed_run_could_not_close_is_closed_by_the_next(tmp_path: Path) -> None:
    data, log_path = tmp_path / "data", tmp_path / "log.txt"
    line = command("run", "--symbols", SYMBOLS, "--output-dir", "data", "--no-live")
    faults = ("rest down at 2s for 10s", "gap trades BTCUSDT at 3s skip 3")
    with simulated_venue(tmp_path / "sent.jsonl", *faults) as settings:
        for is_last in (False, True):
            with log_path.open("w") as log:
                run = subprocess.Popen(
                    line, cwd=tmp_path, env=environment(**settings), stderr=log, stdout=log, text=True
                )
                try:
                    said = "BTCUSDT: trades" if is_last else "BTCUSDT trade break (gap)"
                    until(lambda said=said: said in log_path.read_text(), run)
                    # What the break tells is in a file, and behind it what follows.
                    time.sleep(2.5)
                finally:
                    run.send_signal(signal.SIGTERM if is_last else signal.SIGKILL)
                    run.wait()
            if not is_last:
                assert "fetched" not in log_path.read_text()
                trades = [row["trade_id"] for row in rows(data, "prices", symbol="BTCUSDT")]
                assert len(trades) < max(trades) - min(trades) + 1
                time.sleep(8)
    trades = sorted(row["trade_id"] for row in rows(data, "prices", symbol="BTCUSDT"))
    assert trades == list(range(trades[0], trades[-1] + 1))
    verdict = json.loads(harvest("verify", "data", "--json", cwd=tmp_path).stdout)
    assert verdict["damage"] == []
    # Diffs have no history: what the killed run left out of them stays missing.
    assert {one["why"] for series in verdict["series"] for one in series["missing"]} <= {"downtime"}
