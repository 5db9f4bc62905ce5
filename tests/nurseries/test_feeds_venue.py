"""Whole feeds over real sockets against the simulated venue and its faults."""

from __future__ import annotations

import itertools
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import structlog
import trio

from harvest.simulator import SimulatorConfig, serve
from tests.nurseries.feed_bench import Bench, events, plans

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator


@pytest.fixture
def lines() -> Iterator[list[Any]]:
    with structlog.testing.capture_logs() as captured:
        yield captured


@asynccontextmanager
async def simulator(*faults: str, **facts: Any) -> AsyncIterator[str]:
    async with trio.open_nursery() as nursery:
        endpoints = await nursery.start(serve, SimulatorConfig(faults=faults, **facts))
        yield endpoints.ws_url
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(("stalled", "other"), [("trade", "orderbook"), ("orderbook", "trade")])
async def test_a_feed_that_stalls_at_the_venue_is_restarted_and_the_other_one_is_never_touched(
    stalled, other, tmp_path, lines
):
    fault = f"stall {'trades' if stalled == 'trade' else stalled} at 300ms"
    bench = Bench(tmp_path, idle_s=1.5)
    async with (
        simulator(fault, rate=30) as url,
        bench.running(plans(url, "trade"), plans(url, "orderbook")),
    ):
        await bench.until(lambda: (f"{stalled}-1", "stall") in bench.closed())
        stored = bench.metrics.feed(stalled, "BTCUSDT").stored
        await bench.until(lambda: bench.metrics.feed(stalled, "BTCUSDT").stored > stored + 2)
    assert sorted(bench.closed()) == sorted(
        [(f"{stalled}-1", "stall"), (f"{stalled}-1.2", "shutdown"), (f"{other}-1", "shutdown")]
    )
    assert bench.metrics.feed(other, "BTCUSDT").gaps == 0
    assert bench.metrics.feed(stalled, "BTCUSDT").gaps == 1
    tag = stalled.upper()
    assert {line["tag"] for line in lines if line["log_level"] == "warning"} == {tag}


async def test_one_connection_of_a_feed_that_stalls_does_not_disturb_another_one(tmp_path):
    bench = Bench(tmp_path, ("BTCUSDT", "ETHUSDT"), idle_s=1.5)
    async with simulator("stall BTCUSDT orderbook at 300ms") as url:
        planned = plans(url, "orderbook", ("BTCUSDT", "ETHUSDT"), max_streams=1)
        assert [plan.symbols for plan in planned] == [("BTCUSDT",), ("ETHUSDT",)]
        async with bench.running(planned):
            await bench.until(lambda: ("orderbook-1", "stall") in bench.closed())
            stored = bench.metrics.feed("orderbook", "BTCUSDT").stored
            await bench.until(lambda: bench.metrics.feed("orderbook", "BTCUSDT").stored > stored + 2)
    assert sorted(bench.closed()) == [
        ("orderbook-1", "stall"),
        ("orderbook-1.2", "shutdown"),
        ("orderbook-2", "shutdown"),
    ]
    assert bench.metrics.feed("orderbook", "ETHUSDT").gaps == 0


async def test_a_route_that_acknowledges_and_stays_silent_is_explained_with_url_and_streams(tmp_path, lines):
    bench = Bench(tmp_path, idle_s=1.5, first_message_s=0.3)
    async with simulator("mute route market at 0s") as url, bench.running(plans(url)):
        await bench.until(lambda: ("trade-1", "stall") in bench.closed())
    explained = [line for line in lines if "acknowledged, but silent for 0.3s" in line["event"]]
    assert explained[0]["url"] == f"{url}/market/stream"
    assert explained[0]["streams"] == ["btcusdt@aggTrade"]
    assert explained[0]["suspected"] == ["wrong route", "unknown symbol", "not trading"]
    # It comes before the watchdog's line, which alone would leave the user to guess.
    said = events(lines)
    assert said.index(explained[0]["event"]) < said.index("no message for 1.5s, reconnecting")


async def test_two_sockets_on_the_same_streams_leave_no_hole_when_one_of_them_is_cut(tmp_path):
    bench = Bench(tmp_path, connections=2)
    async with (
        simulator("cut orderbook at 500ms on one hard") as url,
        bench.running(plans(url, "orderbook")),
    ):
        await bench.until(lambda: any(reason == "disconnect" for _, reason in bench.closed()))
        stored = bench.metrics.feed("orderbook", "BTCUSDT").stored
        await bench.until(lambda: bench.metrics.feed("orderbook", "BTCUSDT").stored > stored + 5)
    assert bench.metrics.feed("orderbook", "BTCUSDT").gaps == 0
    assert {name.partition(".")[0] for name, _ in bench.closed()} == {"orderbook-1a", "orderbook-1b"}
    depth = bench.harness.rows("depth")
    assert all(b["last_update_id"] == a["prev_update_id"] for b, a in itertools.pairwise(depth))
