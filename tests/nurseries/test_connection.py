"""An open connection: messages, errors, keepalive, over real sockets or, where time matters, over memory."""

from __future__ import annotations

import ssl
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing
import trustme
from trio_websocket import ConnectionClosed, WebSocketRequest, serve_websocket

from harvest.nurseries import connection as connection_module
from harvest.nurseries.connection import Connection, ConnectionLostError, OnFrames, open_connection
from tests.nurseries.wire import BINARY, CLOSE, CONTINUATION, PING, PONG, Peer, frame, raw_server, unmask

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

CA = trustme.CA()
SERVER_TLS = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
CA.issue_cert("127.0.0.1").configure_cert(SERVER_TLS)
CLIENT_TLS = ssl.create_default_context()
CA.configure_trust(CLIENT_TLS)


async def loss_of(
    url: str,
    on_frames: OnFrames | None = None,
    act: Callable[[Connection], Awaitable[None]] | None = None,
    **settings: Any,
) -> ConnectionLostError:
    """Open a connection, do something, run it, and return how it was lost."""
    with pytest.raises(ConnectionLostError) as caught:
        await _use(url, on_frames or ignore, act, settings)
    return caught.value


async def _use(
    url: str,
    on_frames: OnFrames,
    act: Callable[[Connection], Awaitable[None]] | None = None,
    settings: dict[str, Any] | None = None,
) -> None:
    async with open_connection(url, on_frames=on_frames, **settings or {}) as connection:
        if act is not None:
            await act(connection)
        await connection.run()


def ignore(_frames: list[bytes], _recv_ns: int, _mono_ns: int) -> None:
    """Be an ``on_frames`` that wants nothing."""


@asynccontextmanager
async def websocket_server(
    handler: Callable[[WebSocketRequest], Awaitable[None]], tls: ssl.SSLContext | None = None
) -> AsyncIterator[str]:
    async with trio.open_nursery() as nursery:
        server = await nursery.start(serve_websocket, handler, "127.0.0.1", 0, tls)
        yield f"{'wss' if tls else 'ws'}://127.0.0.1:{server.port}/stream?streams=a/b"
        nursery.cancel_scope.cancel()


@pytest.fixture
def peer(monkeypatch: pytest.MonkeyPatch) -> Peer:
    ours, theirs = trio.testing.memory_stream_pair()

    async def dial(*_args: object, **_kwargs: object) -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        return ours

    monkeypatch.setattr(connection_module, "dial", dial)
    return Peer(theirs)


URL = "ws://127.0.0.1/ws"


@pytest.mark.parametrize("tls", [False, True])
async def test_messages_flow_both_ways_until_the_server_closes(tls: bool) -> None:
    async def handler(request: WebSocketRequest) -> None:
        assert request.path == "/stream?streams=a/b"
        websocket = await request.accept()
        for i in range(1000):
            await websocket.send_message(f"{i}")
        assert await websocket.get_message() == "SUBSCRIBE 牛来"
        await websocket.aclose(1001, "maintenance")

    frames: list[bytes] = []
    async with websocket_server(handler, SERVER_TLS if tls else None) as url:
        loss = await loss_of(
            url,
            lambda block, *_: frames.extend(block),
            lambda connection: connection.send("SUBSCRIBE 牛来"),
            ssl_context=CLIENT_TLS,
        )
    assert frames == [b"%d" % i for i in range(1000)]
    assert (loss.phase, loss.code, loss.reason) == ("open", 1001, "maintenance")
    assert str(loss) == f"{loss.host}/stream: closed with 1001 (going away): maintenance (open)"


@pytest.mark.parametrize("first", [frame(b"fast"), frame(b"slow", BINARY), frame(b"p", PING)])
async def test_an_error_of_the_callback_comes_out_of_run_as_itself_200_times_over(first: bytes) -> None:
    async def talk(stream: trio.abc.Stream) -> None:
        await stream.send_all(first)
        try:
            while True:
                await stream.send_all(frame(b"p", PING) + frame(b"b") * 10)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return

    def fail(_frames: list[bytes], _recv_ns: int, _mono_ns: int) -> None:
        raise ZeroDivisionError

    async with raw_server(talk) as url:
        for _ in range(200):
            with pytest.raises(ZeroDivisionError):
                await _use(url, fail)


async def test_an_error_of_the_callback_comes_out_of_send_and_ping_too() -> None:
    async def talk(stream: trio.abc.Stream) -> None:
        await stream.send_all(frame(b"a"))
        await trio.sleep_forever()

    def fail(_frames: list[bytes], _recv_ns: int, _mono_ns: int) -> None:
        raise ZeroDivisionError

    async with raw_server(talk) as url, open_connection(url, on_frames=fail) as connection:
        for call in (connection.run, lambda: connection.send("x"), connection.ping, connection.run):
            with pytest.raises(ZeroDivisionError):
                await call()


@pytest.mark.parametrize("code", [1000, 1001, 1008, 1011, 1012, 1013, 4000])
async def test_the_close_of_the_server_is_told_with_its_code(code: int) -> None:
    answers = b""

    async def talk(stream: trio.abc.Stream) -> None:
        nonlocal answers
        await stream.send_all(frame(b"last") + frame(code.to_bytes(2) + b"why", CLOSE))
        while data := await stream.receive_some():
            answers += data

    frames: list[bytes] = []
    async with raw_server(talk) as url:
        loss = await loss_of(url, lambda block, *_: frames.extend(block))
        assert (loss.code, loss.reason, loss.phase) == (code, "why", "open")
        assert frames == [b"last"]
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert unmask(answers) == [(0x80 | CLOSE, code.to_bytes(2) + b"why")]


@pytest.mark.parametrize(
    ("wire", "code", "words"),
    [
        (b"", 1006, "the stream ended without a close"),
        (frame(b"cut")[:-1], 1006, "the stream ended without a close"),
        (frame(b"\xff"), 1007, "invalid frame payload data"),
        (frame(b"a", rsv=1), 1002, "protocol error"),
        (frame(b"x" * 2001, BINARY), 1009, "message too big"),
        (frame(b"x" * 2001) + frame(b"p", PING), 1009, "message too big"),
    ],
)
async def test_an_end_without_a_close_of_the_server_is_told_with_its_cause(
    wire: bytes, code: int, words: str
) -> None:
    async def talk(stream: trio.abc.Stream) -> None:
        await stream.send_all(wire)
        await stream.aclose()

    async with raw_server(talk) as url:
        loss = await loss_of(url, max_message_bytes=2000)
    assert loss.code == code
    assert words in str(loss)


async def test_a_reset_is_told_in_the_words_of_the_system() -> None:
    async def talk(stream: Any) -> None:
        stream.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        await stream.receive_some()
        stream.socket.close()

    async with raw_server(talk) as url:
        loss = await loss_of(url, act=lambda connection: connection.send("go"))
    assert loss.code == 1006
    assert "reset" in loss.cause.lower()


async def test_server_pings_are_answered_amid_a_flood_and_no_frame_is_lost_or_moved() -> None:
    pings, per_ping = 200, 500
    pongs: list[bytes] = []
    frames: list[bytes] = []

    async def talk(stream: trio.abc.Stream) -> None:
        async def listen() -> None:
            received = b""
            while len(pongs) < pings:
                received += await stream.receive_some()
                pongs[:] = [payload for first, payload in unmask(received) if first == 0x80 | PONG]
            await stream.send_all(frame((1000).to_bytes(2), CLOSE))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(listen)
            for i in range(pings):
                flood = b"".join(frame(b"%d %d " % (i, j) + b"x" * 180) for j in range(per_ping))
                await stream.send_all(flood + frame(b"%d" % i, PING))

    async with raw_server(talk) as url:
        loss = await loss_of(url, lambda block, *_: frames.extend(block))
    assert loss.code == 1000
    assert pongs == [b"%d" % i for i in range(pings)]
    assert [payload[:-181] for payload in frames] == [
        b"%d %d" % (i, j) for i in range(pings) for j in range(per_ping)
    ]


async def test_fragmented_messages_do_not_freeze_a_connection_whose_user_does_something_else() -> None:
    frames: list[bytes] = []
    answered = trio.Event()

    async def talk(stream: trio.abc.Stream) -> None:
        for i in range(20):
            await stream.send_all(
                frame(b"%d " % i, fin=False) + frame(b"end", CONTINUATION) + frame(b"%d" % i)
            )
        await stream.send_all(frame(b"there?", PING))
        received = b""
        while (0x80 | PONG, b"there?") not in unmask(received):
            received += await stream.receive_some()
        answered.set()
        await trio.sleep_forever()

    async with (
        raw_server(talk) as url,
        open_connection(url, on_frames=lambda block, *_: frames.extend(block), close_timeout_s=0.05),
    ):
        with trio.fail_after(5):
            await answered.wait()
    assert frames == [text for i in range(20) for text in (b"%d end" % i, b"%d" % i)]


async def test_a_ping_is_answered_by_a_server_that_lives() -> None:
    async def handler(request: WebSocketRequest) -> None:
        websocket = await request.accept()
        with pytest.raises(ConnectionClosed):
            await websocket.get_message()

    async with websocket_server(handler) as url, open_connection(url, on_frames=ignore) as connection:
        await connection.ping()


async def test_a_server_that_does_not_answer_pings_is_lost_after_the_timeout(
    peer: Peer, autojump_clock: trio.testing.MockClock
) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(peer.shake_hands)
        started = trio.current_time()
        loss = await loss_of(URL, ping_interval_s=20, ping_timeout_s=10)
        assert trio.current_time() - started == pytest.approx(30)
        assert loss.phase == "ping"
        assert str(loss) == "127.0.0.1/ws: no pong within 10 s (ping)"
    with pytest.raises(trio.BrokenResourceError):
        await peer.stream.send_all(b"x")


async def test_the_keepalive_goes_on_as_long_as_pongs_come(
    peer: Peer, autojump_clock: trio.testing.MockClock
) -> None:
    times = []

    async def answer() -> None:
        await peer.shake_hands()
        while True:
            payload = await peer.next_frame(PING)
            times.append(trio.current_time())
            await trio.sleep(9)
            await peer.stream.send_all(frame(payload, PONG))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(answer)
        with trio.move_on_after(100):
            async with open_connection(
                URL, on_frames=ignore, ping_interval_s=20, ping_timeout_s=10
            ) as connection:
                await connection.run()
        nursery.cancel_scope.cancel()
    assert times == pytest.approx([20, 49, 78])


async def test_a_pong_may_stand_behind_data_and_its_deadline_begins_with_what_came_last(
    peer: Peer, autojump_clock: trio.testing.MockClock
) -> None:
    sent_at = 0.0

    async def send() -> None:
        nonlocal sent_at
        await peer.shake_hands()
        for wait_s in (21, 9, 9, 9, 9):
            await trio.sleep(wait_s)
            await peer.stream.send_all(frame(b"data"))
        sent_at = trio.current_time()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        loss = await loss_of(URL, ping_interval_s=20, ping_timeout_s=10)
        assert trio.current_time() == pytest.approx(sent_at + 10)
        assert loss.phase == "ping"


async def test_data_keeps_a_connection_over_a_socket_whose_pong_is_late_and_its_end_is_noticed() -> None:
    timeout_s, sent_at, pong_at = 0.3, 0.0, 0.0

    async def talk(stream: trio.SocketStream) -> None:
        nonlocal sent_at, pong_at
        begun = trio.current_time()
        received = b""
        while not received:
            received = await stream.receive_some()
        while trio.current_time() < begun + 4 * timeout_s:
            await stream.send_all(frame(b"x" * 1000) * 100)
            await trio.sleep(timeout_s / 10)
        pong_at = trio.current_time()
        await stream.send_all(frame(unmask(received)[0][1], PONG))
        await stream.send_all(frame(b"last"))
        sent_at = trio.current_time()
        # From here on it is as one that was stopped: its system goes on acknowledging what comes.
        await trio.sleep_forever()

    async def ping(connection: Connection) -> None:
        await connection.ping()
        assert pong_at
        with pytest.raises(ConnectionLostError):
            await connection.ping()

    async with raw_server(talk) as url:
        loss = await loss_of(url, act=ping, ping_interval_s=None, ping_timeout_s=timeout_s)
        assert loss.phase == "ping"
        assert sent_at + timeout_s <= trio.current_time() < sent_at + 2 * timeout_s + 1


async def test_without_an_interval_nothing_is_pinged(
    peer: Peer, autojump_clock: trio.testing.MockClock
) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(peer.shake_hands)
        with trio.move_on_after(1000) as scope:
            async with open_connection(URL, on_frames=ignore, ping_interval_s=None) as connection:
                await connection.run()
        assert scope.cancelled_caught
    assert await peer.stream.receive_some() == b""


async def test_our_own_stall_is_not_the_silence_of_the_server(
    peer: Peer, autojump_clock: trio.testing.MockClock
) -> None:
    async def answer() -> None:
        await peer.shake_hands()
        await peer.next_frame(PING)
        # The loop stands still for a minute; then everything that was due is late.
        autojump_clock.jump(60)
        await peer.stream.send_all(frame(await peer.next_frame(PING), PONG))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(answer)
        async with open_connection(
            URL, on_frames=ignore, ping_interval_s=None, ping_timeout_s=10
        ) as connection:
            await connection.ping()


async def test_a_lost_pong_is_told_by_every_call(peer: Peer, autojump_clock: trio.testing.MockClock) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(peer.shake_hands)
        async with open_connection(URL, on_frames=ignore, ping_interval_s=1, ping_timeout_s=1) as connection:
            await trio.sleep(3)
            for call in (connection.run, connection.ping, lambda: connection.send("x"), connection.run):
                with pytest.raises(ConnectionLostError, match="no pong"):
                    await call()


async def test_a_lost_pong_frees_a_sender_that_is_stuck_in_the_socket() -> None:
    async def talk(stream: trio.SocketStream) -> None:
        await trio.sleep_forever()

    async def send(connection: Connection) -> None:
        while True:
            await connection.send("x" * 1_000_000)

    async with raw_server(talk) as url:
        loss = await loss_of(url, act=send, ping_interval_s=0.1, ping_timeout_s=0.1)
    assert loss.phase == "ping"
