"""Recordings with faults at random points: ``verify`` names exactly what is missing, and what was spoilt afterwards."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench import verify_faults

RECORDINGS = Path(__file__).resolve().parents[2].parent / "shared" / "recordings"
FILES = {"binance-usdm": ["usdm__btcusdt_20240718.gz"], "binance-spot": ["spot__btcusdt_20240808.gz"]}

pytestmark = pytest.mark.skipif(
    not all((RECORDINGS / name).exists() for names in FILES.values() for name in names),
    reason="the shared recordings are not beside this checkout",
)


@pytest.mark.slow
def test_exactly_the_spoilt_ids_are_named_and_untouched_files_raise_no_alarm(tmp_path, monkeypatch):
    monkeypatch.setattr(verify_faults, "FILES", FILES)
    score = verify_faults.run(RECORDINGS, points=60, stored_points=120, per_round=60, seed=7, work=tmp_path)
    assert score.wrong == []
    assert (score.found, score.false_alarms) == (score.expected, 0)
    assert sum(score.points.values()) == 180
    assert score.expected > 100


def test_the_oracle_of_the_faults_knows_a_deleted_a_doubled_and_a_swapped_message(tmp_path):
    def message(stream, **data):
        return verify_faults.Message(b"", b"", stream, data)

    trades = [message("trade", t=trade_id) for trade_id in (1, 2, 2, 5, 4, 9)]
    found = verify_faults.missing_by_rule("v", "s", trades)
    assert found == {("v", "s", "prices", 3, 3), ("v", "s", "prices", 6, 8)}
    links = [(1, 5, 0), (6, 9, 5), (15, 18, 12), (11, 12, 9), (20, 22, 18)]
    usdm = [message("depth", U=first, u=last, pu=prev) for first, last, prev in links]
    assert verify_faults.missing_by_rule("v", "s", usdm) == {("v", "s", "depth", 9, 12)}
    spot = [
        message("depth", U=first, u=last) for first, last in ((1, 5), (6, 9), (15, 18), (10, 14), (19, 22))
    ]
    assert verify_faults.missing_by_rule("v", "s", spot) == {("v", "s", "depth", 9, 15)}
