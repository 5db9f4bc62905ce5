from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from harvest.metrics import Metrics
from harvest.nurseries.status import Status
from harvest.storage.tables import Tables


def status_of(metrics: Metrics) -> Status:
    writer: Any = SimpleNamespace(
        pending=lambda: SimpleNamespace(tables=0, failing=0),
        stats=SimpleNamespace(last_done_s=None, last_path=None, files=0, bytes=0),
        waiting_bytes=0,
    )
    rotation: Any = SimpleNamespace(extreme=SimpleNamespace(active=False, interval_s=60), overflow_bytes=0)
    upkeep: Any = SimpleNamespace(free_text="much")
    return Status(
        metrics=metrics, tables=Tables(max_rows=10), writer=writer, rotation=rotation, upkeep=upkeep
    )


def test_audits_have_a_line_as_soon_as_there_was_one():
    metrics = Metrics()
    status = status_of(metrics)
    assert not any("audits" in line for line in status.lines())
    metrics.audits.update(["in_sync"] * 1200 + ["drift", "abandoned", "abandoned"])
    assert status.lines()[-1] == "audits of books: 1,200 in sync, 1 drifted, 2 abandoned"
