"""The venue's list of instruments, looked at while everything runs: delisted, halted, trading again."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import structlog
import trio

from harvest.metrics import FEEDS, Metrics
from harvest.nurseries.listing import CONFIRM_S, Listing
from harvest.nurseries.rest import RestError
from harvest.venues import VENUES

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

USDM = VENUES["binance-usdm"]
INTERVAL_S = 3600.0


def listed(**statuses: str) -> bytes:
    return json.dumps(
        {"symbols": [{"symbol": name, "status": status} for name, status in statuses.items()]}
    ).encode()


class Client:
    """Gives the next answer to each request, the last one for ever after."""

    def __init__(self, *answers: bytes | RestError) -> None:
        self.answers = list(answers)
        self.asked: list[float] = []

    async def get(self, request: Any) -> bytes:
        assert request == USDM.instruments_request()
        self.asked.append(trio.current_time())
        await trio.lowlevel.checkpoint()
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, RestError):
            raise answer
        return answer


class Watchlist:
    def __init__(self, symbols: Sequence[str]) -> None:
        self.symbols = tuple(symbols)
        self.removed: list[tuple[float, str]] = []

    async def change(self, *, removed: Collection[str]) -> None:
        self.removed += [(trio.current_time(), symbol) for symbol in removed]
        self.symbols = tuple(symbol for symbol in self.symbols if symbol not in removed)


class Bench:
    def __init__(self, *answers: bytes | RestError, symbols: Sequence[str] = ("AUSDT", "BUSDT")) -> None:
        self.client = Client(*answers)
        self.watchlist = Watchlist(symbols)
        self.metrics = Metrics()
        for feed in (*FEEDS, "bbo"):
            for symbol in symbols:
                self.metrics.feed(feed, symbol)
        self.listing: Any = Listing(
            USDM,
            self.client,  # type: ignore[arg-type]
            self.watchlist,  # type: ignore[arg-type]
            self.metrics,
            interval_s=INTERVAL_S,
        )

    async def run(self, seconds: float, known: bytes | None = None) -> None:
        with trio.move_on_after(seconds):
            await self.listing.run(None if known is None else USDM.decode_instruments(known))

    def halted(self) -> set[str]:
        return {stats.symbol for stats in self.metrics.feeds.values() if stats.halted}


@pytest.fixture
def lines() -> Iterator[list[Any]]:
    with structlog.testing.capture_logs() as captured:
        yield captured


def said(lines: list[Any]) -> str:
    return "\n".join(line["event"] for line in lines)


BOTH = listed(AUSDT="TRADING", BUSDT="TRADING")


async def test_where_all_trade_it_looks_once_an_interval_and_says_nothing(autojump_clock, lines):
    bench = Bench(BOTH)
    await bench.run(3 * INTERVAL_S + 1, known=BOTH)
    assert bench.client.asked == [INTERVAL_S, 2 * INTERVAL_S, 3 * INTERVAL_S]
    assert lines == []


async def test_what_a_list_lacks_is_removed_when_the_next_look_a_minute_later_lacks_it_too(
    autojump_clock, lines
):
    bench = Bench(listed(AUSDT="TRADING"))
    await bench.run(3 * INTERVAL_S)
    assert bench.watchlist.removed == [(INTERVAL_S + CONFIRM_S, "BUSDT")]
    assert bench.client.asked[2] == 2 * INTERVAL_S + CONFIRM_S
    assert said(lines) == "BUSDT: the venue does not list it any more: delisted"


async def test_what_is_back_at_the_next_look_stays(autojump_clock, lines):
    bench = Bench(listed(AUSDT="TRADING"), BOTH, listed(AUSDT="TRADING"), BOTH)
    await bench.run(4 * INTERVAL_S)
    assert bench.watchlist.removed == []
    assert lines == []


async def test_a_list_that_has_none_of_the_symbols_is_not_believed(autojump_clock, lines):
    bench = Bench(listed(CUSDT="TRADING"))
    await bench.run(5 * INTERVAL_S)
    assert bench.watchlist.removed == []
    assert "not believed" in said(lines)


@pytest.mark.parametrize("status", ["SETTLING", "CLOSE", "DELIVERED"])
async def test_what_will_not_trade_again_is_removed_at_once(status, autojump_clock, lines):
    bench = Bench(listed(AUSDT=status, BUSDT="TRADING"))
    await bench.run(INTERVAL_S + 1)
    assert bench.watchlist.removed == [(INTERVAL_S, "AUSDT")]
    assert said(lines) == f"AUSDT: its trading has ended ({status})"


async def test_a_halt_is_said_once_and_noted_for_both_feeds_until_it_trades_again(autojump_clock, lines):
    halt = listed(AUSDT="HALT", BUSDT="TRADING")
    bench = Bench(halt, halt, BOTH)
    await bench.run(1, known=halt)
    assert bench.halted() == {"AUSDT"}
    assert all(bench.metrics.feeds[feed, "AUSDT"].halted for feed in (*FEEDS, "bbo"))
    await bench.run(2 * INTERVAL_S + 1)
    assert bench.watchlist.removed == []
    assert [line["log_level"] for line in lines] == ["warning"]
    assert "AUSDT: halted by the venue (HALT)" in said(lines)
    await bench.run(INTERVAL_S + 1)
    assert bench.halted() == set()
    assert lines[-1]["event"] == "AUSDT: trading again"
    assert len(lines) == 2


async def test_a_venue_that_does_not_answer_changes_nothing_and_is_asked_again(autojump_clock, lines):
    error = RestError("h", "/p", "no way", status=None)
    bench = Bench(error, b"{", listed(AUSDT="CLOSE", BUSDT="TRADING"))
    await bench.run(3 * INTERVAL_S + 1)
    assert bench.watchlist.removed == [(3 * INTERVAL_S, "AUSDT")]
    assert [line["log_level"] for line in lines] == ["warning"] * 3
    assert "cannot look at the list of instruments" in lines[0]["event"]


async def test_of_those_that_are_asked_for_the_unknown_and_the_halted_are_refused_by_name(
    autojump_clock, lines
):
    bench = Bench(listed(AUSDT="TRADING", BUSDT="HALT", CUSDT="TRADING"))
    assert await bench.listing.tradable(["CUSDT", "NOSUCH", "BUSDT", "AUSDT"]) == ["CUSDT", "AUSDT"]
    refused = [line["event"] for line in lines if line["log_level"] == "error"]
    assert refused[0].startswith("NOSUCH: not added: ")
    assert refused[1] == "BUSDT: not added: it is not trading (HALT)"
    assert len(refused) == 2


async def test_nothing_is_taken_that_the_venue_cannot_be_asked_about(autojump_clock, lines):
    bench = Bench(RestError("h", "/p", "no way", status=None))
    assert await bench.listing.tradable(["CUSDT"]) == []
    assert "CUSDT: not added, for the venue cannot be asked about them" in said(lines)
