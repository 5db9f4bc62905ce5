from __future__ import annotations

import itertools
import json
from typing import TYPE_CHECKING, Any

import pytest
import trio

if TYPE_CHECKING:
    from collections.abc import Callable

    from trio.testing import MockClock

BOTH = "/stream?streams=btcusdt@trade/btcusdt@depth@100ms"
TRADES, DIFFS = "btcusdt@trade", "btcusdt@depth@100ms"


def spot(venue: Callable[..., Any], *faults: str, **facts: Any) -> Any:
    return venue(venue="binance-spot", faults=faults, **facts)


def of(messages: list[Any], stream: str) -> list[Any]:
    return [message["data"] for message in messages if message.get("stream") == stream]


async def test_a_stall_silences_open_connections_for_good_and_new_ones_not(
    venue: Callable[..., Any], autojump_clock: MockClock
) -> None:
    async with spot(venue, "stall trades at 5s") as running:
        await trio.sleep(100)
        socket = await running.connect(BOTH)
        before = await socket.take(5.0)
        after = await socket.take(60.0)
        assert of(before, TRADES)
        assert of(after, TRADES) == []
        assert len(of(before + after, DIFFS)) in range(648, 652)
        fresh = await running.connect(BOTH)
        assert of(await fresh.take(2.0), TRADES)


async def test_a_stall_for_a_time_silences_new_connections_until_then(
    venue: Callable[..., Any], autojump_clock: MockClock
) -> None:
    async with spot(venue, "stall all at 1s for 10s") as running:
        old = await running.connect(BOTH)
        await old.take(3.0)
        fresh = await running.connect(BOTH)
        assert await fresh.take(7.9) == []
        assert of(await fresh.take(2.0), TRADES)
        assert await old.take(2.0) == []


async def test_one_symbol_may_stall_alone(venue: Callable[..., Any], autojump_clock: MockClock) -> None:
    async with spot(venue, "stall ETHUSDT trades at 1s") as running:
        socket = await running.connect("/stream?streams=btcusdt@trade/ethusdt@trade/ethusdt@depth@100ms")
        await socket.take(1.1)
        assert {message["stream"] for message in await socket.take(3.0)} == {TRADES, "ethusdt@depth@100ms"}


async def test_a_forgotten_subscription_comes_back_when_asked_for(
    venue: Callable[..., Any], autojump_clock: MockClock
) -> None:
    async with spot(venue, "forget trades at 1s") as running:
        socket = await running.connect(BOTH)
        await socket.take(1.1)
        assert of(await socket.take(3.0), TRADES) == []
        assert (await socket.ask("LIST_SUBSCRIPTIONS"))["result"] == [DIFFS]
        await socket.ask("UNSUBSCRIBE", TRADES)
        await socket.ask("SUBSCRIBE", TRADES)
        assert of(await socket.take(3.0), TRADES)


@pytest.mark.parametrize(("script", "code"), [("cut at 2s", 1001), ("cut trades at 2s with 1013", 1013)])
async def test_a_cut_closes_with_its_code(
    venue: Callable[..., Any], autojump_clock: MockClock, script: str, code: int
) -> None:
    async with spot(venue, script) as running:
        start = trio.current_time()
        socket = await running.connect(BOTH)
        assert (await socket.closed()).code == code
        assert trio.current_time() - start == pytest.approx(2.0, abs=0.1)


async def test_a_cut_of_trades_spares_the_order_book(
    venue: Callable[..., Any], autojump_clock: MockClock
) -> None:
    async with spot(venue, "cut trades hard every 2s") as running:
        book = await running.connect(f"/ws/{DIFFS}")
        for _ in range(3):
            socket = await running.connect(f"/ws/{TRADES}")
            assert (await socket.closed()).code == 1006
        diffs = await book.take(0.5)
        assert diffs
        assert trio.current_time() >= 6.0


async def test_only_one_connection_is_struck_where_one_is_meant(
    venue: Callable[..., Any], autojump_clock: MockClock
) -> None:
    async with spot(venue, "cut at 2s on one") as running:
        first, second = await running.connect(BOTH), await running.connect(BOTH)
        assert (await first.closed()).code == 1001
        assert await second.take(2.0)


async def test_a_muted_route_acknowledges_and_is_silent(
    venue: Callable[..., Any], autojump_clock: MockClock
) -> None:
    async with venue(faults=("mute route market at 1s for 5s",)) as running:
        trades = await running.connect("/market/ws/btcusdt@aggTrade")
        book = await running.connect("/public/ws/btcusdt@depth@100ms")
        assert await trades.take(1.0)
        assert await trades.take(4.9) == []
        fresh = await running.connect("/market/ws")
        assert await fresh.ask("SUBSCRIBE", "btcusdt@aggTrade") == {"result": None, "id": 1}
        assert await trades.take(3.0)
        assert await fresh.take(1.0)
        assert len(await book.take(0.1)) in range(96, 103)


async def test_a_shutdown_is_announced_raw_and_combined(
    venue: Callable[..., Any], autojump_clock: MockClock
) -> None:
    async with spot(venue, "shutdown at 1s notice 3s") as running:
        raw, combined = await running.connect(f"/ws/{TRADES}"), await running.connect(BOTH)
        said = [await socket.take(3.5) for socket in (raw, combined)]
        assert any(set(message) == {"e", "E"} and message["e"] == "serverShutdown" for message in said[0])
        notices = [message for message in said[1] if message["stream"] == "!serverShutdown"]
        assert [notice["data"]["e"] for notice in notices] == ["serverShutdown"]
        assert (await raw.closed()).code == 1001


async def test_without_pongs_data_still_flows(venue: Callable[..., Any], autojump_clock: MockClock) -> None:
    async with spot(venue, "no-pong at 1s for 10s") as running:
        socket = await running.connect(f"/ws/{TRADES}")
        await socket.raw.ping()
        await socket.take(2.0)
        ponged: list[float] = []
        async with trio.open_nursery() as nursery:

            async def ping() -> None:
                with trio.move_on_after(5.0):
                    await socket.raw.ping(b"x")
                    ponged.append(trio.current_time())

            nursery.start_soon(ping)
            assert await socket.take(6.0)
        assert ponged == []


async def test_connections_are_rejected_for_a_time(
    venue: Callable[..., Any], autojump_clock: MockClock
) -> None:
    handshake = (
        b"GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    async with spot(venue, "reject connections at 1s for 5s") as running:
        socket = await running.connect(BOTH)
        await socket.take(1.5)
        stream = running.stream()
        await stream.send_all(handshake)
        assert (await stream.receive_some()).startswith(b"HTTP/1.1 503 ")
        assert (await running.get("/api/v3/ping"))[0] == 200
        await trio.sleep(5.0)
        assert await (await running.connect(BOTH)).take(1.0)


async def test_a_gap_loses_exactly_so_many_messages(
    venue: Callable[..., Any], autojump_clock: MockClock
) -> None:
    async with spot(venue, "gap depth BTCUSDT at 1s skip 3", "gap trades at 2s skip 2 on one") as running:
        one, two = await running.connect(BOTH), await running.connect(BOTH)
        await trio.sleep(4)
        taken = [await socket.take(0.01) for socket in (one, two)]
        for messages in taken:
            diffs = of(messages, DIFFS)
            gaps = [after["U"] - before["u"] for before, after in itertools.pairwise(diffs)]
            assert sum(gap != 1 for gap in gaps) == 1
            assert diffs[-1]["E"] - diffs[0]["E"] == 100 * (len(diffs) - 1 + 3)
        lost = [
            of(messages, TRADES)[-1]["t"] - of(messages, TRADES)[0]["t"] + 1 - len(of(messages, TRADES))
            for messages in taken
        ]
        assert lost == [2, 0]


async def test_messages_come_twice_or_swapped(venue: Callable[..., Any], autojump_clock: MockClock) -> None:
    async with spot(venue, "duplicate trades at 1s", "swap depth at 1s") as running:
        messages = await (await running.connect(BOTH)).take(3.0)
    ids = [trade["t"] for trade in of(messages, TRADES)]
    assert len(ids) - len(set(ids)) == 1
    assert ids == sorted(ids)
    updates = [diff["u"] for diff in of(messages, DIFFS)]
    assert sum(before > after for before, after in itertools.pairwise(updates)) == 1
    assert len(updates) == len(set(updates))


async def test_broken_and_unknown_messages_come_beside_the_good_ones(
    venue: Callable[..., Any], autojump_clock: MockClock
) -> None:
    async with spot(venue, "malformed trades at 1s skip 20", "unknown event trades at 3s") as running:
        texts = await (await running.connect(f"/ws/{TRADES}")).take_raw(6.0)
    good = [trade_id for text in texts if (trade_id := id_of_good_trade(text)) is not None]
    assert len(texts) - len(good) == 21
    assert sum("tradingPhase" in text for text in texts) == 1
    assert good == list(range(good[0], good[-1] + 1))


def id_of_good_trade(text: str) -> int | None:
    try:
        message = json.loads(text)
        plain = isinstance(message["s"], str) and float(message["q"]) > 0 and 0 < float(message["p"]) < 1e6
    except (ValueError, KeyError, TypeError):
        return None
    return int(message["t"]) if plain else None


async def test_fragmented_messages_are_whole_to_a_client(
    venue: Callable[..., Any], autojump_clock: MockClock
) -> None:
    async with spot(venue, "fragment at 1s for 10s") as running:
        trades = await (await running.connect(f"/ws/{TRADES}")).take(12.0)
    ids = [trade["t"] for trade in trades]
    assert ids == list(range(ids[0], ids[-1] + 1))


async def test_a_burst_speeds_the_venue_up_and_is_made_up_for(
    venue: Callable[..., Any], autojump_clock: MockClock
) -> None:
    async with spot(venue, "burst x10 at 2s for 2s") as running:
        socket = await running.connect(f"/ws/{DIFFS}")
        counts = [len(await socket.take(2.0)) for _ in range(3)]
        assert counts[0] == pytest.approx(20, abs=2)
        assert counts[1] == pytest.approx(200, abs=4)
        assert counts[2] == pytest.approx(10, abs=2)
        await socket.take(36.0)
        _, time, _ = await running.get("/api/v3/time")
        _, status, _ = await running.get("/simulator/status")
        assert time["serverTime"] - running.front.wall_ns // 1_000_000 == pytest.approx(0, abs=60)
        assert [one["fault"] for one in status["faults"]] == ["burst x10 at 2s for 2s"]


async def test_rest_is_throttled_banned_down_and_slow_by_script(
    venue: Callable[..., Any], autojump_clock: MockClock
) -> None:
    scripts = (
        "throttle at 1s for 2s",
        "ban at 4s for 2s",
        "rest down at 7s for 2s",
        "slow rest by 5s at 10s for 2s",
    )
    async with spot(venue, *scripts) as running:
        await running.connect(BOTH)
        statuses = []
        for _ in range(4):
            await trio.sleep(1.5)
            status, body, headers = await running.get("/api/v3/ping")
            statuses.append((status, body.get("code"), headers.get("retry-after")))
            await trio.sleep(1.5)
        assert statuses[:2] == [(429, -1003, "2"), (418, -1003, "2")]
        assert statuses[2][0] == 503
        assert statuses[3][0] == 200
        assert trio.current_time() == pytest.approx(17.0, abs=0.2)


async def test_fault_times_count_from_the_first_acknowledged_subscription(
    venue: Callable[..., Any], autojump_clock: MockClock
) -> None:
    async with spot(venue, "cut at 3s", speed=10.0) as running:
        socket = await running.connect("/ws")
        await trio.sleep(50)
        await socket.ask("SUBSCRIBE", TRADES)
        start = trio.current_time()
        await socket.closed()
        assert trio.current_time() - start == pytest.approx(3.0, abs=0.1)


def levels_of(diff: Any) -> dict[tuple[str, str], str]:
    return {(side, price): qty for side in "ba" for price, qty in diff[side]}


@pytest.mark.parametrize(
    ("market", "path"), [("binance-spot", "/stream?streams="), ("binance-usdm", "/public/stream?streams=")]
)
async def test_a_level_is_dropped_from_so_many_diffs_which_are_as_they_were_but_for_it(
    venue: Callable[..., Any], autojump_clock: MockClock, market: str, path: str
) -> None:
    faults = ("drop level BTCUSDT at 1s skip 20 on one",)
    async with venue(venue=market, faults=faults) as running:
        names = "btcusdt@depth@100ms/ethusdt@depth@100ms"
        struck, honest = await running.connect(path + names), await running.connect(path + names)
        every: list[list[Any]] = []
        async with trio.open_nursery() as nursery:
            for socket in (struck, honest):

                async def take(socket: Any = socket) -> None:
                    every.append([socket, await socket.take(5.0)])

                nursery.start_soon(take)
        received, whole = (
            next(found for one, found in every if one is socket) for socket in (struck, honest)
        )
        assert [{**one, "E": 0} for one in of(received, "ethusdt@depth@100ms")] == [
            {**one, "E": 0} for one in of(whole, "ethusdt@depth@100ms")
        ]
        missing = set()
        lacking = []
        pairs = zip(of(received, DIFFS), of(whole, DIFFS), strict=True)
        for number, (short, full) in enumerate(pairs):
            assert {**short, "b": 0, "a": 0, "E": 0} == {**full, "b": 0, "a": 0, "E": 0}
            left_out = levels_of(full).items() - levels_of(short).items()
            assert levels_of(short).items() <= levels_of(full).items()
            missing |= {level for level, _ in left_out}
            lacking += [number] * bool(left_out)
        assert len(missing) == 1
        assert lacking[-1] - lacking[0] < 20


async def test_a_level_is_never_dropped_from_trades(
    venue: Callable[..., Any], autojump_clock: MockClock
) -> None:
    async with spot(venue, "drop level at 1s skip 9") as running:
        socket = await running.connect(f"/stream?streams={TRADES}")
        messages = of(await socket.take(4.0), TRADES)
        assert [one["t"] for one in messages] == list(range(messages[0]["t"], messages[-1]["t"] + 1))
        assert all({"p", "q"} <= set(one) for one in messages)


async def test_a_halted_symbol_is_silent_and_not_trading_for_its_time(
    venue: Callable[..., Any], autojump_clock: MockClock
) -> None:
    async with spot(venue, "halt BTCUSDT at 5s for 20s") as running:
        socket = await running.connect(f"{BOTH}/ethusdt@trade")
        await socket.take(5.1)
        halted = await socket.take(19.0)
        assert {message["stream"] for message in halted} == {"ethusdt@trade"}
        assert await statuses(running, "/api/v3/exchangeInfo") == {"BTCUSDT": "HALT", "ETHUSDT": "TRADING"}
        assert of(await socket.take(3.0), TRADES)
        assert (await statuses(running, "/api/v3/exchangeInfo"))["BTCUSDT"] == "TRADING"


async def test_a_delisted_symbol_is_silent_and_unknown_for_good(
    venue: Callable[..., Any], autojump_clock: MockClock
) -> None:
    async with venue(faults=("delist BTCUSDT at 5s",)) as running:
        socket = await running.connect("/public/stream?streams=btcusdt@depth@100ms/ethusdt@depth@100ms")
        await socket.take(5.1)
        assert {message["stream"] for message in await socket.take(60.0)} == {"ethusdt@depth@100ms"}
        assert list(await statuses(running, "/fapi/v1/exchangeInfo")) == ["ETHUSDT"]
        status, body, _ = await running.get("/fapi/v1/depth?symbol=BTCUSDT&limit=5")
        assert (status, body["code"]) == (400, -1121)
        late = await running.connect("/public/stream?streams=btcusdt@depth@100ms")
        assert await late.take(5.0) == []


async def statuses(running: Any, path: str) -> dict[str, str]:
    _, body, _ = await running.get(path)
    every = {one["symbol"]: one["status"] for one in body["symbols"]}
    return {symbol: every[symbol] for symbol in ("BTCUSDT", "ETHUSDT") if symbol in every}
