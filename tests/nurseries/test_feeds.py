"""Whole feeds over real sockets: a scripted server where the wire matters, the simulator where the venue does.

Each ends with what the records say: every connection that was opened has its end, and the reason of it.
"""

from __future__ import annotations

import itertools
import json
import ssl
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import attrs
import pytest
import structlog
import trio
import trustme
from trio_websocket import ConnectionClosed, WebSocketConnection, WebSocketRequest, serve_websocket

from harvest.nurseries.feeds import run_feed
from harvest.nurseries.intake import Intake
from harvest.nurseries.lag import LagSensor
from harvest.pipeline.records import Closed, Frames, Opened
from harvest.settings import Settings
from harvest.simulator import SimulatorConfig, serve
from harvest.storage.quarantine import Quarantine
from harvest.venues import VENUES
from harvest.venues.protocol import StreamOptions
from tests.pipeline.wire import Harness, diff, trade

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
    from pathlib import Path

    from harvest.market import Feed
    from harvest.pipeline.events import Outcome
    from harvest.pipeline.records import Record
    from harvest.venues.protocol import ConnectionPlan

    Script = Callable[["Socket"], Awaitable[None]]

#: A loaded machine takes its time; nothing here waits for so long unless it is broken.
PATIENCE_S = 20.0
ACK = '{"result":null,"id":1}'
SETTINGS = attrs.evolve(
    Settings().streams,
    idle_s=PATIENCE_S,
    first_message_s=PATIENCE_S,
    backoff_initial_s=0.1,
    backoff_max_s=0.2,
    ping_interval_s=0,
    close_timeout_s=1.0,
)


class Bench:
    """A real intake and pipeline that remember each record, and the feeds that lead to them."""

    def __init__(self, root: Path, symbols: Sequence[str] = ("BTCUSDT",), **settings: Any) -> None:
        self.harness = Harness(symbols=symbols)
        self.metrics = self.harness.metrics
        self.records: list[Record] = []
        self.quarantine = Quarantine(root, "run")
        self.settings = attrs.evolve(SETTINGS, **settings)
        self.ssl_context: ssl.SSLContext | None = None
        self.intake = Intake(
            self,
            next_seq=1,
            quarantine=self.quarantine,
            max_buffered_bytes=2**30,
            buffered_bytes=lambda: 0,
            want_snapshot=lambda symbol: None,
            want_trades=lambda symbol, from_id, to_id: None,
        )

    def feed(self, record: Record) -> Outcome:
        """Stand between the intake and the pipeline."""
        self.records.append(record)
        return self.harness.pipeline.feed(record)

    async def run(self, plans: list[ConnectionPlan]) -> None:
        """Run one feed until cancelled."""
        await run_feed(
            plans,
            intake=self.intake,
            settings=self.settings,
            metrics=self.metrics,
            lag=LagSensor(),
            ssl_context=self.ssl_context,
        )

    @asynccontextmanager
    async def running(self, *feeds: list[ConnectionPlan]) -> AsyncIterator[None]:
        """Run feeds beside the block, which has its time; then no opening is without its end."""
        with trio.fail_after(PATIENCE_S):
            async with trio.open_nursery() as nursery:
                for plans in feeds:
                    nursery.start_soon(self.run, plans)
                yield
                nursery.cancel_scope.cancel()
        self.check_pairs()

    def check_pairs(self) -> None:
        """Check that each connection was opened once and closed once, in this order."""
        lives = [record for record in self.records if isinstance(record, Opened | Closed)]
        for name, of_one in itertools.groupby(
            sorted(lives, key=lambda r: r.connection), lambda r: r.connection
        ):
            assert [type(record) for record in of_one] == [Opened, Closed], name

    def closed(self) -> list[tuple[str, str]]:
        """Return name and reason of each connection that has ended."""
        return [(record.connection, record.reason) for record in self.records if isinstance(record, Closed)]

    def trade_ids(self, symbol: str = "BTCUSDT") -> list[int]:
        return self.harness.column("prices", "trade_id", symbol=symbol)

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait until a condition holds."""
        with trio.fail_after(PATIENCE_S):
            while not condition():  # noqa: ASYNC110 - it may be about the server, the log, or the pipeline
                await trio.sleep(0.005)


class Socket:
    """The server's end of one connection."""

    def __init__(self, websocket: WebSocketConnection, number: int) -> None:
        self.websocket = websocket
        self.number = number

    async def request(self) -> dict[str, Any]:
        """Return the next request of the client."""
        return json.loads(await self.websocket.get_message())

    async def subscribed(self) -> None:
        """Wait for a subscription, and acknowledge it."""
        await self.request()
        await self.websocket.send_message(ACK)

    async def send(self, *messages: bytes) -> None:
        for message in messages:
            await self.websocket.send_message(message.decode())

    async def trades(self, from_id: int, count: int | None = None, every_s: float = 0.02) -> None:
        """Send trades with ids from ``from_id`` on; without a count for ever."""
        for trade_id in itertools.count(from_id) if count is None else range(from_id, from_id + count):
            await self.send(trade(trade_id, event="aggTrade"))
            await trio.sleep(every_s)


class Server:
    """A server on loopback: each connection runs the next script, the last one for ever after."""

    def __init__(self, scripts: tuple[Script, ...]) -> None:
        self.open = 0
        self.accepted = 0
        self.url = ""
        self._scripts = scripts

    async def handle(self, request: WebSocketRequest) -> None:
        websocket = await request.accept()
        script = self._scripts[min(self.accepted, len(self._scripts) - 1)]
        self.open += 1
        self.accepted += 1
        try:
            # A close, or none, is what the client makes of it.
            with suppress(ConnectionClosed):
                await script(Socket(websocket, self.accepted))
        finally:
            self.open -= 1


@asynccontextmanager
async def server(*scripts: Script, context: ssl.SSLContext | None = None) -> AsyncIterator[Server]:
    venue = Server(scripts)
    async with trio.open_nursery() as nursery:
        listening = await nursery.start(
            partial(serve_websocket, venue.handle, "127.0.0.1", 0, context, connect_timeout=PATIENCE_S)
        )
        port = listening.listeners[0].port
        venue.url = f"ws://127.0.0.1:{port}" if context is None else f"wss://localhost:{port}"
        yield venue
        nursery.cancel_scope.cancel()


def plans(
    url: str, feed: Feed = "trade", symbols: Sequence[str] = ("BTCUSDT",), max_streams: int = 200
) -> list[ConnectionPlan]:
    venue = VENUES["binance-usdm"]
    return venue.connections(feed, symbols, StreamOptions(), ws_url=url, max_streams=max_streams)


async def flow(socket: Socket) -> None:
    """Script: subscribed, and then trades for ever, a thousand ids further for each connection."""
    await socket.subscribed()
    await socket.trades(1000 * socket.number)


@pytest.fixture
def lines() -> Iterator[list[Any]]:
    with structlog.testing.capture_logs() as captured:
        yield captured


def events(lines: list[Any]) -> list[str]:
    return [line["event"] for line in lines]


async def test_a_stream_that_goes_silent_on_a_living_connection_is_restarted_the_idle_time_after_its_last_data(
    tmp_path, lines
):
    idle_s, pongs, acks = 0.8, 0, 0

    async def go_silent(socket: Socket) -> None:
        nonlocal pongs, acks
        await socket.subscribed()
        await socket.trades(1, 5)
        while True:
            # Everything lives but the data: the server is answered, and answers.
            await socket.websocket.ping()
            pongs += 1
            await socket.send(ACK.encode())
            acks += 1
            await trio.sleep(0.02)

    bench = Bench(tmp_path, idle_s=idle_s, ping_interval_s=0.05)
    async with server(go_silent, flow) as venue, bench.running(plans(venue.url)):
        await bench.until(lambda: bench.metrics.feed("trade", "BTCUSDT").stored >= 8)
    (closed,) = [record for record in bench.records if isinstance(record, Closed)][:1]
    assert (closed.connection, closed.reason) == ("trade-1", "stall")
    data = [
        record
        for record in bench.records
        if isinstance(record, Frames)
        and record.connection == "trade-1"
        and any(b"aggTrade" in frame for frame in record.frames)
    ]
    assert (closed.mono_ns - data[-1].mono_ns) / 1e9 >= idle_s
    assert pongs >= 5
    assert acks >= 5
    assert f"no message for {idle_s:g}s, reconnecting" in events(lines)
    assert bench.closed()[-1] == ("trade-1.2", "shutdown")
    assert bench.trade_ids()[:8] == [1, 2, 3, 4, 5, 2000, 2001, 2002]
    assert bench.harness.column("breaks", "reason") == ["stall"]


@pytest.mark.parametrize("code", [1000, 1001, 1008, 1011, 1012, 1013])
async def test_whatever_code_a_venue_closes_with_the_stream_comes_back(code, tmp_path, lines):
    async def close(socket: Socket) -> None:
        await socket.subscribed()
        await socket.trades(1, 3)
        await socket.websocket.aclose(code, "go away")

    bench = Bench(tmp_path)
    async with server(close, flow) as venue, bench.running(plans(venue.url)):
        await bench.until(lambda: bench.metrics.feed("trade", "BTCUSDT").stored >= 5)
        port = venue.url.rpartition(":")[2]
    assert bench.closed() == [("trade-1", "disconnect"), ("trade-1.2", "shutdown")]
    (line,) = [line for line in lines if "connection error" in line["event"]]
    assert line["tag"] == "TRADE"
    assert line["event"].startswith(f"connection error: 127.0.0.1:{port}/market/stream: closed with {code}")
    assert "go away" in line["event"]
    assert bench.metrics.reconnects("BTCUSDT") == 1


async def test_a_reset_without_a_close_is_a_disconnect(tmp_path, lines):
    async def reset(socket: Socket) -> None:
        await socket.subscribed()
        await socket.trades(1, 3)
        await trio.aclose_forcefully(socket.websocket._stream)

    bench = Bench(tmp_path)
    async with server(reset, flow) as venue, bench.running(plans(venue.url)):
        await bench.until(lambda: bench.metrics.feed("trade", "BTCUSDT").stored >= 5)
    assert bench.closed() == [("trade-1", "disconnect"), ("trade-1.2", "shutdown")]
    assert sum("connection error: " in event for event in events(lines)) == 1


async def test_a_host_that_is_not_there_is_tried_again_and_again_and_taken_when_it_comes(tmp_path, lines):
    listener = (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]
    port = listener.socket.getsockname()[1]
    await listener.aclose()
    bench = Bench(tmp_path, backoff_initial_s=0.02, backoff_max_s=0.05)
    errors: list[str] = []

    def has_failed_often() -> bool:
        errors[:] = [event for event in events(lines) if event.startswith("connection error: ")]
        return len(errors) >= 5

    async with bench.running(plans(f"ws://127.0.0.1:{port}")):
        await bench.until(has_failed_often)
        # What was never open has nothing to close.
        assert bench.records == []
        venue = Server((flow,))
        async with trio.open_nursery() as nursery:
            await nursery.start(partial(serve_websocket, venue.handle, "127.0.0.1", port, None))
            await bench.until(lambda: bench.metrics.feed("trade", "BTCUSDT").stored)
            nursery.cancel_scope.cancel()
    assert all(f"127.0.0.1:{port}" in error for error in errors)
    assert bench.trade_ids()[0] == 1000


async def test_a_stream_flows_over_tls_and_one_whose_certificate_is_not_trusted_never_does(tmp_path, lines):
    authority, stranger = trustme.CA(), trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    bench = Bench(tmp_path)
    bench.ssl_context = ssl.create_default_context()
    authority.configure_trust(bench.ssl_context)
    async with server(flow, context=context) as venue:
        async with bench.running(plans(venue.url)):
            await bench.until(lambda: bench.metrics.feed("trade", "BTCUSDT").stored >= 3)
        bench = Bench(tmp_path)
        bench.ssl_context = ssl.create_default_context()
        stranger.configure_trust(bench.ssl_context)
        async with bench.running(plans(venue.url)):
            await bench.until(lambda: sum("connection error" in event for event in events(lines)) >= 2)
        assert venue.accepted == 1
    assert bench.records == []
    assert any("certificate" in event.lower() for event in events(lines) if "connection error" in event)


async def test_what_is_malformed_is_kept_and_costs_neither_the_connection_nor_its_neighbours(tmp_path):
    async def mixed(socket: Socket) -> None:
        await socket.subscribed()
        await socket.send(
            trade(1, event="aggTrade"),
            b'{"stream":"btcusdt@aggTrade","data":{"e":"aggTrade","a":"x"}}',
            trade(2, event="aggTrade"),
            b"not JSON at all",
            b'{"e":"somethingNew","s":"BTCUSDT"}',
            trade(3, event="aggTrade"),
        )
        await trio.sleep_forever()

    bench = Bench(tmp_path)
    async with server(mixed) as venue, bench.running(plans(venue.url)):
        await bench.until(lambda: bench.metrics.feed("trade", "BTCUSDT").stored >= 3)
    assert bench.trade_ids() == [1, 2, 3]
    assert bench.closed() == [("trade-1", "shutdown")]
    assert bench.metrics.malformed == bench.quarantine.seen == 2
    assert bench.metrics.unknown_events == {"somethingNew": 1}
    bench.quarantine.flush()
    kept = [json.loads(line) for line in bench.quarantine.path.read_text("utf-8").splitlines()]
    assert [one["connection"] for one in kept] == ["trade-1"] * 2
    assert kept[1]["text"] == "not JSON at all"


async def test_a_message_beyond_the_size_limit_costs_the_connection_and_not_the_stream(tmp_path, lines):
    async def oversized(socket: Socket) -> None:
        await socket.subscribed()
        await socket.trades(1, 3)
        await socket.send(b'{"e":"' + b"x" * 200_000 + b'"}')
        await trio.sleep_forever()

    bench = Bench(tmp_path, max_message_bytes=65536)
    async with server(oversized, flow) as venue, bench.running(plans(venue.url)):
        await bench.until(lambda: bench.metrics.feed("trade", "BTCUSDT").stored >= 5)
    assert bench.closed() == [("trade-1", "disconnect"), ("trade-1.2", "shutdown")]


async def test_many_streams_are_subscribed_in_several_requests_each_a_refusal_away_from_the_next(
    tmp_path, lines
):
    symbols = tuple(f"S{number}USDT" for number in range(250))
    asked: list[dict[str, Any]] = []

    async def refuse_the_second(socket: Socket) -> None:
        for number in range(3):
            asked.append(await socket.request())
            refusal = {"error": {"code": 2, "msg": "Invalid request: unknown property"}, "id": 2}
            await socket.send((ACK if number != 1 else json.dumps(refusal)).encode())
        await socket.send(trade(1, event="aggTrade", symbol="S249USDT"))
        await trio.sleep_forever()

    bench = Bench(tmp_path, symbols)
    async with (
        server(refuse_the_second) as venue,
        bench.running(plans(venue.url, symbols=symbols, max_streams=250)),
    ):
        await bench.until(lambda: bench.metrics.feed("trade", "S249USDT").stored)
    assert [request["id"] for request in asked] == [1, 2, 3]
    assert [name for request in asked for name in request["params"]] == [
        f"{symbol.lower()}@aggTrade" for symbol in symbols
    ]
    assert "the venue refused a request: Invalid request: unknown property (code 2)" in events(lines)
    assert bench.closed() == [("trade-1", "shutdown")]


async def test_a_flat_refusal_is_logged_with_code_and_message_and_does_not_count_as_data(tmp_path, lines):
    async def refuse(socket: Socket) -> None:
        await socket.request()
        while True:
            await socket.send(b'{"code":2,"msg":"Invalid request"}')
            await trio.sleep(0.05)

    bench = Bench(tmp_path, idle_s=0.4)
    async with server(refuse) as venue, bench.running(plans(venue.url)):
        await bench.until(lambda: len(bench.closed()) >= 2)
    assert {reason for _, reason in bench.closed()[:-1]} == {"stall"}
    assert "the venue refused a request: Invalid request (code 2)" in events(lines)


async def test_what_a_server_sends_with_its_handshake_is_recorded_after_the_opening(tmp_path):
    async def at_once(socket: Socket) -> None:
        await socket.trades(1, 20, every_s=0)
        await socket.request()
        await trio.sleep_forever()

    bench = Bench(tmp_path)
    async with server(at_once) as venue, bench.running(plans(venue.url)):
        await bench.until(lambda: bench.metrics.feed("trade", "BTCUSDT").stored >= 20)
    assert isinstance(bench.records[0], Opened)
    assert bench.trade_ids() == list(range(1, 21))


async def test_a_bug_behind_the_receive_path_crashes_the_feed_and_closes_all_its_sockets(
    tmp_path, monkeypatch
):
    bench = Bench(tmp_path, ("BTCUSDT", "ETHUSDT"))
    take = bench.intake.frames

    def break_down(connection: Opened, *block: Any) -> Outcome:
        if connection.connection == "trade-2" and len(bench.records) > 20:
            raise ZeroDivisionError("a decoder's bug")
        return take(connection, *block)

    monkeypatch.setattr(bench.intake, "frames", break_down)
    async with server(flow) as venue:
        with pytest.raises(BaseExceptionGroup) as caught, trio.fail_after(PATIENCE_S):
            await bench.run(plans(venue.url, symbols=("BTCUSDT", "ETHUSDT"), max_streams=1))
        assert caught.group_contains(ZeroDivisionError, match="a decoder's bug")
        await bench.until(lambda: not venue.open)
    assert venue.accepted == 2
    bench.check_pairs()


class CancelAtStep(trio.abc.Instrument):
    """Cancels a scope at the nth step that any task of the program makes."""

    def __init__(self, scope: trio.CancelScope, step: int) -> None:
        self._scope = scope
        self._left = step
        self.has_cancelled = False

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self._left -= 1
        if self._left == 0:
            self.has_cancelled = True
            self._scope.cancel()


async def test_cancelled_at_any_step_it_leaves_no_socket_open_and_no_opening_without_its_end(tmp_path):
    async def come_and_go(socket: Socket) -> None:
        await socket.subscribed()
        await socket.trades(1000 * socket.number, 3, every_s=0)
        await socket.websocket.aclose(1001)

    async with server(come_and_go) as venue:
        # Up to and beyond connecting, subscribing, receiving, closing, waiting, and connecting again.
        for step in itertools.chain(range(1, 150), range(150, 400, 7)):
            bench = Bench(tmp_path, backoff_initial_s=0.004)
            with trio.fail_after(PATIENCE_S), trio.CancelScope() as scope:
                instrument = CancelAtStep(scope, step)
                trio.lowlevel.add_instrument(instrument)
                try:
                    await bench.run(plans(venue.url))
                finally:
                    trio.lowlevel.remove_instrument(instrument)
            assert instrument.has_cancelled
            bench.check_pairs()
            await bench.until(lambda: not venue.open)
    assert venue.accepted > 50


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


async def test_the_order_of_records_is_that_of_their_numbers_over_all_connections(tmp_path):
    async def both(socket: Socket) -> None:
        await socket.subscribed()
        for number in itertools.count(1):
            await socket.send(trade(number, event="aggTrade"), diff(number, number, number - 1))
            await trio.sleep(0.005)
            if number % 10 == 0 and socket.number < 6:
                await socket.websocket.aclose(1001)

    bench = Bench(tmp_path)
    async with server(both) as venue, bench.running(plans(venue.url), plans(venue.url, "orderbook")):
        await bench.until(lambda: len(bench.closed()) >= 4 and len(bench.records) > 40)
    assert [record.seq for record in bench.records] == list(range(1, len(bench.records) + 1))
