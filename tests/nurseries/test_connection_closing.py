"""Leaving a connection: whichever way and whenever, the socket is closed, in time, and nothing goes on."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing
import trustme

from harvest.nurseries import connection as connection_module
from harvest.nurseries.connection import ConnectionLostError, open_connection
from tests.nurseries.wire import (
    BINARY,
    CLOSE,
    PING,
    TEXT,
    Peer,
    frame,
    raw_server,
    switching_protocols,
    unmask,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

URL = "ws://127.0.0.1/ws"
CA = trustme.CA()
SERVER_TLS = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
CA.issue_cert("127.0.0.1").configure_cert(SERVER_TLS)
CLIENT_TLS = ssl.create_default_context()
CA.configure_trust(CLIENT_TLS)


def ignore(_frames: list[bytes], _recv_ns: int, _mono_ns: int) -> None:
    """Be an ``on_frames`` that wants nothing."""


@pytest.fixture
def peer(monkeypatch: pytest.MonkeyPatch) -> Peer:
    ours, theirs = trio.testing.memory_stream_pair()

    async def dial(*_args: object, **_kwargs: object) -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        return ours

    monkeypatch.setattr(connection_module, "dial", dial)
    return Peer(theirs)


@pytest.fixture
def sockets(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[trio.SocketStream]]:
    """The client's sockets; each has to be closed at the end."""
    opened: list[trio.SocketStream] = []
    open_tcp_stream = trio.open_tcp_stream

    async def remember(*args: Any, **kwargs: Any) -> trio.SocketStream:
        stream = await open_tcp_stream(*args, **kwargs)
        opened.append(stream)
        return stream

    monkeypatch.setattr(trio, "open_tcp_stream", remember)
    yield opened
    assert [stream.socket.fileno() for stream in opened] == [-1] * len(opened)


async def test_a_connection_that_is_left_is_closed_politely(
    peer: Peer, autojump_clock: trio.testing.MockClock
) -> None:
    async def serve() -> None:
        await peer.shake_hands()
        assert await peer.next_frame(CLOSE) == (1000).to_bytes(2)
        await trio.sleep(0.5)
        await peer.stream.send_all(frame((1000).to_bytes(2), CLOSE))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        async with open_connection(URL, on_frames=ignore, close_timeout_s=2):
            pass
        assert trio.current_time() == pytest.approx(0.5)
    with trio.fail_after(1):
        assert await peer.stream.receive_some() == b""


@pytest.mark.parametrize("pinging", [False, True])
async def test_a_peer_that_does_not_answer_the_close_is_left_in_time(
    pinging: bool, peer: Peer, autojump_clock: trio.testing.MockClock
) -> None:
    async def serve() -> None:
        await peer.shake_hands()
        await peer.next_frame(CLOSE)
        if pinging:
            # trio-websocket cannot answer it any more, and its reader ends.
            await peer.stream.send_all(frame(b"?", PING))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        async with open_connection(URL, on_frames=ignore, close_timeout_s=2):
            pass
    assert trio.current_time() == pytest.approx(0 if pinging else 2)
    with trio.fail_after(1):
        assert await peer.stream.receive_some() == b""


async def test_no_frame_comes_after_the_block_has_been_left(peer: Peer) -> None:
    frames: list[bytes] = []

    async def serve() -> None:
        await peer.shake_hands()
        await peer.stream.send_all(frame(b"before"))
        await peer.next_frame(CLOSE)
        await peer.stream.send_all(frame(b"after") + frame(b"after", BINARY) + frame(b"", CLOSE))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        async with open_connection(URL, on_frames=lambda block, *_: frames.extend(block)):
            await trio.testing.wait_all_tasks_blocked()
    assert frames == [b"before"]


async def test_an_error_of_the_block_comes_out_as_itself_after_a_polite_close(
    peer: Peer, autojump_clock: trio.testing.MockClock
) -> None:
    async def serve() -> None:
        await peer.shake_hands()
        await peer.next_frame(CLOSE)
        await peer.stream.send_all(frame(b"", CLOSE))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        with pytest.raises(ZeroDivisionError):
            async with open_connection(URL, on_frames=ignore):
                raise ZeroDivisionError
    assert trio.current_time() == 0


async def test_an_error_of_the_block_is_not_hidden_by_a_cancellation_while_closing(
    peer: Peer, autojump_clock: trio.testing.MockClock
) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(peer.shake_hands)
        with pytest.raises(ZeroDivisionError), trio.move_on_after(1):
            async with open_connection(URL, on_frames=ignore, close_timeout_s=2):
                raise ZeroDivisionError
    assert trio.current_time() == pytest.approx(1)


async def test_a_watchdog_around_a_silent_connection_leaves_it_at_once(
    peer: Peer, autojump_clock: trio.testing.MockClock
) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(peer.shake_hands)
        with trio.move_on_after(120) as watchdog:
            async with open_connection(URL, on_frames=ignore, ping_interval_s=None) as connection:
                await connection.run()
    assert watchdog.cancelled_caught
    assert trio.current_time() == pytest.approx(120)
    with trio.fail_after(1):
        assert await peer.stream.receive_some() == b""


async def test_a_connection_that_was_lost_says_so_after_the_block_too(peer: Peer) -> None:
    async def serve() -> None:
        await peer.shake_hands()
        await peer.stream.aclose()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        async with open_connection(URL, on_frames=ignore) as connection:
            await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(ConnectionLostError):
            await connection.run()


class CancelAfter(trio.abc.Instrument):
    """Cancel a scope when a task has made a number of steps, that is at one of its awaits."""

    def __init__(self, task: trio.lowlevel.Task, steps: int, scope: trio.CancelScope) -> None:
        self.task, self.steps, self.scope = task, steps, scope

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        if task is self.task:
            self.steps -= 1
            if self.steps == 0:
                self.scope.cancel()


@pytest.mark.parametrize("tls", [False, True])
async def test_cancelled_at_each_of_its_awaits_it_leaves_nothing_behind(
    tls: bool, sockets: list[trio.SocketStream]
) -> None:
    ended: list[trio.Event] = []

    async def talk(raw: trio.SocketStream) -> None:
        is_over = trio.Event()
        ended.append(is_over)
        stream: trio.abc.Stream = trio.SSLStream(raw, SERVER_TLS, server_side=True) if tls else raw
        try:
            request = b""
            while not request.endswith(b"\r\n\r\n"):
                data = await stream.receive_some()
                if not data:
                    return
                request += data
            await stream.send_all(switching_protocols(request) + frame(b"data") + frame(b"slow", BINARY))
            sent = b""
            while not any(first & 0xF == CLOSE for first, _ in unmask(sent)):
                data = await stream.receive_some()
                if not data:
                    return
                sent += data
                if any(first & 0xF == TEXT for first, _ in unmask(sent)):
                    await stream.send_all(frame(b"more"))
            await stream.send_all(frame(b"", CLOSE))
        except trio.BrokenResourceError:
            pass
        finally:
            with trio.CancelScope(shield=True):
                await trio.aclose_forcefully(stream)
            is_over.set()

    frames: list[bytes] = []
    task = trio.lowlevel.current_task()
    async with raw_server(talk, shakes_hands=False) as url:
        for steps in range(1, 1000):
            frames.clear()
            with trio.CancelScope() as scope:
                instrument = CancelAfter(task, steps, scope)
                trio.lowlevel.add_instrument(instrument)
                try:
                    async with open_connection(
                        url.replace("ws:", "wss:" if tls else "ws:"),
                        on_frames=lambda block, *_: frames.extend(block),
                        ssl_context=CLIENT_TLS,
                    ) as connection:
                        await connection.send("subscribe")
                        await trio.testing.wait_all_tasks_blocked(0.001)
                finally:
                    trio.lowlevel.remove_instrument(instrument)
            assert all(stream.socket.fileno() == -1 for stream in sockets), steps
            assert frames == [b"data", b"slow", b"more"][: len(frames)], steps
            count = len(frames)
            with trio.fail_after(5):
                for is_over in ended:
                    await is_over.wait()
            assert len(frames) == count, steps
            if not scope.cancelled_caught:
                break
        else:
            pytest.fail("it never got to its end")
    assert steps > 10
    assert frames == [b"data", b"slow", b"more"]
