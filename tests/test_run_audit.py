"""Audits end to end: the program against the simulated venue, honest and with a level that it leaves out."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.program import harvest, rows

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow
SYMBOLS = ("BTCUSDT", "ETHUSDT")
RUN = ("run", "--symbols", ",".join(SYMBOLS), "--simulate", "--data", "data", "--no-live")


def verified(tmp_path: Path) -> dict[str, Any]:
    done = harvest("verify", "data", "--json", cwd=tmp_path)
    report: dict[str, Any] = json.loads(done.stdout)
    assert (done.returncode, report["damage"]) == (0, []), done.stdout
    return report


@pytest.mark.parametrize("venue", ["binance-usdm", "binance-spot"])
def test_an_honest_venue_shows_no_drift(venue, tmp_path):
    done = harvest(*RUN, "--venue", venue, "--hours", "0.002", cwd=tmp_path, HARVEST_AUDIT_SEC="2")
    assert done.returncode == 0, done.stderr
    assert "the book has drifted" not in done.stderr
    assert "[AUDIT] books audited: " in done.stderr
    for symbol in SYMBOLS:
        audits = rows(tmp_path / "data", "audits", symbol=symbol)
        assert len(audits) >= 2
        assert not any(row["drifted"] for row in audits)
        assert all(row["bid_compared"] > 100 < row["ask_compared"] for row in audits)
        # The audits' own snapshots are not in depth: there is the first one alone.
        snapshots = [row for row in rows(tmp_path / "data", "depth", symbol=symbol) if row["is_snapshot"]]
        assert [row["source"] for row in snapshots] == ["rest"] * len(snapshots)
        assert len(snapshots) <= 2
    verified(tmp_path)


def test_a_level_that_was_left_out_is_found_and_the_book_begins_anew(tmp_path):
    fault = "drop level ETHUSDT at 2s skip 40"
    done = harvest(*RUN, "--fault", fault, "--hours", "0.003", cwd=tmp_path, HARVEST_AUDIT_SEC="2")
    assert done.returncode == 0, done.stderr
    root = tmp_path / "data"
    assert not any(row["drifted"] for row in rows(root, "audits", symbol="BTCUSDT"))
    audits = rows(root, "audits", symbol="ETHUSDT")
    drifted = [row for row in audits if row["drifted"]]
    assert drifted
    for row in drifted:
        assert row["bid_differing"] + row["ask_differing"] == 1
        assert row["max_drift"] > 0
    # It was found while it lasted, and healed.
    assert not audits[-1]["drifted"]
    assert done.stderr.count("[AUDIT] ETHUSDT: the book has drifted: of ") == len(drifted)
    assert f"{len(drifted):,} audits found that a book had drifted" in done.stdout
    assert rows(root, "breaks") == []
    snapshots = [row for row in rows(root, "depth", symbol="ETHUSDT") if row["source"] == "rest"]
    assert len(snapshots) > len(drifted)
    verified(tmp_path)
