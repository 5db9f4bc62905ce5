"""Backfill on the virtual clock: who is asked for, when, how often, and what is delivered."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import structlog
import trio

from harvest.metrics import Metrics
from harvest.nurseries.backfill import WORKERS, Backfill
from harvest.nurseries.intake import Intake
from harvest.nurseries.rest import RestError
from harvest.storage.quarantine import Quarantine
from harvest.venues import VENUES
from tests.pipeline.wire import Harness, diff, snapshot

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

REST = SimpleNamespace(retry_initial_s=1.0, retry_max_s=8.0)
BOOK = SimpleNamespace(snapshot_levels=1000)
#: The first wait of a backoff is at most this.
SHORT_S = 0.25
ANSWER_S = 0.5


def refusal(status: int | None = 503, retry_after_s: float | None = None) -> RestError:
    return RestError("h", "/fapi/v1/depth", "later", status=status, retry_after_s=retry_after_s)


class Client:
    """Answers each request after a while, by ``answer(symbol, how often it was asked)``: bytes, or an error to raise."""

    def __init__(self, answer: Callable[[str, int], bytes | RestError] | None = None) -> None:
        self.answer = answer or (lambda symbol, number: b"body of " + symbol.encode())
        self.asked: list[tuple[float, str]] = []
        self.paths: list[str] = []
        self.takes_s: dict[str, float] = {}
        self.at_once = self.most_at_once = 0

    async def get(self, request: Any) -> bytes:
        symbol = request.path.partition("symbol=")[2].partition("&")[0]
        self.asked.append((trio.current_time(), symbol))
        self.paths.append(request.path)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        number = Counter(symbol for _, symbol in self.asked)[symbol]
        try:
            await trio.sleep(self.takes_s.get(symbol, ANSWER_S))
        finally:
            self.at_once -= 1
        answer = self.answer(symbol, number)
        if isinstance(answer, RestError):
            raise answer
        return answer

    def times(self, symbol: str) -> list[float]:
        return [when for when, asked in self.asked if asked == symbol]


class Bench:
    def __init__(self, client: Client) -> None:
        self.client = client
        self.metrics = Metrics()
        self.delivered: list[tuple[float, str, bytes]] = []
        self.on_delivery: Callable[[str], object] = lambda symbol: None
        any_client: Any = client
        self.backfill = Backfill(
            VENUES["binance-usdm"],
            any_client,
            deliver=self._deliver,
            metrics=self.metrics,
            book=BOOK,
            rest=REST,
        )

    def _deliver(self, symbol: str, body: bytes) -> None:
        self.delivered.append((trio.current_time(), symbol, body))
        self.on_delivery(symbol)

    async def run(self, seconds: float, *wanted: str) -> None:
        for symbol in wanted:
            self.backfill.want(symbol)
        with trio.move_on_after(seconds):
            await self.backfill.run()

    def symbols(self) -> list[str]:
        return [symbol for _, symbol, _ in self.delivered]


@pytest.fixture
def lines() -> Iterator[list[Any]]:
    with structlog.testing.capture_logs() as captured:
        yield captured


async def test_a_wanted_snapshot_is_asked_for_with_the_levels_of_the_settings_and_delivered(autojump_clock):
    bench = Bench(Client())
    await bench.run(10, "BTCUSDT")
    assert bench.client.paths == ["/fapi/v1/depth?symbol=BTCUSDT&limit=1000"]
    assert bench.delivered == [(ANSWER_S, "BTCUSDT", b"body of BTCUSDT")]
    assert (bench.metrics.snapshots, bench.metrics.snapshot_failures) == (1, 0)


async def test_a_symbol_that_is_wanted_often_is_queued_once(autojump_clock):
    bench = Bench(Client())
    await bench.run(10, *["BTCUSDT", "ETHUSDT"] * 5)
    assert sorted(bench.symbols()) == ["BTCUSDT", "ETHUSDT"]


async def test_only_so_many_requests_are_under_way_at_once_and_everybody_has_his_turn(autojump_clock):
    symbols = [f"S{number}" for number in range(30)]
    bench = Bench(Client())
    await bench.run(60, *symbols)
    assert bench.client.most_at_once == WORKERS
    assert sorted(bench.symbols()) == sorted(symbols)
    # First come, first served.
    assert [symbol for _, symbol in bench.client.asked] == symbols


async def test_to_want_never_waits_and_wakes_an_idle_worker_at_once(autojump_clock):
    bench = Bench(Client())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bench.backfill.run)
        for moment in (5.0, 100.0, 100.1, 7000.0):
            await trio.sleep_until(moment)
            bench.backfill.want(f"S{moment}")
        await trio.sleep(1)
        nursery.cancel_scope.cancel()
    assert [when for when, _ in bench.client.asked] == [5.0, 100.0, 100.1, 7000.0]


async def test_one_slow_answer_holds_up_nobody_else(autojump_clock):
    bench = Bench(Client())
    bench.client.takes_s = {"SLOW": 50.0}
    await bench.run(60, "SLOW", *[f"S{number}" for number in range(9)])
    assert max(when for when, symbol, _ in bench.delivered if symbol != "SLOW") <= 3 * ANSWER_S
    assert bench.symbols()[-1] == "SLOW"


async def test_a_symbol_that_is_wanted_again_while_it_is_asked_for_is_not_asked_for_twice_at_once(
    autojump_clock,
):
    bench = Bench(Client())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bench.backfill.run)
        bench.backfill.want("BTCUSDT")
        await trio.sleep(ANSWER_S / 2)
        bench.backfill.want("BTCUSDT")
        await trio.sleep(30)
        nursery.cancel_scope.cancel()
    # Whether this body is too old, the book itself decides when it is delivered.
    assert bench.symbols() == ["BTCUSDT"]
    assert bench.client.most_at_once == 1


async def test_failures_are_retried_for_ever_with_growing_bounded_waits_that_the_log_tells(
    autojump_clock, lines
):
    bench = Bench(Client(lambda symbol, number: refusal(None)))
    await bench.run(300, "BTCUSDT")
    times = bench.client.times("BTCUSDT")
    waits = [after - before - ANSWER_S for before, after in pairwise(times)]
    assert waits[0] <= SHORT_S
    assert 0.5 <= waits[1] <= 1
    assert 1 <= waits[2] <= 2
    assert all(4 <= wait <= 8 for wait in waits[4:])
    assert len(waits) > 30
    assert bench.metrics.snapshot_failures >= len(waits)
    said = [float(line["event"].rpartition("again in ")[2].rstrip("s")) for line in lines]
    assert said[: len(waits)] == pytest.approx(waits, abs=0.051)
    assert lines[0]["event"].startswith("BTCUSDT: no snapshot (h/fapi/v1/depth: later); trying again in ")
    assert (lines[0]["tag"], lines[0]["log_level"]) == ("SNAPSHOT", "warning")


async def test_retry_after_is_kept_to(autojump_clock, lines):
    answers = [refusal(429, 20.0), refusal(418, 120.0), b"body"]
    bench = Bench(Client(lambda symbol, number: answers[number - 1]))
    await bench.run(300, "BTCUSDT")
    first, second, third = bench.client.times("BTCUSDT")
    assert second - first == pytest.approx(ANSWER_S + 20)
    assert third - second == pytest.approx(ANSWER_S + 120)
    assert len(bench.delivered) == 1


async def test_symbols_that_always_fail_do_not_hold_up_the_others(autojump_clock, lines):
    failing = {f"BAD{number}" for number in range(2 * WORKERS)}
    bench = Bench(
        Client(
            lambda symbol, number: (
                refusal(400, 1000.0) if symbol in failing else b"body of " + symbol.encode()
            )
        )
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bench.run, 900, *sorted(failing))
        await trio.sleep(500)
        bench.backfill.want("GOOD")
        await trio.sleep(2 * ANSWER_S)
        assert bench.symbols() == ["GOOD"]
        nursery.cancel_scope.cancel()


async def test_a_failed_symbol_is_retried_on_time_by_another_worker_where_its_own_is_busy(
    autojump_clock, lines
):
    def answer(symbol: str, number: int) -> bytes | RestError:
        if symbol == "BAD" and number == 1:
            # What waits behind it, its worker takes up at once.
            bench.backfill.want("SLOW")
            return refusal(503, 10.0)
        return b"body"

    bench = Bench(Client(answer))
    bench.client.takes_s = {"SLOW": 100.0}
    await bench.run(200, "BAD")
    assert bench.client.times("SLOW") == [ANSWER_S]
    assert bench.client.times("BAD") == [0.0, pytest.approx(ANSWER_S + 10)]


async def test_after_a_success_the_next_failure_is_retried_soon_again(autojump_clock, lines):
    answers: list[bytes | RestError] = [*[refusal()] * 6, b"body", refusal(), b"body"]
    bench = Bench(Client(lambda symbol, number: answers[number - 1]))
    await bench.run(100, "BTCUSDT")
    bench.backfill.want("BTCUSDT")
    await bench.run(100)
    times = bench.client.times("BTCUSDT")
    assert len(times) == 9
    assert times[8] - times[7] - ANSWER_S <= SHORT_S


async def test_a_snapshot_that_never_fits_does_not_spin(autojump_clock, lines):
    bench = Bench(Client())
    bench.on_delivery = bench.backfill.want
    await bench.run(600, "BTCUSDT")
    times = bench.client.times("BTCUSDT")
    waits = [after - before - ANSWER_S for before, after in pairwise(times)]
    assert all(4 <= wait <= 8 for wait in waits[5:])
    assert len(times) < 120


async def test_a_snapshot_that_fits_at_last_ends_the_asking_and_its_backoff(autojump_clock, lines):
    bench = Bench(Client())

    def until_the_fourth(symbol: str) -> None:
        if len(bench.delivered) < 4:
            bench.backfill.want(symbol)

    bench.on_delivery = until_the_fourth
    await bench.run(600, "BTCUSDT")
    assert len(bench.client.asked) == 4
    began = trio.current_time()
    await bench.run(5, "BTCUSDT")
    assert bench.client.times("BTCUSDT")[-1] == began


async def test_cancelled_while_it_asks_and_while_it_waits_it_ends_at_once(autojump_clock, lines):
    for seconds in (ANSWER_S / 2, ANSWER_S + 0.3, ANSWER_S * 2 + 2.0):
        bench = Bench(Client(lambda symbol, number: refusal()))
        began = trio.current_time()
        await bench.run(seconds, "BTCUSDT", "ETHUSDT")
        assert trio.current_time() - began == seconds
        assert bench.client.at_once == 0


class Market:
    """A real intake and pipeline behind the backfill; the diffs of one book every 100 ms, never waiting for it."""

    def __init__(self, client: Client, root: Any, venue: str) -> None:
        self.harness = Harness(venue)
        self.bench = Bench(client)
        self.update_id = 0
        self.intake = Intake(
            self.harness.pipeline,
            next_seq=1,
            quarantine=Quarantine(root, "run"),
            max_buffered_bytes=2**30,
            buffered_bytes=lambda: 0,
            want_snapshot=self.bench.backfill.want,
            want_trades=lambda symbol, from_id, to_id: None,
        )
        self.bench.on_delivery = lambda symbol: self.intake.snapshot(symbol, self.bench.delivered[-1][2])

    @property
    def stats(self) -> Any:
        return self.harness.metrics.feed("orderbook", "BTCUSDT")

    def snapshot(self, age: int = 0) -> bytes:
        return snapshot(max(self.update_id - age, 0), [(99.0, 1.0)], [(101.0, 1.0)], at_ms=None)

    async def run(self, seconds: float, gaps_at: tuple[int, ...] = ()) -> list[float]:
        """Run for so long; returns when each diff arrived."""
        arrived = []
        connection = self.intake.opened("orderbook-1", "orderbook", ("BTCUSDT",))
        with trio.move_on_after(seconds):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.bench.backfill.run)
                while True:
                    self.update_id += 1
                    if self.update_id in gaps_at:
                        self.update_id += 1
                    prev = None if self.harness.pipeline.venue.depth_rule == "spot" else self.update_id - 1
                    frame = diff(self.update_id, self.update_id, prev, [(99.0, 2.0)])
                    self.intake.frames(connection, [frame], self.update_id * 10**8, self.update_id * 10**8)
                    arrived.append(trio.current_time())
                    await trio.sleep(0.1)
        return arrived


@pytest.mark.parametrize("venue", ["binance-usdm", "binance-spot"])
async def test_a_book_gets_its_snapshot_and_one_more_after_a_gap_and_the_capture_waits_for_neither(
    venue, tmp_path, autojump_clock, lines
):
    market = Market(Client(), tmp_path, venue)
    market.bench.client.answer = lambda symbol, number: market.snapshot(age=2)
    market.bench.client.takes_s = {"BTCUSDT": 3.0}
    arrived = await market.run(30, gaps_at=(150,))
    assert len(market.bench.delivered) == 2
    assert market.stats.in_sync
    assert (market.stats.gaps, market.stats.resyncs) == (1, 2)
    assert [after - before for before, after in pairwise(arrived)] == pytest.approx(
        [0.1] * (len(arrived) - 1)
    )


@pytest.mark.parametrize("venue", ["binance-usdm", "binance-spot"])
async def test_a_venue_whose_snapshots_are_always_too_old_is_asked_ever_more_rarely(
    venue, tmp_path, autojump_clock, lines
):
    market = Market(Client(), tmp_path, venue)
    # After ten minutes it serves good ones again, and the book is whole.
    market.bench.client.answer = lambda symbol, number: (
        snapshot(0, [(99.0, 1.0)], [(101.0, 1.0)]) if trio.current_time() < 600 else market.snapshot(age=2)
    )
    market.update_id = 1000
    await market.run(630)
    times = market.bench.client.times("BTCUSDT")
    assert all(4 <= after - before - ANSWER_S <= 8.2 for before, after in pairwise(times[5:]))
    assert market.stats.in_sync
    assert times[-1] < 610


async def test_a_malformed_body_is_kept_and_another_one_asked_for_without_spinning(
    tmp_path, autojump_clock, lines
):
    market = Market(Client(), tmp_path, "binance-usdm")
    bodies = [b"<html>", b"", b'{"lastUpdateId":"x"}', b"[]"]
    market.bench.client.answer = lambda symbol, number: (
        bodies[number - 1] if number <= len(bodies) else market.snapshot(age=2)
    )
    await market.run(60)
    assert market.harness.metrics.malformed == len(bodies)
    assert len(market.bench.client.asked) == len(bodies) + 1
    assert market.stats.in_sync
    times = market.bench.client.times("BTCUSDT")
    assert times[4] - times[3] >= 1
