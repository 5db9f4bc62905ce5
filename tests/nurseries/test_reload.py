"""A reload: from settings that are loaded anew to the pipeline, the queue of snapshots and the feeds."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import attrs
import pytest
import structlog
import trio

from harvest.errors import SettingsError
from harvest.nurseries.reload import Reload
from harvest.nurseries.watchlist import Watchlist
from harvest.pipeline.records import Symbols
from harvest.settings import Loaded, Settings
from tests.nurseries.feed_bench import Bench as FeedBench
from tests.pipeline.wire import DAY, trade

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

BTC, ETH, SOL, BNB = "BTCUSDT", "ETHUSDT", "SOLUSDT", "BNBUSDT"


@attrs.define
class Feed:
    changes: list[tuple[list[str], list[str]]] = attrs.Factory(list)

    def change(self, added: Sequence[str], removed: Sequence[str]) -> None:
        self.changes.append((list(added), list(removed)))


def _set() -> trio.Event:
    event = trio.Event()
    event.set()
    return event


class Listing:
    """Refuses what begins with NO."""

    async def tradable(self, symbols: Sequence[str]) -> list[str]:
        await trio.lowlevel.checkpoint()
        return [symbol for symbol in symbols if not symbol.startswith("NO")]


class Bench:
    def __init__(self, root: Path, **stored: int) -> None:
        self.inner = FeedBench(root, (BTC, ETH))
        self.forgotten: list[str] = []
        self.stored = stored
        self.looks = 0
        self.feed = Feed()
        self.refused: set[str] = set()
        self.settings: Loaded | SettingsError = self.given(BTC, ETH)
        self.watchlist = Watchlist(
            (BTC, ETH),
            look=self.look,
            id_space="aggregate",
            pipeline=self.inner.harness.pipeline,
            intake=self.inner.intake,
            backfill=SimpleNamespace(forget=self.forgotten.append),  # type: ignore[arg-type]
            ready=_set(),
        )
        self.watchlist.feeds.append(self.feed)  # type: ignore[arg-type]
        self.reload = Reload(self.load, Settings(), self.watchlist, Listing())  # type: ignore[arg-type]

    @staticmethod
    def given(*symbols: str, origin: str = "settings.toml:2", **streams: Any) -> Loaded:
        plain = Settings()
        settings = attrs.evolve(
            plain,
            capture=attrs.evolve(plain.capture, symbols=symbols),
            streams=attrs.evolve(plain.streams, **streams),
        )
        origins = {"capture.symbols": origin, "streams.idle_s": "settings.toml:9"}
        return Loaded(settings, origins, [])

    def load(self) -> Loaded:
        if isinstance(self.settings, SettingsError):
            raise self.settings
        return self.settings

    def look(self, symbols: Sequence[str]) -> Any:
        self.looks += 1
        return SimpleNamespace(
            catalog=SimpleNamespace(
                damage=[], root="data", id_space=lambda symbol: "raw" if symbol in self.refused else None
            ),
            last_trade_ids={symbol: self.stored[symbol] for symbol in symbols if symbol in self.stored},
            day=DAY,
            resume_cvd=lambda of, day: 3 * 10**8 if of in self.stored else 0,
        )

    def records(self) -> list[tuple[dict[str, int | None], tuple[str, ...]]]:
        return [(one.added, one.removed) for one in self.inner.records if isinstance(one, Symbols)]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path, SOLUSDT=70)


@pytest.fixture
def lines() -> Iterator[list[Any]]:
    with structlog.testing.capture_logs() as captured:
        yield captured


def said(lines: list[Any]) -> list[str]:
    return [line["event"] for line in lines]


async def test_what_differs_goes_to_the_pipeline_as_one_record_and_to_the_feeds(bench, lines):
    bench.settings = bench.given(SOL, BTC, BNB)
    await bench.reload.reload()
    assert bench.records() == [({SOL: 70, BNB: None}, (ETH,))]
    assert bench.feed.changes == [([SOL, BNB], [ETH])]
    assert bench.forgotten == [ETH]
    assert bench.watchlist.symbols == (BTC, SOL, BNB)
    assert said(lines) == ["SOLUSDT: added", "BNBUSDT: added", "ETHUSDT: removed"]
    # What earlier runs stored is gone on from: ids and the running sum.
    bench.inner.harness.frames(trade(71, symbol=SOL, event="aggTrade", qty=2.0))
    assert bench.inner.harness.column("cvd", "cvd", symbol=SOL) == [5.0]
    assert bench.inner.harness.rows("breaks", SOL) == []


async def test_the_same_symbols_change_nothing(bench, lines):
    bench.settings = bench.given(ETH, BTC)
    await bench.reload.reload()
    assert (bench.records(), bench.feed.changes) == ([], [])
    assert said(lines) == ["the symbols stay as they are"]


async def test_settings_that_cannot_be_run_with_are_named_line_by_line_and_change_nothing(bench, lines):
    bench.settings = SettingsError(["settings.toml:3: one", "settings.toml:7: two"])
    await bench.reload.reload()
    assert (bench.records(), bench.feed.changes) == ([], [])
    assert said(lines) == [
        "these settings cannot be run with; nothing has changed:",
        "  settings.toml:3: one",
        "  settings.toml:7: two",
    ]
    assert {line["log_level"] for line in lines} == {"error"}


@pytest.mark.parametrize("origin", ["--symbols", "$SYMBOLS"])
async def test_symbols_from_above_the_file_cannot_be_changed_and_it_says_so(origin, bench, lines):
    bench.settings = bench.given(SOL, origin=origin, idle_s=60.0)
    await bench.reload.reload()
    assert bench.records() == []
    assert said(lines)[-1] == f"symbols are given by {origin}; a reload cannot change them"
    assert said(lines)[0].startswith("streams.idle_s = 60.0 (settings.toml:9) is not applied")


async def test_what_the_venue_or_the_stored_ids_refuse_is_left_out_and_the_others_are_taken(bench, lines):
    bench.refused = {BNB}
    bench.settings = bench.given(BTC, ETH, "NOSUCH", BNB, SOL)
    await bench.reload.reload()
    assert bench.records() == [({SOL: 70}, ())]
    assert bench.watchlist.symbols == (BTC, ETH, SOL)
    assert said(lines)[0].startswith("BNBUSDT: not added: data (BNBUSDT) holds raw trade ids")
    # The directory is looked at once for all of them.
    assert bench.looks == 1


async def test_requests_that_come_while_it_reloads_lead_to_one_more(bench, lines, monkeypatch):
    loads = 0

    def load() -> Loaded:
        nonlocal loads
        loads += 1
        if loads == 1:
            for _ in range(3):
                trio.from_thread.run_sync(bench.reload.request)
        return bench.given(BTC, ETH)

    monkeypatch.setattr(bench.reload, "_load", load)
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(bench.reload.run)
            bench.reload.request()
            await bench.inner.until(lambda: lines.count(lines[0]) == 2 if lines else False)
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
    assert loads == 2


async def test_two_changes_at_once_are_made_one_after_the_other(bench, lines):
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: bench.watchlist.change(added=[SOL, BNB], removed=[ETH]))
        nursery.start_soon(lambda: bench.watchlist.change(added=[SOL], removed=[ETH, BTC]))
    assert bench.watchlist.symbols == (SOL, BNB)
    assert sum(len(removed) for _, removed in bench.records()) == 2
    assert sum(len(added) for added, _ in bench.records()) == 2


async def test_without_a_symbol_left_it_says_that_nothing_is_recorded(bench, lines):
    await bench.watchlist.change(removed=[BTC, ETH])
    assert said(lines)[-1] == "no symbol is left: nothing is recorded"
