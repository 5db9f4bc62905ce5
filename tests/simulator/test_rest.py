from __future__ import annotations

from typing import TYPE_CHECKING, Any

import httpx
import pytest
import trio

from harvest.errors import HarvestError, SimulatorError
from harvest.simulator import SimulatorConfig, serve
from harvest.simulator.weights import WeightMeter

if TYPE_CHECKING:
    from collections.abc import Callable

    from trio.testing import MockClock

PREFIX = {"binance-usdm": "/fapi/v1", "binance-spot": "/api/v3"}
VENUES = pytest.mark.parametrize("name", sorted(PREFIX))


@VENUES
async def test_exchange_info_lists_the_symbols_with_their_filters(
    venue: Callable[..., Any], autojump_clock: MockClock, name: str
) -> None:
    async with venue(venue=name) as running:
        status, info, headers = await running.get(f"{PREFIX[name]}/exchangeInfo")
        listed = {one["symbol"]: one for one in info["symbols"]}
        assert (status, len(listed), "牛来USDT" in listed) == (200, 12, name == "binance-usdm")
        assert headers["x-mbx-used-weight-1m"] == ("1" if name == "binance-usdm" else "20")
        bitcoin = listed["BTCUSDT"]
        filters = {one["filterType"]: one for one in bitcoin["filters"]}
        assert bitcoin["status"] == "TRADING"
        assert (bitcoin["baseAsset"], bitcoin["quoteAsset"]) == ("BTC", "USDT")
        assert float(filters["PRICE_FILTER"]["maxPrice"]) / float(filters["PRICE_FILTER"]["tickSize"]) < 1e15
        assert float(filters["LOT_SIZE"]["maxQty"]) / float(filters["LOT_SIZE"]["stepSize"]) < 1e15
        if name == "binance-usdm":
            assert {one["contractType"] for one in listed.values()} == {"PERPETUAL"}
        else:
            _, one, _ = await running.get('/api/v3/exchangeInfo?symbols=["BTCUSDT","ETHUSDT"]')
            assert [symbol["symbol"] for symbol in one["symbols"]] == ["BTCUSDT", "ETHUSDT"]


@pytest.mark.parametrize(
    ("target", "status", "code"),
    [
        ("/fapi/v1/depth", 400, -1102),
        ("/fapi/v1/depth?symbol=", 400, -1102),
        ("/fapi/v1/depth?symbol=NOSUCH", 400, -1121),
        ("/fapi/v1/depth?symbol=BTCUSDT&limit=7", 400, -4021),
        ("/fapi/v1/depth?symbol=BTCUSDT&limit=x", 400, -1100),
        ("/fapi/v1/aggTrades?symbol=BTCUSDT&limit=1001", 400, -1130),
        ("/fapi/v1/aggTrades?symbol=BTCUSDT&fromId=-1", 400, -1100),
        ("/fapi/v1/aggTrades?symbol=BTCUSDT&fromId=1&startTime=1", 400, -1128),
        ("/fapi/v1/aggTrades?symbol=BTCUSDT&startTime=0&endTime=3600000", 400, -1127),
        ("/fapi/v1/historicalTrades?symbol=BTCUSDT", 401, -2014),
        ("/fapi/v1/nosuch", 404, -1000),
        ("/api/v3/ping", 404, -1000),
    ],
)
async def test_wrong_requests_are_refused_in_the_venues_words(
    venue: Callable[..., Any], autojump_clock: MockClock, target: str, status: int, code: int
) -> None:
    async with venue() as running:
        answered, body, _ = await running.get(target)
    assert (answered, body["code"]) == (status, code)


@pytest.mark.parametrize(
    ("target", "weight"),
    [
        ("/fapi/v1/depth?symbol=BTCUSDT&limit=5", 2),
        ("/fapi/v1/depth?symbol=BTCUSDT&limit=100", 5),
        ("/fapi/v1/depth?symbol=BTCUSDT", 10),
        ("/fapi/v1/depth?symbol=BTCUSDT&limit=1000", 20),
        ("/fapi/v1/aggTrades?symbol=BTCUSDT", 20),
        ("/api/v3/depth?symbol=BTCUSDT", 5),
        ("/api/v3/depth?symbol=BTCUSDT&limit=500", 25),
        ("/api/v3/depth?symbol=BTCUSDT&limit=1000", 50),
        ("/api/v3/depth?symbol=BTCUSDT&limit=5000", 250),
        ("/api/v3/aggTrades?symbol=BTCUSDT", 4),
        ("/api/v3/historicalTrades?symbol=BTCUSDT", 25),
    ],
)
async def test_requests_have_the_venues_weights(
    venue: Callable[..., Any], autojump_clock: MockClock, target: str, weight: int
) -> None:
    name = "binance-usdm" if target.startswith("/fapi") else "binance-spot"
    async with venue(venue=name) as running:
        status, _, headers = await running.get(target)
    assert (status, headers["x-mbx-used-weight-1m"]) == (200, str(weight))


async def test_history_is_paged_by_id_and_cut_by_time(
    venue: Callable[..., Any], autojump_clock: MockClock
) -> None:
    async with venue(start_ns=1_795_000_000_000_000_000) as running:
        base = "/fapi/v1/aggTrades?symbol=BTCUSDT"
        _, newest, _ = await running.get(f"{base}&limit=1000")
        pages, next_id = [], newest[0]["a"]
        while len(pages) < 1000:
            _, page, _ = await running.get(f"{base}&fromId={next_id}&limit=300")
            pages += page
            next_id = page[-1]["a"] + 1
        assert pages[:1000] == newest
        middle = newest[500]["T"]
        _, window, _ = await running.get(f"{base}&startTime={middle}&endTime={middle + 2000}&limit=1000")
        assert window == [row for row in newest if middle <= row["T"] <= middle + 2000]
        _, oldest, _ = await running.get(f"{base}&fromId=1&limit=1")
        age_ms = 1_795_000_000_000 - oldest[0]["T"]
        assert 47.9 * 3_600_000 < age_ms <= 48 * 3_600_000


async def test_raw_history_is_paged_by_id_on_spot(
    venue: Callable[..., Any], autojump_clock: MockClock
) -> None:
    async with venue(venue="binance-spot") as running:
        base = "/api/v3/historicalTrades?symbol=BTCUSDT&limit=100"
        _, newest, _ = await running.get(base)
        _, page, _ = await running.get(f"{base}&fromId={newest[0]['id']}")
        assert page[: len(newest)] == newest
        assert [row["id"] for row in newest] == list(range(newest[0]["id"], newest[0]["id"] + 100))


def test_weight_is_counted_a_minute_and_refused_until_its_end() -> None:
    meter = WeightMeter(100, ignored_429s=2, ban_s=120.0)
    assert [meter.ask(60, second).status for second in (0.0, 10.0)] == [200, 429]
    assert meter.ask(1, 61.0).used == 1
    assert meter.ask(100, 70.0).retry_after_s == 50
    assert [meter.ask(1, 71.0).status for _ in range(3)] == [429, 429, 418]
    assert meter.ask(1, 121.0).retry_after_s == 70
    assert meter.ask(1, 191.1).status == 200


async def test_a_client_that_ignores_retry_after_is_banned(
    venue: Callable[..., Any], autojump_clock: MockClock
) -> None:
    async with venue(weight_per_minute=50, ignored_429s=1, ban_s=300.0) as running:
        statuses = []
        for _ in range(5):
            status, _, headers = await running.get("/fapi/v1/aggTrades?symbol=BTCUSDT&limit=1")
            statuses.append(status)
        assert 418 in statuses
        assert statuses[-1] == 418
        assert int(headers["retry-after"]) == 300
        await trio.sleep(301)
        assert (await running.get("/fapi/v1/ping"))[0] == 200


@VENUES
async def test_a_real_client_talks_to_real_sockets(name: str) -> None:
    async with trio.open_nursery() as nursery:
        endpoints = await nursery.start(serve, SimulatorConfig(venue=name))
        async with httpx.AsyncClient(base_url=endpoints.rest_url) as client:
            for _ in range(3):
                response = await client.get(
                    f"{PREFIX[name]}/depth", params={"symbol": "BTCUSDT", "limit": 100}
                )
            assert len(response.json()["bids"]) == 100
            assert (await client.post(f"{PREFIX[name]}/ping", json={})).status_code == 405
            assert (await client.get("/simulator/status")).json()["venue"] == name
        nursery.cancel_scope.cancel()


async def test_a_port_that_is_taken_is_an_error_that_names_it() -> None:
    async with trio.open_nursery() as nursery:
        endpoints = await nursery.start(serve, SimulatorConfig())
        port = int(endpoints.rest_url.rsplit(":", 1)[1])
        with pytest.raises(SimulatorError, match=str(port)):
            await nursery.start(serve, SimulatorConfig(port=port))
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    "facts",
    [
        {"venue": "nasdaq"},
        {"speed": None},
        {"speed": 0.0},
        {"rate": -1.0},
        {"tls_key": "key.pem"},
    ],
)
def test_a_configuration_that_cannot_be_served_is_refused(facts: dict[str, Any]) -> None:
    with pytest.raises(SimulatorError):
        SimulatorConfig(**facts)


@pytest.mark.parametrize(
    "facts", [{"faults": ("nonsense",)}, {"replay": ("nowhere",)}, {"sent_log": "no/where/at/all"}]
)
async def test_what_cannot_be_served_is_a_plain_error(facts: dict[str, Any]) -> None:
    async with trio.open_nursery() as nursery:
        with pytest.raises(HarvestError, match="no"):
            await nursery.start(serve, SimulatorConfig(**facts))
