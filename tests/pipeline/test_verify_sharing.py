"""Series that several processes verify: the largest first, and none is lost with a child."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Any

import pytest

from harvest.pipeline.verify import discovery, sharing, verify
from harvest.pipeline.verify.findings import Findings
from tests.pipeline.stored import Run, recorded
from tests.pipeline.wire import trade

if TYPE_CHECKING:
    from pathlib import Path


LARGEST = ("binance-spot", "BTCUSDT")


@pytest.fixture
def root(tmp_path):
    recorded(tmp_path, ticks=40)
    recorded(tmp_path, ticks=90, spot=True)
    run = Run(tmp_path, symbols=["ETHUSDT"])
    run.frames(trade(5, symbol="ETHUSDT"), trade(9, symbol="ETHUSDT"))
    run.publish()
    return tmp_path


class Noted(sharing._Work):
    """Work whose events can be waited for, in the thread that does the first series here."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        noted = self.noted = threading.Event()

        class Results(dict[int, Any]):
            def __setitem__(self, place: int, result: Any) -> None:
                super().__setitem__(place, result)
                if len(self) == 2:
                    noted.set()

        self.results = Results()

    def give_back(self, place: int) -> None:
        super().give_back(place)
        self.noted.set()


def shared(root: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[list[Any], list[Any], list[int]]:
    """Verify in two processes, of which this one does nothing until the other did; returns results, symbols done here, bytes."""
    verify_series, made = sharing.verify_series, list[Noted]()
    here: list[tuple[str, str]] = []
    progress: list[int] = []

    def work(*args: Any) -> Noted:
        made.append(Noted(*args))
        return made[0]

    def verify_here(root: Path, series: Any, on_bytes: Any) -> Any:
        here.append((series.venue, series.symbol))
        if len(here) == 1:
            assert made[0].noted.wait(60)
        return verify_series(root, series, on_bytes)

    monkeypatch.setattr(sharing, "_Work", work)
    monkeypatch.setattr(sharing, "verify_series", verify_here)
    series = discovery.discover(root, Findings(root))
    return sharing.verify_all(root, series, 2, progress.append), here, progress


def alone(root: Path) -> list[Any]:
    series = discovery.discover(root, Findings(root))
    return sharing.verify_all(root, series, 1, lambda _bytes: None)


def total(root: Path) -> int:
    return sum(path.stat().st_size for path in root.rglob("*.parquet"))


def test_a_child_takes_series_while_this_process_does_the_largest(root, monkeypatch):
    expected = alone(root)
    results, here, progress = shared(root, monkeypatch)
    assert here == [LARGEST]
    assert results == expected
    assert progress[-1] == total(root)


def test_what_a_child_had_in_hand_when_it_died_is_done_here(root, monkeypatch, tmp_path_factory):
    expected = alone(root)
    modules = tmp_path_factory.mktemp("modules")
    (modules / "dying.py").write_text(
        "import pickle, sys\n"
        "from harvest.pipeline.verify.sharing import send\n"
        "pickle.load(sys.stdin.buffer)\n"
        "send(sys.stdout.buffer, None)\n"
        "pickle.load(sys.stdin.buffer)\n"
        "send(sys.stdout.buffer, 1_000)\n"
    )
    monkeypatch.setenv("PYTHONPATH", f"{modules}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    monkeypatch.setattr(sharing, "WORKER", "dying")
    results, here, progress = shared(root, monkeypatch)
    assert sorted(here) == [LARGEST, ("binance-usdm", "BTCUSDT"), ("binance-usdm", "ETHUSDT")]
    assert results == expected
    assert progress[-1] == total(root)


def test_a_child_that_never_comes_up_costs_nothing_but_itself(root, monkeypatch):
    monkeypatch.setattr(sharing, "WORKER", "harvest.no_such_module")
    assert verify(root, jobs=3).to_json() == verify(root, jobs=1).to_json()
