"""Whole feeds over real sockets, with a server that does as it is told.

Each ends with what the records say: every connection that was opened has its end, and the reason of it.
"""

from __future__ import annotations

import itertools
import json
import ssl
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import structlog
import trio
import trustme
from trio_websocket import serve_websocket

from harvest.pipeline.records import Closed, Frames, Opened
from tests.nurseries.feed_bench import ACK, PATIENCE_S, Bench, Server, Socket, events, flow, plans, server
from tests.pipeline.wire import diff, trade

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harvest.pipeline.events import Outcome


@pytest.fixture
def lines() -> Iterator[list[Any]]:
    with structlog.testing.capture_logs() as captured:
        yield captured


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
