"""An hour of a bad venue, and every id of it accounted for.

The real program (``python -m harvest run``, a process of its own) records a simulated venue whose time runs faster, through a
seeded schedule of cuts, stalls, lost subscriptions, announced shutdowns, connections that reach the age at which the venue ends
them, refusals, bans and outages of REST, and lost, doubled, swapped and broken messages. At the end ``harvest verify`` reads the
files, and an account that shares no code with it holds them against the market itself and against what was sent.

    python -m bench.soak --minutes 60 --connections 2

An hour takes seven and a half minutes, at the speed of eight. What is accelerated is the venue: its messages come so much faster, and
harvest's deadlines are shorter by as much or more, so that more happens in the hour than in many real ones. Faults last wall
time. Ages are scaled further: the venue ends a connection after 30 seconds, and harvest hands it over shortly before that.

How late the simulator was says whether the machine was fast enough: its streams are behind its REST side by as much, so that
quiet symbols look dead and are subscribed anew, and what nobody hears while it catches up counts as missing.

Exit 0: no trade is missing, nothing is stored twice or wrong, every missing depth id is recorded as such, no planned hand-over
left a hole, and with two connections there is no hole at all. Exit 1: not so.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from datetime import datetime
from pathlib import Path
from typing import Any

import attrs
import trio

from bench.soak_account import END_MARGIN_NS, Account, account, read_sent, totals, venue_lag_s
from bench.soak_schedule import make_schedule
from harvest.settings.catalog import BY_VARIABLE, PREFIX
from harvest.simulator import SimulatorConfig, simulator_process

#: From the liveliest to one that trades every twenty seconds.
SYMBOLS = ("BTCUSDT", "SOLUSDT", "LTCUSDT", "牛来USDT", "ETHUSDT", "XRPUSDT", "ADAUSDT", "TRXUSDT")
#: How the simulator says what it does.
FAULT = "[FAULT] "
#: What harvest reports of itself, by a word of its log lines.
_EVENTS = {
    "reconnects after an error": "connection error",
    "stalls": "no message for",
    "hand-overs": "handed over to a new connection",
    "announced shutdowns": "the venue announces",
    "ages reached": "this connection is old",
    "subscribed anew": "subscribing anew",
    "snapshots that failed": "no snapshot (",
    "waits for trades": "must wait",
    "bans": "has banned this address",
    "gaps closed": "not to be had",
    "stalls of its own over a second": "our own loop stood still",
}


@attrs.frozen
class Plan:
    """What is asked for, and the times that follow from it, in wall seconds."""

    minutes: float
    speed: float
    seed: int
    connections: int
    symbols: tuple[str, ...]
    venue: str

    @property
    def wall_s(self) -> float:
        """Return how long the program runs."""
        return self.minutes * 60 / self.speed

    @property
    def settle_s(self) -> float:
        """Return how long nothing goes wrong at the end: what is missing then is waited for."""
        return min(20.0, max(9.0, self.wall_s / 4))

    @property
    def life_s(self) -> float:
        """Return the age at which the venue ends a connection."""
        return min(30.0, max(14.0, self.wall_s / 4))

    @property
    def idle_s(self) -> float:
        """Return STREAM_IDLE_SEC: a tenth of the default and less, but so that a busy machine is no silence."""
        return 4.0 if self.wall_s > 60 else 3.0

    def settings(self) -> dict[str, str]:
        """Return the settings of the program as environment variables."""
        return {
            "STREAM_IDLE_SEC": f"{self.idle_s}",
            "BACKOFF_RESET_SECS": "10",
            "HARVEST_BACKOFF_INITIAL_SEC": "0.2",
            "HARVEST_BACKOFF_MAX_SEC": "2",
            "WSS_PING_INTERVAL": "2",
            "HARVEST_PING_TIMEOUT_SEC": "3",
            # A busy machine must have the time for it; a real venue leaves an hour.
            "HARVEST_HANDOVER_SEC": f"{self.life_s - 7.0}",
            "PARQUET_ROTATE_SEC": "6",
            "EXTREME_ROTATE_SEC": "3",
            # A minute of the venue has a part of the weight that a real one has.
            "HARVEST_WEIGHT_SHARE": "0.9",
            "HARVEST_REST_RETRY_INITIAL_SEC": "0.2",
            "HARVEST_REST_RETRY_MAX_SEC": "2",
        }

    def schedule(self) -> list[str]:
        """Return the fault scripts."""
        return make_schedule(
            seed=self.seed,
            wall_s=self.wall_s,
            idle_s=self.idle_s,
            connections=self.connections,
            symbols=self.symbols,
            settle_s=self.settle_s,
        )


@attrs.define
class Outcome:
    """What a run of the program left behind, besides its files."""

    exit_code: int
    wall_s: float
    faults: Counter[str]
    events: dict[str, int]
    traceback: bool
    stopped_ns: int
    rss_mib: dict[str, float]


async def run_program(plan: Plan, config: SimulatorConfig, directory: Path) -> Outcome:
    """Run the simulator and harvest, each a process of its own, until harvest ends by itself."""
    peaks: dict[str, float] = {}
    began = time.monotonic()
    with (directory / "harvest.log").open("wb") as log, (directory / "simulator.log").open("w") as noise:
        async with simulator_process(config, on_stderr=noise.write) as endpoints:
            command = [sys.executable, "-m", "harvest", "run", "--no-live", "--log-format", "json"]
            command += ["--data", str(directory / "data"), "--venue", plan.venue]
            command += ["--symbols", ",".join(plan.symbols), "--connections", str(plan.connections)]
            command += ["--hours", str(plan.wall_s / 3600)]
            urls = {"HARVEST_WS_URL": endpoints.ws_url, "HARVEST_REST_URL": endpoints.rest_url}
            async with trio.open_nursery() as nursery:
                process = await trio.lowlevel.open_process(
                    command,
                    cwd=directory,
                    env=_environment() | plan.settings() | urls,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=log,
                )
                try:
                    pids = {"harvest": process.pid, "simulator": endpoints.pid}
                    nursery.start_soon(_watch_memory, pids, peaks)
                    with trio.fail_after(plan.wall_s * 1.2 + 90):
                        await process.wait()
                finally:
                    if process.returncode is None:
                        process.kill()
                nursery.cancel_scope.cancel()
    assert process.returncode is not None
    said = _lines(directory / "simulator.log")
    applied = Counter(_kind_of(line.removeprefix(FAULT)) for line in said if line.startswith(FAULT))
    lines = [json.loads(line) for line in _lines(directory / "harvest.log") if line.startswith("{")]
    texts = [str(line.get("event", "")) for line in lines]
    stopped = [line["timestamp"] for line in lines if "hours are over" in str(line.get("event", ""))]
    return Outcome(
        exit_code=process.returncode,
        wall_s=time.monotonic() - began,
        faults=applied,
        events={name: sum(word in text for text in texts) for name, word in _EVENTS.items()},
        traceback=any("Traceback" in line for line in _lines(directory / "harvest.log")),
        stopped_ns=_to_ns(stopped[0]) if stopped else time.time_ns(),
        rss_mib=peaks,
    )


def _environment() -> dict[str, str]:
    own = {name: value for name, value in os.environ.items() if name not in BY_VARIABLE}
    return {name: value for name, value in own.items() if not name.startswith(PREFIX)}


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8", errors="replace").splitlines()


def _kind_of(script: str) -> str:
    words = re.split(r" (?:at|for|by|skip|with|notice|hard) ?", script)[0]
    return re.sub(r" \S+USDT", " one symbol", words)


def _to_ns(timestamp: str) -> int:
    return int(datetime.fromisoformat(timestamp).timestamp() * 1e9)


async def _watch_memory(pids: dict[str, int], peaks: dict[str, float]) -> None:
    """Note the peaks of resident memory, in MiB, where the system tells them."""
    while True:
        for name, pid in pids.items():
            peak = _peak_mib(pid)
            if peak is not None:
                peaks[name] = peak
        await trio.sleep(1)


def _peak_mib(pid: int) -> float | None:
    status = Path(f"/proc/{pid}/status")
    found = re.search(r"VmHWM:\s+(\d+)", status.read_text()) if status.exists() else None
    return int(found[1]) / 1024 if found else None


def verify(directory: Path) -> tuple[int, dict[str, Any]]:
    """Run ``harvest verify --json``; returns its exit code and its report."""
    command = [sys.executable, "-m", "harvest", "verify", str(directory / "data"), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=_environment())
    if not done.stdout:
        raise SystemExit(f"verify said nothing; exit {done.returncode}:\n{done.stderr}")
    report: dict[str, Any] = json.loads(done.stdout)
    return done.returncode, report


def judge(
    plan: Plan, outcome: Outcome, accounts: list[Account], verified: tuple[int, dict[str, Any]]
) -> list[str]:
    """Return what is wrong, a line each; nothing is the aim."""
    code, report = verified
    wrong = []
    if outcome.exit_code:
        wrong.append(f"harvest ended with exit code {outcome.exit_code}")
    if outcome.traceback:
        wrong.append("harvest's log holds a traceback")
    if code not in (0, 1) or report["damage"]:
        wrong.append(f"verify: exit {code}, damage {report['damage']}")
    if len(accounts) < 2 * len(plan.symbols):
        wrong.append(f"only {len(accounts)} of {2 * len(plan.symbols)} streams were ever sent")
    for one in accounts:
        bad = {"duplicates": one.duplicates, "wrong rows": one.wrong, "missing, unexplained": one.unexplained}
        if one.kind == "prices":
            bad["missing trades"] = one.missing
        bad["holes of planned hand-overs"] = one.planned_holes
        if plan.connections > 1:
            bad["holes"] = one.holes
        wrong += [f"{one.kind} {one.symbol}: {count} {what}" for what, count in bad.items() if count]
    return wrong


def render(plan: Plan, outcome: Outcome, accounts: list[Account], facts: dict[str, Any]) -> str:
    """Write the outcome as a small table."""
    head = (
        "kind",
        "symbol",
        "expected",
        "stored",
        "by REST",
        "duplicate",
        "missing",
        "recorded",
        "unexplained",
    )
    head += ("holes", "planned", "wrong")
    rows = [head]
    for one in sorted(accounts, key=lambda each: (each.kind, each.symbol)):
        numbers = (one.expected, one.stored, one.from_rest, one.duplicates, one.missing)
        numbers += (one.recorded_missing, one.unexplained, one.holes, one.planned_holes, one.wrong)
        rows.append((one.kind, one.symbol, *(f"{number:,}" for number in numbers)))
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    lines = [
        f"{plan.minutes:g} minutes of {plan.venue} at speed {plan.speed:g} in {outcome.wall_s:.0f} s, "
        f"{plan.connections} connection(s) a feed, seed {plan.seed}; {facts['sent_messages']:,} messages sent, "
        f"at most {facts['venue_lag_s']:.1f} s late",
        f"faults: {sum(outcome.faults.values())} ("
        + ", ".join(f"{count} {name}" for name, count in sorted(outcome.faults.items()))
        + ")",
        "harvest: " + ", ".join(f"{count} {name}" for name, count in outcome.events.items()),
        "memory: " + ", ".join(f"{name} {mib:.0f} MiB" for name, mib in outcome.rss_mib.items()),
        f"verify: exit {facts['verify_exit']}",
        *("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows),
    ]
    return "\n".join(lines)


def soak(plan: Plan, directory: Path) -> tuple[dict[str, Any], str]:
    """Run it all in ``directory``; returns the outcome as facts for machines, and as a table."""
    config = SimulatorConfig(
        venue=plan.venue,  # type: ignore[arg-type]
        symbols=plan.symbols,
        seed=plan.seed,
        speed=plan.speed,
        start_ns=time.time_ns(),
        faults=tuple(plan.schedule()),
        sent_log=directory / "sent.jsonl",
        connection_life_s=plan.life_s,
    )
    outcome = trio.run(run_program, plan, config, directory)
    if not (directory / "data").exists():
        log = "\n".join(_lines(directory / "harvest.log")[-20:])
        raise SystemExit(f"harvest recorded nothing; exit {outcome.exit_code}:\n{log}")
    sent = read_sent(directory / "sent.jsonl", outcome.stopped_ns - END_MARGIN_NS)
    verified = verify(directory)
    accounts = account(directory / "data", config, sent, verified[1])
    wrong = judge(plan, outcome, accounts, verified)
    facts = {
        "plan": attrs.asdict(plan),
        "start_ns": config.start_ns,
        "outcome": attrs.asdict(outcome),
        "verify_exit": verified[0],
        "venue_lag_s": venue_lag_s(directory / "data", config),
        "sent_messages": sum(sent.messages.values()),
        "totals": totals(accounts),
        "accounts": [attrs.asdict(one) for one in accounts],
        "wrong": wrong,
    }
    return facts, render(plan, outcome, accounts, facts)


def main() -> None:
    """Read the options, run, print the table, and exit 1 where anything is wrong."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=60.0, help="of the venue's time (60)")
    parser.add_argument("--speed", type=float, default=8.0, help="of the venue's time (8)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--connections", type=int, default=1, choices=(1, 2))
    parser.add_argument("--symbols", type=int, default=4, help="how many (4)")
    parser.add_argument("--venue", default="binance-usdm", choices=("binance-usdm", "binance-spot"))
    parser.add_argument("--json", type=Path, help="write the outcome to this file")
    parser.add_argument(
        "--keep", type=Path, help="keep data and logs in this directory, which must not exist"
    )
    options = parser.parse_args()
    invented = (f"T{number}USDT" for number in range(options.symbols))
    symbols = (*SYMBOLS, *invented)[: options.symbols]
    plan = Plan(options.minutes, options.speed, options.seed, options.connections, symbols, options.venue)
    with tempfile.TemporaryDirectory(prefix="soak-") as temporary:
        directory = Path(temporary)
        if options.keep is not None:
            directory = options.keep
            directory.mkdir(parents=True)
        facts, text = soak(plan, directory)
    print(text)
    if options.json is not None:
        options.json.write_text(json.dumps(facts, indent=2, default=str) + "\n", encoding="utf-8")
    for line in facts["wrong"]:
        print(f"WRONG: {line}")
    sys.exit(1 if facts["wrong"] else 0)


if __name__ == "__main__":
    main()
