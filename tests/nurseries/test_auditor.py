"""The auditor on the virtual clock: which book when, how often again, and what it says of it."""

from __future__ import annotations

import random
from collections import Counter
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import structlog
import trio

from harvest.nurseries.auditor import LEAD_S, PATIENCE_S, TRIES, Auditor
from harvest.nurseries.rest import RestError
from harvest.pipeline.events import AuditAbandoned, Audited
from harvest.venues import VENUES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ANSWER_S = 0.25
HOUR_S = 3600.0


def in_sync(symbol: str) -> Audited:
    return Audited(symbol, 7, 1000, 0, 0.0, False)


class Bench:
    """A REST host, and books that answer to ``begin`` and ``body`` with an event, or with none."""

    def __init__(self, *symbols: str, audit_s: float = HOUR_S) -> None:
        self.symbols = symbols
        self.asked: list[tuple[float, str]] = []
        self.begun: list[tuple[float, str]] = []
        self.bodies: list[tuple[float, str, bytes | None]] = []
        self.paid: list[tuple[float, int]] = []
        self.on_begin: Callable[[str], Any] = lambda symbol: None
        self.on_body: Callable[[str, bytes | None], Any] = lambda symbol, body: in_sync(symbol)
        self.answer: Callable[[str], bytes] = lambda symbol: b"body of " + symbol.encode()
        anything: Any = self
        self.auditor = Auditor(
            VENUES["binance-usdm"],
            anything,
            intake=self,
            symbols=lambda: self.symbols,
            book=SimpleNamespace(audit_s=audit_s, snapshot_levels=1000),
        )

    async def pay_patiently(self, request: Any) -> None:
        self.paid.append((trio.current_time(), request.weight))

    async def get(self, request: Any, *, is_paid: bool) -> bytes:
        assert is_paid
        symbol = request.path.partition("symbol=")[2].partition("&")[0]
        self.asked.append((trio.current_time(), symbol))
        await trio.sleep(ANSWER_S)
        return self.answer(symbol)

    def begin_audit(self, symbol: str) -> None:
        self.begun.append((trio.current_time(), symbol))
        self._tell(self.on_begin(symbol))

    def audit_body(self, symbol: str, body: bytes | None) -> None:
        self.bodies.append((trio.current_time(), symbol, body))
        self._tell(self.on_body(symbol, body))

    def _tell(self, event: Any) -> None:
        if event is not None:
            self.auditor.take(event)

    async def run(self, seconds: float) -> None:
        with trio.move_on_after(seconds):
            await self.auditor.run()


@pytest.fixture(autouse=True)
def _same_jitter_each_time() -> None:
    random.seed(7)


@pytest.fixture
def lines() -> Iterator[list[Any]]:
    with structlog.testing.capture_logs() as captured:
        yield captured


async def test_every_book_has_its_turn_once_an_interval_and_no_many_at_once(autojump_clock, lines):
    symbols = [f"S{number}" for number in range(500)]
    bench = Bench(*symbols)
    await bench.run(3 * HOUR_S + PATIENCE_S)
    for number in range(3):
        asked = [
            symbol for when, symbol in bench.asked if number * HOUR_S <= when - LEAD_S < (number + 1) * HOUR_S
        ]
        assert sorted(asked) == sorted(symbols)
    minutes = Counter(when // 60 for when, _ in bench.asked)
    # 500 an hour are 8.3 a minute, of 20 each: a tenth of what the budget gives.
    assert max(minutes.values()) <= 10
    assert {weight for _, weight in bench.paid} == {20}
    # The order is another one each time.
    order = [symbol for _, symbol in bench.asked]
    assert len({tuple(order[start : start + 20]) for start in (0, 500, 1000)}) == 3


async def test_the_book_is_asked_to_keep_its_diffs_well_before_the_snapshot_is(autojump_clock, lines):
    bench = Bench("BTCUSDT")
    await bench.run(HOUR_S)
    ((begun, _),) = bench.begun
    ((asked, _),) = bench.asked
    ((came, _, body),) = bench.bodies
    assert (asked - begun, came - asked) == (LEAD_S, ANSWER_S)
    assert body == b"body of BTCUSDT"
    assert bench.paid[0][0] <= begun


async def test_a_book_that_is_not_in_sync_costs_no_request_and_is_tried_again_a_few_times(
    autojump_clock, lines
):
    bench = Bench("BTCUSDT")
    bench.on_begin = lambda symbol: AuditAbandoned(symbol, "not_in_sync")
    await bench.run(2 * HOUR_S)
    assert bench.asked == []
    assert len(bench.begun) in (2 * TRIES - 1, 2 * TRIES)
    assert all(line["event"] == "BTCUSDT: audit abandoned (not_in_sync)" for line in lines if "why" in line)


async def test_an_abandoned_audit_is_asked_again_later_and_once_done_not_until_the_next_turn(
    autojump_clock, lines
):
    bench = Bench("BTCUSDT")
    results = [AuditAbandoned("BTCUSDT", "too_old"), in_sync("BTCUSDT")]
    bench.on_body = lambda symbol, body: results.pop(0) if results else in_sync(symbol)
    await bench.run(2 * HOUR_S)
    first, second, third = (when for when, _ in bench.asked)
    assert 0.02 * HOUR_S < second - first < 0.06 * HOUR_S
    assert third >= HOUR_S


async def test_without_an_answer_the_audit_is_given_up(autojump_clock, lines):
    bench = Bench("BTCUSDT")

    def refuse(symbol: str) -> bytes:
        raise RestError("h", "/fapi/v1/depth", "down", status=503)

    bench.answer = refuse
    bench.on_body = lambda symbol, body: AuditAbandoned(symbol, "no_answer")
    await bench.run(HOUR_S)
    assert {body for *_, body in bench.bodies} == {None}
    assert len(bench.bodies) <= TRIES
    assert lines[0]["event"] == "BTCUSDT: no snapshot to audit the book (h/fapi/v1/depth: down)"
    assert (lines[0]["tag"], lines[0]["log_level"]) == ("AUDIT", "info")


async def test_a_book_that_never_gets_there_is_given_up_after_a_while(autojump_clock, lines):
    bench = Bench("BTCUSDT")
    bench.on_body = lambda symbol, body: None if body else AuditAbandoned(symbol, "no_answer")
    await bench.run(HOUR_S)
    came, gave_up = bench.bodies[:2]
    assert gave_up == (pytest.approx(came[0] + PATIENCE_S), "BTCUSDT", None)


async def test_a_book_that_waits_is_not_begun_again_by_the_next_round(autojump_clock, lines):
    bench = Bench("BTCUSDT", audit_s=5.0)
    bench.on_body = lambda symbol, body: None
    await bench.run(PATIENCE_S)
    assert len(bench.begun) == 1


async def test_the_log_has_a_line_a_round_and_one_for_each_drift(autojump_clock, lines):
    bench = Bench("A", "B", "C")
    drift = Audited("B", 77, 2000, 3, 0.5, True)
    bench.on_body = lambda symbol, body: drift if symbol == "B" else in_sync(symbol)
    await bench.run(HOUR_S + PATIENCE_S)
    warnings = [line for line in lines if line["log_level"] == "warning"]
    assert [line["event"] for line in warnings] == [
        "B: the book has drifted: of 2,000 levels 3 differ at update 77, by 0.5 at most, the best one of a side too; "
        "it begins anew"
    ]
    rounds = [line for line in lines if line["event"].startswith("books audited")]
    assert len(rounds) == 1
    assert {line["tag"] for line in lines} == {"AUDIT"}
    assert rounds[0]["event"] == "books audited: 2 in sync, 1 drifted, 0 abandoned; 4,000 levels compared"


async def test_symbols_that_come_and_go_are_taken_up_with_the_next_round(autojump_clock, lines):
    bench = Bench("A")
    with trio.move_on_after(2 * HOUR_S):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(bench.auditor.run)
            await trio.sleep(HOUR_S - 1)
            bench.symbols = ("B",)
    assert [symbol for _, symbol in bench.begun] == ["A", "B"]


async def test_an_interval_of_0_audits_none(autojump_clock):
    bench = Bench("BTCUSDT", audit_s=0.0)
    await bench.auditor.run()
    assert bench.begun == []


async def test_cancelled_at_each_of_its_waits_it_ends_at_once(autojump_clock, lines):
    for seconds in (0.1, LEAD_S / 2 + 1, LEAD_S + 1 + ANSWER_S / 2, LEAD_S + 10):
        bench = Bench("BTCUSDT", audit_s=1.0)
        bench.on_body = lambda symbol, body: None
        began = trio.current_time()
        await bench.run(seconds)
        assert trio.current_time() - began == pytest.approx(seconds)
