"""A bad venue for a few minutes of its time: every id is accounted for, and the account can find what is not."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from bench import soak
from bench.soak_account import END_MARGIN_NS, account, read_sent
from bench.soak_schedule import make_schedule
from harvest.simulator import SimulatorConfig, parse_fault
from tests.program import ROOT, environment

SYMBOLS = soak.SYMBOLS[:2]


@pytest.mark.parametrize("connections", [1, 2])
def test_a_schedule_is_seeded_strikes_every_sort_and_leaves_time_at_the_end(connections):
    def schedule(seed: int) -> list[str]:
        return make_schedule(
            seed=seed, wall_s=360, idle_s=4, connections=connections, symbols=SYMBOLS, settle_s=20
        )

    scripts = schedule(1)
    assert scripts == schedule(1) != schedule(2)
    faults = [parse_fault(script) for script in scripts]
    assert max(fault.at.high_s for fault in faults) < 340
    struck = {fault.action for fault in faults}
    assert {
        "cut",
        "stall",
        "forget",
        "shutdown",
        "throttle",
        "ban",
        "rest down",
        "gap",
        "duplicate",
    } <= struck
    # What strikes all connections of a venue no second connection can bridge, but for what was announced.
    breaking = {"cut", "stall", "forget", "gap", "swap"}
    if connections > 1:
        assert all(fault.on_one for fault in faults if fault.action in breaking)
    assert ("mute route" in struck) is (connections == 1)


@pytest.mark.slow
def test_three_minutes_of_a_bad_venue_leave_no_trade_missing_and_no_hole_with_two_connections(tmp_path):
    plan = soak.Plan(3, 10, 7, 2, SYMBOLS, "binance-usdm")
    kept, found = tmp_path / "soak", tmp_path / "found.json"
    options = ["--minutes", "3", "--speed", "10", "--seed", "7", "--connections", "2", "--symbols", "2"]
    done = subprocess.run(
        [sys.executable, "-m", "bench.soak", *options, "--keep", str(kept), "--json", str(found)],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    facts = json.loads(found.read_text(encoding="utf-8"))
    assert sum(facts["outcome"]["faults"].values()) > 5
    assert facts["outcome"]["events"]["hand-overs"] >= 4
    for kind in ("prices", "depth"):
        total = facts["totals"][kind]
        assert total["expected"] == total["stored"] > 1000
        assert (total["duplicates"], total["holes"], total["unexplained"], total["wrong"]) == (0, 0, 0, 0)

    # The account is not blind: with a file gone, just its trades are missing, and nothing explains them.
    files = sorted((kept / "data" / "prices").rglob("*.parquet"))
    files[len(files) // 2].unlink()
    config = SimulatorConfig(
        symbols=SYMBOLS, seed=plan.seed, speed=plan.speed, start_ns=int(facts["start_ns"])
    )
    sent = read_sent(kept / "sent.jsonl", facts["outcome"]["stopped_ns"] - END_MARGIN_NS)
    accounts = account(kept / "data", config, sent, {"series": []})
    assert sum(one.unexplained for one in accounts if one.kind == "prices") > 0
    assert sum(one.unexplained for one in accounts if one.kind == "depth") == 0
