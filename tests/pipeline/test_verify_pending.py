from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from bench.faults.workload import store_uninterrupted, work
from harvest.pipeline.verify import orderbook, verify

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("seed", [2, 3])
def test_a_run_that_let_few_diffs_wait_for_a_snapshot_is_replayed_with_as_few(
    tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    store_uninterrupted(work(seed, tmp_path / "journalled"), tmp_path / "data")
    assert verify(tmp_path / "data", jobs=1).damage == []
    # With more, rows would differ: it is the files that say how many.
    monkeypatch.setattr(orderbook, "max_pending_diffs_of", lambda _files: None)
    assert verify(tmp_path / "data", jobs=1).damage != []
