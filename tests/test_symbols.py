"""Symbols that change while the program runs: by SIGHUP, and because the venue delists or halts one. Each ends with verify."""

from __future__ import annotations

import json
import signal
import subprocess
import time
import urllib.request
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from tests.program import chain_holes, command, environment, harvest, rows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="this system has no SIGHUP"),
]
PATIENCE_S = 40.0
VENUE = "binance-usdm"


class Program:
    """A simulated venue of its own process, and a run that records it, with its log in a file."""

    def __init__(self, root: Path, rest_url: str, process: subprocess.Popen[str]) -> None:
        self._root = root
        self._rest_url = rest_url
        self.process = process

    @property
    def log(self) -> str:
        return (self._root / "log").read_text()

    def status(self) -> dict[str, Any]:
        """Ask the simulator who is connected."""
        with urllib.request.urlopen(f"{self._rest_url}/simulator/status", timeout=PATIENCE_S) as answer:
            status: dict[str, Any] = json.load(answer)
            return status

    def streams(self) -> set[str]:
        return {stream for one in self.status()["connections"] for stream in one["streams"]}

    def until(self, condition: Callable[[], object]) -> None:
        """Wait until a condition holds."""
        deadline = time.monotonic() + PATIENCE_S
        while not condition():
            assert self.process.poll() is None, self.log
            assert time.monotonic() < deadline, self.log
            time.sleep(0.05)

    def until_said(self, text: str) -> None:
        """Wait until the log says something."""
        self.until(lambda: text in self.log)

    def reload(self, *symbols: str, more: str = "") -> None:
        """Write other settings, and let them be loaded."""
        write_settings(self._root, *symbols, more=more)
        self.process.send_signal(signal.SIGHUP)

    def end(self, exit_code: int) -> dict[str, Any]:
        """End the run, and return what verify says, which ends with ``exit_code`` and no damage."""
        time.sleep(1.0)
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(PATIENCE_S) == 0, self.log
        done = harvest("verify", "data", "--json", cwd=self._root)
        report: dict[str, Any] = json.loads(done.stdout)
        assert (done.returncode, report["damage"]) == (exit_code, []), done.stdout
        return {(one["symbol"], one["kind"]): one for one in report["series"]}


def write_settings(root: Path, *symbols: str, more: str = "") -> None:
    (root / "settings.toml").write_text(f"[capture]\nsymbols = {json.dumps(symbols)}\n{more}")


@contextmanager
def program(root: Path, *symbols: str, faults: tuple[str, ...] = (), **settings: str) -> Iterator[Program]:
    write_settings(root, *symbols)
    flags = [part for fault in faults for part in ("--fault", fault)]
    with subprocess.Popen(
        command("simulate", "--venue", VENUE, "--port", "0", *flags),
        cwd=root,
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as simulator:
        try:
            assert simulator.stdout is not None
            said = json.loads(simulator.stdout.readline())
            urls = {"HARVEST_WS_URL": said["ws"], "HARVEST_REST_URL": said["rest"]}
            with (
                (root / "log").open("w") as log,
                subprocess.Popen(
                    command("run", "--data", "data", "--no-live"),
                    cwd=root,
                    env=environment(**urls, **settings),
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=log,
                    text=True,
                ) as process,
            ):
                running = Program(root, said["rest"], process)
                try:
                    running.until_said("[TRADE] receiving")
                    running.until_said("[ORDERBOOK] receiving")
                    yield running
                finally:
                    process.kill()
        finally:
            simulator.kill()


def check_whole(root: Path, symbol: str) -> None:
    """Check that a symbol has every id, once, and an unbroken chain of diffs."""
    ids = sorted(row["trade_id"] for row in rows(root, "prices", symbol=symbol))
    assert ids == list(range(ids[0], ids[-1] + 1))
    diffs = [row for row in rows(root, "depth", symbol=symbol) if row["source"] == "ws"]
    assert chain_holes(diffs) == []
    assert rows(root, "breaks", symbol=symbol) == []


def test_symbols_are_added_and_removed_by_sighup_and_nobody_else_notices(tmp_path):
    with program(tmp_path, "BTCUSDT", "ETHUSDT", HARVEST_CONNECTIONS="2") as run:
        run.until(lambda: len(run.status()["connections"]) == 4)
        # Of a symbol that never had a trade, nothing is missing when it comes again.
        run.until(lambda: run.status()["sent"].get("ethusdt@aggTrade", 0) >= 10)
        run.reload("BTCUSDT", "SOLUSDT", "NOSUCH")
        run.until_said("[SYMBOLS] ETHUSDT: removed")
        assert "NOSUCH: not added" in run.log
        run.until(lambda: "solusdt@aggTrade" in run.streams())
        run.until(lambda: not any(stream.startswith("ethusdt") for stream in run.streams()))
        time.sleep(2.0)
        # A file that cannot be run with changes nothing, and says why.
        run.reload("BTCUSDT", more="[streams]\nidle_s = 'long'\nnonsense = 1\n")
        run.until_said("nothing has changed")
        run.until_said("nonsense")
        assert run.log.count("settings.toml:4") == 1
        run.reload("BTCUSDT", "SOLUSDT", "ETHUSDT", more="[rotation]\nrotate_s = 45\n")
        run.until_said("[SYMBOLS] ETHUSDT: added")
        run.until_said("[BACKFILL] ETHUSDT")
        assert "rotation.rotate_s = 45" in run.log
        # Nobody has connected anew.
        assert run.status()["connections_seen"] == 4
        found = run.end(1)
    root = tmp_path / "data"
    check_whole(root, "BTCUSDT")
    check_whole(root, "SOLUSDT")
    # Two stretches of one series: over the time between REST had the trades, and of the book it is said why it is missing.
    assert found["ETHUSDT", "prices"]["missing"] == []
    assert [gap["why"] for gap in found["ETHUSDT", "depth"]["missing"]] == ["downtime"]
    assert {(row["feed"], row["reason"]) for row in rows(root, "breaks", symbol="ETHUSDT")} == {
        ("trade", "downtime"),
        ("orderbook", "downtime"),
    }
    assert "reconnecting" not in run.log


def test_what_the_venue_delists_is_let_go_and_what_it_halts_is_waited_for(tmp_path):
    faults = ("delist ETHUSDT at 3s", "halt BTCUSDT for 8s at 4s")
    idle = {"STREAM_IDLE_SEC": "3", "HARVEST_INSTRUMENTS_SEC": "0.5"}
    with program(tmp_path, "BTCUSDT", "ETHUSDT", "SOLUSDT", faults=faults, **idle) as run:
        run.until_said("[SYMBOLS] ETHUSDT: removed")
        run.until_said("BTCUSDT: halted by the venue")
        run.until_said("BTCUSDT: trading again")
        # Silence that was to be expected: nobody subscribed anew, and no connection was made anew.
        assert "BTCUSDT: silent" not in run.log
        assert run.status()["connections_seen"] == 2
        run.until_said("[BACKFILL] BTCUSDT")
        run.end(1)
    check_whole(tmp_path / "data", "SOLUSDT")
    check_whole(tmp_path / "data", "ETHUSDT")
