"""Small data directories, written through the state machine and the storage as a run would."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

from harvest.pipeline.resume import resume_cvd
from harvest.pipeline.verify import verify
from harvest.storage.catalog import scan
from harvest.storage.files import DataDirectory
from harvest.storage.parquet import Provenance, encode
from tests.pipeline.wire import MIDNIGHT_MS, Harness, diff, snapshot, trade

if TYPE_CHECKING:
    from pathlib import Path

    from harvest.pipeline.verify import Report
    from harvest.pipeline.verify.series import SeriesReport

RUN_1, RUN_2 = "20240718T235900Z0001", "20240719T001000Z0002"


class Run(Harness):
    """A run that publishes what it made into ``root``, and goes on from what is there."""

    def __init__(self, root: Path, run: str = RUN_1, *, venue: str = "binance-usdm", **options: Any) -> None:
        catalog = scan(root, venue)
        resume = resume_cvd(catalog)
        stored = {
            (symbol, day): resume(symbol, day)
            for symbol in catalog.symbols("cvd")
            for day in catalog.days("cvd", symbol)
        }
        super().__init__(venue, stored_cvd=stored, **options)
        self.root, self.run, self.venue = root, run, venue
        self.seq = catalog.next_seq - 1

    def publish(self) -> list[Path]:
        """Write all rows so far, one file a kind and date; returns where."""
        self.pipeline.tables.seal_all()
        directory, paths = DataDirectory(self.root), []
        for sealed in self.pipeline.tables.take_sealed():
            path = directory.path_of(sealed, venue=self.venue, run=self.run)
            directory.publish(path, encode(sealed, Provenance(self.venue, self.run, trade_ids="raw")).data)
            paths.append(path)
        return paths


class Market:
    """Messages of a seeded market, 100 ms apart: each tick a diff and a trade, or a few."""

    def __init__(self, seed: int = 1, *, spot: bool = False, at_ms: int = MIDNIGHT_MS - 3_000) -> None:
        self.chaos = random.Random(seed)
        self.spot, self.at_ms = spot, at_ms
        self.trade_id, self.update_id = 1000, 5000

    def book(self, symbol: str = "BTCUSDT") -> bytes:
        """Return a snapshot of the book as of now."""
        sides = ([(100.0 - n, 1.0 + n) for n in range(8)], [(101.0 + n, 2.0 + n) for n in range(8)])
        return snapshot(self.update_id, *sides, at_ms=None if self.spot else self.at_ms)

    def diff(self) -> bytes:
        """Return the next diff."""
        chaos, before = self.chaos, self.update_id
        first = before + 1 if self.spot else before + chaos.randrange(1, 5)
        self.update_id = first + chaos.randrange(0, 9)
        bids = [(100.0 - chaos.randrange(8), chaos.choice((0.0, 1.5, 2.25, 3.0))) for _ in range(3)]
        asks = [(101.0 + chaos.randrange(8), chaos.choice((0.0, 1.5, 2.25, 3.0))) for _ in range(3)]
        prev = None if self.spot else before
        return diff(first, self.update_id, prev, bids, asks, at_ms=self.at_ms)

    def trade(self) -> bytes:
        """Return the next trade."""
        self.trade_id += 1
        qty = self.chaos.randrange(1, 5000) / 1000
        kind = None if self.spot else "MARKET"
        return trade(self.trade_id, qty=qty, sold=self.chaos.random() < 0.5, at_ms=self.at_ms, kind=kind)

    def tick(self) -> None:
        """Let 100 ms pass."""
        self.at_ms += 100


def record(run: Run, market: Market, ticks: int, *, lose: set[str] | None = None) -> None:
    """Feed ``ticks`` of the market; messages named in ``lose`` (``trade 5``: that of the fifth tick) never arrive."""
    lose = lose or set()
    for number in range(ticks):
        market.tick()
        run.recv_ns = (market.at_ms + 20) * 10**6
        for name, message in (("diff", market.diff()), ("trade", market.trade())):
            if f"{name} {number}" not in lose:
                run.frames(message)


def recorded(root: Path, *, ticks: int = 60, spot: bool = False, **options: Any) -> Run:
    """Record one run over midnight (that is after tick 30), with a snapshot after its first tick, and publish it."""
    run = Run(root, venue="binance-spot" if spot else "binance-usdm", **options)
    market = Market(spot=spot)
    record(run, market, 1)
    run.body(market.book())
    record(run, market, ticks - 1)
    run.publish()
    return run


def series(report: Report, kind: str, symbol: str = "BTCUSDT") -> SeriesReport:
    """Return one series of a report."""
    (found,) = [one for one in report.series if (one.kind, one.symbol) == (kind, symbol)]
    return found


def verified(root: Path) -> Report:
    """Verify in this process."""
    return verify(root, jobs=1)


def gaps(report: Report, kind: str) -> list[tuple[int, int, str]]:
    """Return what is missing of a kind as (from, to, why)."""
    return [(one.from_id, one.to_id, one.why) for one in series(report, kind).missing]


def damage(report: Report) -> list[tuple[str, str | None, int | None, int | None]]:
    """Return what is damaged as (what, kind, from, to)."""
    return [(one.what, one.kind, one.from_id, one.to_id) for one in report.damage]


def files(root: Path, kind: str) -> list[Path]:
    """Return the files of a kind, by date and name."""
    return sorted((root / kind).rglob("*.parquet"))
