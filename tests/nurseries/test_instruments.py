"""The check of the symbols: before the capture where the venue answers, beside it where it does not."""

from __future__ import annotations

from itertools import pairwise
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import structlog
import trio

from harvest.errors import UnknownSymbolError
from harvest.nurseries.instruments import Instruments
from harvest.nurseries.rest import RestClient, RestError
from harvest.simulator import SimulatorConfig, serve
from harvest.venues import VENUES
from tests.pipeline.wire import payload

if TYPE_CHECKING:
    from collections.abc import Iterator

REST = SimpleNamespace(timeout_s=10.0, weight_share=0.5, retry_initial_s=1.0, retry_max_s=8.0)
USDM = VENUES["binance-usdm"]
LISTED = payload("binance-usdm", "exchangeInfo")


class Client:
    """Gives the next answer to each request, the last one for ever after; an error is raised."""

    host = "fapi.example"

    def __init__(self, *answers: bytes | RestError) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[float, str]] = []

    async def get(self, request: Any) -> bytes:
        self.asked.append((trio.current_time(), request.path))
        await trio.lowlevel.checkpoint()
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, RestError):
            raise answer
        return answer


def error(status: int | None) -> RestError:
    return RestError("fapi.example", "/fapi/v1/exchangeInfo", "no way", status=status)


def make(client: Any, *symbols: str) -> Instruments:
    return Instruments(USDM, client, symbols or ("BTCUSDT",), REST)


@pytest.fixture
def lines() -> Iterator[list[Any]]:
    with structlog.testing.capture_logs() as captured:
        yield captured


async def test_symbols_that_the_venue_lists_are_passed_without_a_word_and_checked_once(autojump_clock, lines):
    client = Client(LISTED)
    instruments = make(client)
    await instruments.check_once()
    await instruments.check_until_known()
    assert client.asked == [(0.0, "/fapi/v1/exchangeInfo")]
    assert lines == []


async def test_an_unknown_symbol_is_refused_before_the_capture_with_what_was_probably_meant(autojump_clock):
    with pytest.raises(UnknownSymbolError) as caught:
        await make(Client(LISTED), "BTCUSDT", "BTCUSTD", "XYZ").check_once()
    assert caught.value.symbols == ["BTCUSTD", "XYZ"]
    assert "BTCUSDT" in caught.value.suggestions["BTCUSTD"]
    assert "BTCUSTD (did you mean BTCUSDT" in str(caught.value)
    assert "--symbols" in str(caught.value)


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ('{"symbol":"BTCUSDT","status":"SETTLING","filters":[]}', "BTCUSDT is listed, but not trading now"),
        (
            '{"symbol":"BTCUSDT","status":"TRADING","filters":[{"filterType":"PRICE_FILTER",'
            '"maxPrice":"1000000000","tickSize":"0.00000001"}]}',
            "BTCUSDT: its maximum over its step exceeds what float64 holds exactly",
        ),
    ],
)
async def test_what_does_not_hinder_is_warned_of(entry, words, autojump_clock, lines):
    await make(Client(b'{"symbols":[%b]}' % entry.encode()), "BTCUSDT").check_once()
    assert any(line["log_level"] == "warning" and line["event"].startswith(words) for line in lines)


async def test_an_unreachable_host_is_named_with_the_way_to_try_without_a_network(lines):
    listener = (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]
    port = listener.socket.getsockname()[1]
    await listener.aclose()
    async with RestClient(f"http://127.0.0.1:{port}", weight_per_minute=2400, settings=REST) as client:
        await make(client, "BTCUSDT", "ETHUSDT").check_once()
    (line,) = lines
    assert (line["tag"], line["log_level"], line["host"]) == (
        "INSTRUMENTS",
        "error",
        f"127.0.0.1:{port}",
    )
    assert line["event"].startswith(f"cannot reach 127.0.0.1:{port}: ")
    assert "it keeps trying" in line["event"]
    assert "`harvest run --symbols BTCUSDT,ETHUSDT --simulate`" in line["event"]


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (error(503), "cannot check the symbols: fapi.example/fapi/v1/exchangeInfo: no way"),
        (b"<html>", "cannot check the symbols: binance-usdm: malformed message (not an exchangeInfo"),
        (b'{"symbols":"none"}', "cannot check the symbols: binance-usdm: malformed message"),
    ],
)
async def test_a_venue_that_answers_but_not_that_is_no_missing_network(answer, words, autojump_clock, lines):
    await make(Client(answer)).check_once()
    assert lines[0]["event"].startswith(words)
    assert "--simulate" not in lines[0]["event"]


@pytest.mark.parametrize("pause_s", [30.0, 3 * 86_400.0])
async def test_a_host_that_wants_to_be_left_alone_does_not_hold_up_the_capture(
    pause_s, autojump_clock, lines
):
    async with RestClient("http://127.0.0.1:9", weight_per_minute=2400, settings=REST) as client:
        client.budget.pause(pause_s)
        await make(client).check_once()
    assert trio.current_time() <= 2 * REST.timeout_s
    (line,) = lines
    assert (line["log_level"], line["host"]) == ("warning", "127.0.0.1:9")
    assert line["event"].startswith("cannot check the symbols yet: 127.0.0.1:9 ")


async def test_the_check_that_failed_goes_on_beside_the_capture_until_it_is_answered(autojump_clock, lines):
    client = Client(*[error(None)] * 9, b"<html>", LISTED)
    instruments = make(client)
    await instruments.check_once()
    await instruments.check_until_known()
    times = [when for when, _ in client.asked]
    assert len(times) == 11
    assert times[1] <= 0.25
    waits = [after - before for before, after in pairwise(times[1:])]
    assert 0.5 <= waits[0] <= 1
    assert all(4 <= wait <= 8 for wait in waits[3:])
    # One line for the first failure, and quiet after it: a venue may be away for days.
    assert [line["log_level"] for line in lines if line["log_level"] != "debug"] == ["error"]
    assert sum("still cannot check the symbols" in line["event"] for line in lines) == 9


async def test_a_symbol_that_turns_out_unknown_later_is_said_and_the_others_go_on(autojump_clock, lines):
    client = Client(error(None), error(None), LISTED)
    instruments = make(client, "BTCUSDT", "BTCUSTD")
    await instruments.check_once()
    await instruments.check_until_known()
    assert len(client.asked) == 3
    assert lines[-1]["log_level"] == "error"
    assert "BTCUSTD (did you mean BTCUSDT" in lines[-1]["event"]


async def test_cancelled_while_it_waits_or_asks_it_ends_at_once(autojump_clock, lines):
    for seconds in (0.1, 3.0, 50.0):
        began = trio.current_time()
        with trio.move_on_after(seconds):
            await make(Client(error(503))).check_until_known()
        assert trio.current_time() - began == pytest.approx(seconds)


async def test_against_a_venue_over_a_real_socket():
    config = SimulatorConfig(symbols=("BTCUSDT", "牛来USDT"))
    async with trio.open_nursery() as nursery:
        endpoints = await nursery.start(serve, config)
        async with RestClient(endpoints.rest_url, weight_per_minute=2400, settings=REST) as client:
            await make(client, "BTCUSDT", "牛来USDT").check_once()
            with pytest.raises(UnknownSymbolError, match="did you mean 牛来USDT"):
                await make(client, "牛USDT").check_once()
        nursery.cancel_scope.cancel()
