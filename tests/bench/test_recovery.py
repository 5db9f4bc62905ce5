"""The journal that a recovery is measured on: as a run leaves one, whatever it is made of."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from bench import dead_journal
from bench.dead_journal import write_journal
from bench.recovery import by_hand
from harvest.pipeline.dead_runs import dead_runs, recover_all
from harvest.pipeline.verify import verify
from tests.program import RECORDINGS

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("source", ["recorded", "made"])
def test_a_journal_of_any_size_is_recovered_whole(
    tmp_path: Path, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if source == "made":
        monkeypatch.setattr(dead_journal, "recordings", dict)
        monkeypatch.setattr(dead_journal, "MADE", 1000)
    elif not RECORDINGS.exists():
        pytest.skip("there are no recordings beside the project")
    made = write_journal(tmp_path, 3 * 10**6, copies=2, block=10)
    (run,) = dead_runs(tmp_path)
    assert 2.9e6 < run.size_bytes < 3.3e6
    (result,) = recover_all(tmp_path, jobs=2, job_bytes=1)
    assert (result.error, result.problems, result.symbols) == (None, [], made.symbols)
    # The made messages are of no market that could be.
    allowed = {"crossed"} if source == "made" else set()
    assert {one.what for one in verify(tmp_path, jobs=1).damage} <= allowed


def test_a_recovery_is_timed(tmp_path: Path) -> None:
    made = write_journal(tmp_path / "data", 10**6, copies=1, block=10)
    outcome = by_hand(tmp_path, made, 1.0, jobs=2)
    told = json.loads(json.dumps(outcome.to_json()))
    assert told["kept"]
    assert told["rows"] > made.frames
    assert told["mb_s"] > 0
