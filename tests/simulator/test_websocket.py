from __future__ import annotations

import json
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
import trio

if TYPE_CHECKING:
    from collections.abc import Callable

    from trio.testing import MockClock

PREFIX = {"binance-usdm": "/fapi/v1", "binance-spot": "/api/v3"}
HANDSHAKE = (
    b"GET %b HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
DOOR = {"binance-usdm": "/public", "binance-spot": ""}
VENUES = pytest.mark.parametrize("name", sorted(PREFIX))


def apply(side: dict[str, str], changes: list[list[str]]) -> None:
    for price, qty in changes:
        if float(qty):
            side[price] = qty
        else:
            side.pop(price, None)


@VENUES
@pytest.mark.parametrize(
    ("snapshot_first", "offset_ms", "case"),
    [(False, 20, "spans"), (False, 70, "spans"), (True, 70, "spans"), (True, 20, "follows")],
)
async def test_a_client_that_follows_the_procedure_has_the_exact_book(
    venue: Callable[..., Any],
    autojump_clock: MockClock,
    name: str,
    snapshot_first: bool,
    offset_ms: int,
    case: str,
) -> None:
    """Snapshots come from inside of a diff, and from between two: both first-event cases occur."""
    futures = name == "binance-usdm"
    start_ns = 1_795_000_000_000_000_000
    depth = f"{PREFIX[name]}/depth?symbol=BTCUSDT&limit=1000"
    streams = f"{DOOR[name]}/stream?streams=btcusdt@depth@100ms/btcusdt@bookTicker"
    async with venue(venue=name, start_ns=start_ns) as running:
        if snapshot_first:
            await trio.sleep(offset_ms / 1000)
            _, snapshot, _ = await running.get(depth)
            socket = await running.connect(streams)
            first = []
        else:
            socket = await running.connect(streams)
            first = await socket.take(0.5 + offset_ms / 1000)
            _, snapshot, _ = await running.get(depth)
        later = await socket.take(5.0)
        bids, asks = dict(snapshot["bids"]), dict(snapshot["asks"])
        book_id, seen, tops = snapshot["lastUpdateId"], 0, []
        kinds = set()
        for message in first + later:
            data = message["data"]
            if message["stream"].endswith("bookTicker"):
                tops.append(data)
                continue
            if data["u"] < snapshot["lastUpdateId"] or (not futures and data["u"] == book_id):
                continue
            if not seen and futures:
                spans = data["U"] <= book_id <= data["u"]
                kinds.add("spans" if spans else "follows")
                assert spans or data["pu"] == book_id
            elif not seen:
                kinds.add("spans" if data["U"] <= book_id else "follows")
                assert data["U"] <= book_id + 1 <= data["u"]
            else:
                assert (data["pu"] if futures else data["U"] - 1) == book_id
            apply(bids, data["b"])
            apply(asks, data["a"])
            book_id = data["u"]
            seen += 1
            top = next((one for one in reversed(tops) if one["u"] <= book_id), None)
            best_bid, best_ask = max(bids, key=float), min(asks, key=float)
            assert float(best_bid) < float(best_ask)
            if top is not None and top["u"] == book_id:
                assert (best_bid, bids[best_bid]) == (top["b"], top["B"])
                assert (best_ask, asks[best_ask]) == (top["a"], top["A"])
        assert seen >= 45
        assert kinds == {case} or (not futures and offset_ms == 20)
        assert len(tops) > 50
        _, again, _ = await running.get(depth)
        if again["lastUpdateId"] == book_id:
            assert (bids, asks) == (dict(again["bids"]), dict(again["asks"]))


@VENUES
@pytest.mark.parametrize("interval", ["", "@100ms", "@250ms", "@500ms", "@0ms"])
async def test_diffs_of_every_interval_are_one_chain(
    venue: Callable[..., Any], autojump_clock: MockClock, name: str, interval: str
) -> None:
    futures = name == "binance-usdm"
    async with venue(venue=name) as running:
        socket = await running.connect(f"{DOOR[name]}/ws/btcusdt@depth{interval}")
        diffs = await socket.take(5.2)
    if not futures and interval in ("@250ms", "@500ms", "@0ms"):
        assert diffs == []
        return
    interval_ms = int(interval.strip("@ms") or (250 if futures else 1000)) or 50
    assert len(diffs) in range(5200 // interval_ms - 1, 5200 // interval_ms + 2)
    for before, after in pairwise(diffs):
        assert (after["pu"] if futures else after["U"] - 1) == before["u"]
        assert after["E"] - before["E"] == interval_ms


@VENUES
async def test_trades_and_aggregates_are_the_same_trades_as_rest_has(
    venue: Callable[..., Any], autojump_clock: MockClock, name: str
) -> None:
    futures = name == "binance-usdm"
    async with venue(venue=name) as running:
        raw = await running.connect(f"{DOOR[name]}/ws/ethusdt@trade")
        door = "/market" if futures else ""
        aggregated = await running.connect(f"{door}/ws/ethusdt@aggTrade")
        await trio.sleep(20)
        trades, aggregates = await raw.take(0.01), await aggregated.take(0.01)
        first = aggregates[0]["a"]
        _, served, _ = await running.get(f"{PREFIX[name]}/aggTrades?symbol=ETHUSDT&fromId={first}&limit=1000")
        fields = [field for field in "apqflTmM" if field in aggregates[0]]
        assert [{f: row[f] for f in fields} for row in aggregates] == [
            {f: row[f] for f in fields} for row in served[: len(aggregates)]
        ]
        assert [row["t"] for row in trades] == list(range(trades[0]["t"], trades[-1]["t"] + 1))
        _, recent, _ = await running.get(f"{PREFIX[name]}/trades?symbol=ETHUSDT&limit=1000")
        prices = {row["id"]: (row["price"], row["qty"], row["time"], row["isBuyerMaker"]) for row in recent}
        for row in trades:
            if row.get("X", "MARKET") == "MARKET":
                assert prices[row["t"]] == (row["p"], row["q"], row["T"], row["m"])
    assert len(aggregates) > 50
    assert [row["a"] for row in aggregates] == list(range(first, first + len(aggregates)))
    quantities = {row["t"]: float(row["q"]) for row in trades}
    for row in aggregates:
        if row["f"] in quantities and row["l"] in quantities:
            covered = sum(quantities[trade_id] for trade_id in range(row["f"], row["l"] + 1))
            assert covered == pytest.approx(float(row["q"]))


async def test_the_market_goes_on_between_two_runs(
    venue: Callable[..., Any], autojump_clock: MockClock
) -> None:
    start_ns = 1_795_000_000_000_000_000
    taken = []
    for run in range(2):
        async with venue(start_ns=start_ns + run * 5 * 10**9) as running:
            socket = await running.connect("/market/ws/btcusdt@aggTrade")
            taken.append(await socket.take(5.0 if run == 0 else 3.0))
            if run:
                first_of_second = taken[1][0]["a"]
                target = f"/fapi/v1/aggTrades?symbol=BTCUSDT&fromId={taken[0][-1]['a'] + 1}"
                _, between, _ = await running.get(target)
    ids = [row["a"] for row in between if row["a"] < first_of_second]
    assert ids == list(range(taken[0][-1]["a"] + 1, first_of_second))
    assert len(ids) < 10


async def test_two_connections_of_spot_stamp_the_same_event_differently(
    venue: Callable[..., Any], autojump_clock: MockClock
) -> None:
    for name, same in (("binance-spot", False), ("binance-usdm", True)):
        async with venue(venue=name) as running:
            sockets = [await running.connect(f"{DOOR[name]}/ws/btcusdt@depth@100ms") for _ in range(2)]
            await trio.sleep(1)
            one, two = [await socket.take(0.005) for socket in sockets]
            now_ms = running.front.wall_ns // 1_000_000
            assert all(row["E"] <= now_ms for row in one + two)
        stamps = [{row["u"]: row["E"] for row in rows} for rows in (one, two)]
        both = stamps[0].keys() & stamps[1].keys()
        assert len(both) > 7
        assert all((stamps[0][u] == stamps[1][u]) is same for u in both)


@pytest.mark.parametrize("route", ["", "/market", "/private"])
async def test_a_wrong_route_acknowledges_and_is_silent(
    venue: Callable[..., Any], autojump_clock: MockClock, route: str
) -> None:
    async with venue() as running:
        socket = await running.connect(f"{route}/ws")
        assert await socket.ask("SUBSCRIBE", "btcusdt@depth@100ms", "btcusdt@trade") == {
            "result": None,
            "id": 1,
        }
        assert await socket.take(30) == []
        assert await socket.ask("LIST_SUBSCRIPTIONS") == {
            "result": ["btcusdt@depth@100ms", "btcusdt@trade"],
            "id": 1,
        }


@pytest.mark.parametrize(
    "stream", ["nosuchusdt@trade", "BTCUSDT@trade", "btcusdt@nosuch", "btcusdt@depth@7ms"]
)
async def test_an_unknown_stream_is_acknowledged_and_silent(
    venue: Callable[..., Any], autojump_clock: MockClock, stream: str
) -> None:
    async with venue() as running:
        socket = await running.connect("/public/ws")
        assert await socket.ask("SUBSCRIBE", stream) == {"result": None, "id": 1}
        assert await socket.take(5) == []


async def test_streams_are_added_removed_listed_wrapped_and_unwrapped(
    venue: Callable[..., Any], autojump_clock: MockClock
) -> None:
    async with venue(venue="binance-spot") as running:
        socket = await running.connect("/ws")
        await socket.ask("SUBSCRIBE", "btcusdt@bookTicker", "ethusdt@bookTicker")
        assert {row["s"] for row in await socket.take(1)} == {"BTCUSDT", "ETHUSDT"}
        assert await socket.ask("UNSUBSCRIBE", "btcusdt@bookTicker", "never@there") == {
            "result": None,
            "id": 1,
        }
        assert {row["s"] for row in await socket.take(1)} == {"ETHUSDT"}
        await socket.raw.send_message('{"method":"SET_PROPERTY","params":["combined",true],"id":"x"}')
        assert {row.get("stream") for row in (await socket.take(1))[1:]} >= {"ethusdt@bookTicker"}
        assert (await socket.ask("GET_PROPERTY", "combined"))["result"] is True


async def test_errors_come_flat_without_an_id_and_wrapped_with_one(
    venue: Callable[..., Any], autojump_clock: MockClock
) -> None:
    async with venue(streams_per_connection=2) as running:
        socket = await running.connect("/public/ws")
        answers = []
        for text in (
            "{nonsense",
            "[1]",
            '{"method":"SUBSCRIBE","params":["a@trade"],"id":-1}',
            '{"method":"NOPE","id":7}',
            '{"method":"SUBSCRIBE","params":"a@trade","id":8}',
            '{"method":"SUBSCRIBE","params":["a@trade","b@trade","c@trade"],"id":9}',
        ):
            await socket.raw.send_message(text)
            answers.append(json.loads(await socket.raw.get_message()))
            await trio.sleep(1)
    assert [answer.get("code") for answer in answers[:3]] == [3, 2, 2]
    assert [(answer["error"]["code"], answer["id"]) for answer in answers[3:]] == [(2, 7), (2, 8), (2, 9)]


async def test_microseconds_are_served_where_asked_for(
    venue: Callable[..., Any], autojump_clock: MockClock
) -> None:
    async with venue(venue="binance-spot") as running:
        socket = await running.connect("/stream?streams=btcusdt@trade&timeUnit=MICROSECOND")
        rows = await socket.take(3)
    assert all(len(str(row["data"]["E"])) == len(str(row["data"]["T"])) == 16 for row in rows)


async def test_every_kind_of_stream_has_the_venues_fields(
    venue: Callable[..., Any], autojump_clock: MockClock
) -> None:
    expected = {
        "binance-usdm": {
            "trade": "e E T s t p q X m st",
            "aggTrade": "e E s a p q nq f l T m st",
            "depth@100ms": "e E T s ps U u pu b a st",
            "depth5@100ms": "e E T s ps U u pu b a st",
            "bookTicker": "e u s ps b B a A T E st",
            "markPrice@1s": "e E s p ap P i r T st",
        },
        "binance-spot": {
            "trade": "e E s t p q T m M",
            "aggTrade": "e E s a p q f l T m M",
            "depth@100ms": "e E s U u b a",
            "depth10@100ms": "lastUpdateId bids asks",
            "bookTicker": "u s b B a A",
        },
    }
    for name, kinds in expected.items():
        async with venue(venue=name) as running:
            streams = "/".join(f"btcusdt@{kind}" for kind in kinds)
            rows = []
            for door in ("/public", "/market") if name == "binance-usdm" else ("",):
                socket = await running.connect(f"{door}/stream?streams={streams}")
                rows += await socket.take(3)
        found = {row["stream"].partition("@")[2]: " ".join(row["data"]) for row in rows}
        assert found == kinds


async def test_liquidations_of_all_symbols_come_on_one_stream(
    venue: Callable[..., Any], autojump_clock: MockClock
) -> None:
    async with venue() as running:
        socket = await running.connect("/market/ws/!forceOrder@arr")
        rows = await socket.take(120)
    assert len({row["o"]["s"] for row in rows}) > 3
    assert {row["o"]["S"] for row in rows} == {"BUY", "SELL"}


async def test_non_ascii_symbols_are_served(venue: Callable[..., Any], autojump_clock: MockClock) -> None:
    async with venue(rate=20.0) as running:
        socket = await running.connect("/public/ws")
        await socket.ask("SUBSCRIBE", "牛来usdt@trade", "牛来usdt@depth")
        rows = await socket.take(10)
        assert {(row["e"], row["s"]) for row in rows} == {("trade", "牛来USDT"), ("depthUpdate", "牛来USDT")}


async def test_a_client_that_answers_no_ping_is_cut_at_the_deadline(
    venue: Callable[..., Any], autojump_clock: MockClock
) -> None:
    async with venue(venue="binance-spot") as running:
        stream = running.stream()
        await stream.send_all(HANDSHAKE % b"/ws")
        start, received = trio.current_time(), b""
        # Unsolicited pongs, masked with zeros, one every ten seconds: they do not count.
        with trio.move_on_after(100):
            async with trio.open_nursery() as nursery:

                async def pong() -> None:
                    for _ in range(5):
                        await stream.send_all(b"\x8a\x83\0\0\0\0abc")
                        await trio.sleep(10)

                nursery.start_soon(pong)
                while data := await stream.receive_some():
                    received += data
                ended = trio.current_time() - start
                nursery.cancel_scope.cancel()
    assert ended == pytest.approx(61, abs=0.5)
    frames = received.partition(b"\r\n\r\n")[2]
    assert frames.count(b"\x89\x0d") == 2
    assert b"Pong timeout" in frames


async def test_a_client_that_answers_pings_stays(
    venue: Callable[..., Any], autojump_clock: MockClock
) -> None:
    async with venue(venue="binance-spot") as running:
        socket = await running.connect("/ws")
        await trio.sleep(600)
        assert (await socket.ask("LIST_SUBSCRIPTIONS"))["result"] == []


@VENUES
async def test_too_many_messages_are_a_kick(
    venue: Callable[..., Any], autojump_clock: MockClock, name: str
) -> None:
    limit = 10 if name == "binance-usdm" else 5
    async with venue(venue=name) as running:
        socket = await running.connect(f"{DOOR[name]}/ws")
        for _ in range(3):
            for _ in range(limit):
                await socket.raw.ping()
            await trio.sleep(1.1)
        for _ in range(limit + 1):
            await socket.raw.send_message('{"method":"LIST_SUBSCRIPTIONS","id":1}')
        assert (await socket.closed()).code == 1008


async def test_a_connection_lives_so_long_and_no_longer(
    venue: Callable[..., Any], autojump_clock: MockClock
) -> None:
    async with venue() as running:
        socket = await running.connect("/public/ws")
        start = trio.current_time()
        await socket.closed()
        assert trio.current_time() - start == pytest.approx(86_400, abs=2)


async def test_a_ping_that_crosses_the_close_on_its_way_harms_nobody(
    venue: Callable[..., Any], autojump_clock: MockClock
) -> None:
    async with venue(connection_life_s=10.0) as running:
        stream = running.stream()
        await stream.send_all(HANDSHAKE % b"/market/ws")
        # The close is sent, and not answered yet, when the client's ping comes.
        await trio.sleep(10.5)
        await stream.send_all(b"\x89\x83\0\0\0\0abc")
        received = b""
        while data := await stream.receive_some():
            received += data
        frames = received.partition(b"\r\n\r\n")[2]
        assert frames.endswith(b"disconnected")
        assert b"abc" not in frames
        # The venue lives on, and has forgotten the connection.
        assert (await running.get("/simulator/status"))[1]["connections"] == []


@pytest.mark.parametrize(
    ("path", "status"), [("/nowhere", 404), ("/public/nowhere", 404), ("/public/ws/a@trade/b@trade", 400)]
)
async def test_wrong_doors_are_refused(
    venue: Callable[..., Any], autojump_clock: MockClock, path: str, status: int
) -> None:
    async with venue(streams_per_connection=1) as running:
        stream = running.stream()
        await stream.send_all(HANDSHAKE % path.encode())
        assert (await stream.receive_some()).startswith(b"HTTP/1.1 %d " % status)
        assert await stream.receive_some() == b""


async def test_too_many_handshakes_are_refused_on_spot(
    venue: Callable[..., Any], autojump_clock: MockClock
) -> None:
    async with venue(venue="binance-spot") as running:
        answers = []
        for _ in range(302):
            stream = running.stream()
            await stream.send_all(HANDSHAKE % b"/ws")
            answers.append((await stream.receive_some()).split()[1])
            await stream.aclose()
        assert answers == [b"101"] * 300 + [b"429"] * 2
        await trio.sleep(301)
        await running.connect("/ws")


async def test_a_client_that_reads_nothing_is_cut_when_it_is_too_far_behind(
    venue: Callable[..., Any], autojump_clock: MockClock
) -> None:
    async with venue(backlog_bytes=20_000) as running:
        stream = running.stream()
        connections = running.front.connections
        await stream.send_all(HANDSHAKE % b"/public/ws/btcusdt@depth@100ms")
        await trio.sleep(1)
        assert len(connections) == 1
        next(iter(connections.values())).queued_bytes = 30_000
        await trio.sleep(1)
        assert not connections


async def test_a_pause_stops_everything_and_loses_nothing(
    venue: Callable[..., Any], autojump_clock: MockClock
) -> None:
    async with venue(faults=("pause at 2s for 60s",), venue="binance-spot") as running:
        socket = await running.connect("/ws/btcusdt@trade")
        before = await socket.take(2.0)
        assert await socket.take(59.5) == []
        after = await socket.take(5.0)
    ids = [row["t"] for row in before + after]
    assert ids == list(range(ids[0], ids[-1] + 1))
    assert len(after) > 500
