"""Opening a connection: each phase fails under its own name, within one deadline, and leaves nothing open."""

from __future__ import annotations

import socket
import ssl
from typing import Any

import pytest
import trio
import trio.testing
import trustme

from harvest.nurseries.connection import (
    AddressError,
    ConnectionLostError,
    ConnectionRejectedError,
    open_connection,
)
from harvest.nurseries.dial import Address
from tests.nurseries.wire import frame, raw_server


def ignore(_frames: list[bytes], _recv_ns: int, _mono_ns: int) -> None:
    """Be an ``on_frames`` that wants nothing."""


async def loss_of(url: str, **settings: Any) -> ConnectionLostError:
    """Try to open a connection, and return why it could not be."""
    with pytest.raises(ConnectionLostError) as caught:
        async with open_connection(url, on_frames=ignore, **settings):
            pytest.fail("it opened")
    return caught.value


def answering(answer: bytes) -> Any:
    async def talk(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(answer)
        await stream.send_eof()
        while await stream.receive_some():
            pass

    return talk


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("https://venue.example/ws", "expected a URL such as wss://host/path"),
        ("wss:///ws", "expected a URL such as wss://host/path"),
        ("wss://venue.example:port/ws", "port"),
        ("wss://me:secret@venue.example/ws", "take the credentials out"),
        ("ws://venue.example/ws", "not encrypted: use wss://"),
        ("ws://10.0.0.1/ws", "not encrypted: use wss://"),
    ],
)
async def test_a_url_that_is_not_connected_to_says_why(url: str, words: str) -> None:
    with pytest.raises(AddressError, match=words):
        async with open_connection(url, on_frames=ignore):
            pytest.fail("it opened")


@pytest.mark.parametrize(
    ("url", "host", "port", "target", "header"),
    [
        ("wss://fstream.example/public/ws", "fstream.example", 443, "/public/ws", "fstream.example"),
        ("wss://stream.example:9443", "stream.example", 9443, "/", "stream.example:9443"),
        ("ws://127.0.0.1:81/stream?streams=a@b/c", "127.0.0.1", 81, "/stream?streams=a@b/c", "127.0.0.1:81"),
        ("ws://[::1]:81/", "::1", 81, "/", "[::1]:81"),
        (
            "ws://localhost/ws/牛来usdt@trade",
            "localhost",
            80,
            "/ws/%E7%89%9B%E6%9D%A5usdt@trade",
            "localhost",
        ),
        ("ws://localhost/ws/%E7%89%9B?a=牛", "localhost", 80, "/ws/%E7%89%9B?a=%E7%89%9B", "localhost"),
    ],
)
def test_a_url_is_taken_apart(url: str, host: str, port: int, target: str, header: str) -> None:
    address = Address.parse(url)
    assert (address.host, address.port, address.target, address.host_header) == (host, port, target, header)
    assert address.is_secure == url.startswith("wss")


def test_plain_connections_to_others_have_to_be_allowed() -> None:
    assert not Address.parse("ws://venue.example/ws", allow_insecure=True).is_secure


async def test_a_tls_context_that_does_not_verify_is_refused() -> None:
    context = ssl.create_default_context()
    context.check_hostname = False
    with pytest.raises(ValueError, match="does not verify"):
        async with open_connection("wss://127.0.0.1:1/", on_frames=ignore, ssl_context=context):
            pytest.fail("it opened")


async def test_an_unknown_name_is_lost_in_dns(monkeypatch: pytest.MonkeyPatch) -> None:
    async def getaddrinfo(*_args: object, **_kwargs: object) -> None:
        await trio.lowlevel.checkpoint()
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(trio.socket, "getaddrinfo", getaddrinfo)
    loss = await loss_of("wss://venue.example/ws?streams=many")
    assert (loss.phase, loss.host, loss.code) == ("dns", "venue.example", None)
    assert str(loss).startswith("venue.example/ws: [Errno -2] Name or service not known")


@pytest.mark.parametrize("phase", ["dns", "tcp"])
async def test_a_network_that_does_not_answer_is_given_up_at_the_deadline(
    phase: str, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    async def never(*_args: object, **_kwargs: object) -> None:
        await trio.sleep_forever()

    if phase == "dns":
        monkeypatch.setattr(trio.socket, "getaddrinfo", never)
    monkeypatch.setattr(trio, "open_tcp_stream", never)
    started = trio.current_time()
    loss = await loss_of("wss://127.0.0.1/", connect_timeout_s=7)
    assert trio.current_time() - started == pytest.approx(7)
    assert loss.phase == phase
    assert loss.cause == "no answer within 7 s"


async def test_a_closed_port_is_lost_in_tcp() -> None:
    with socket.socket() as taken:
        # Bound and not listening: nobody else can answer there.
        taken.bind(("127.0.0.1", 0))
        loss = await loss_of(f"ws://127.0.0.1:{taken.getsockname()[1]}/")
    assert loss.phase == "tcp"
    assert "refused" in loss.cause


@pytest.mark.parametrize("scheme", ["ws", "wss"])
async def test_a_server_that_is_silent_is_given_up_at_the_deadline(
    scheme: str, autojump_clock: trio.testing.MockClock
) -> None:
    # Long enough for the sockets to be idle in truth.
    autojump_clock.autojump_threshold = 0.05
    is_closed = trio.Event()

    async def talk(stream: trio.SocketStream) -> None:
        while await stream.receive_some():
            pass
        is_closed.set()

    async with raw_server(talk, shakes_hands=False) as url:
        started = trio.current_time()
        loss = await loss_of(url.replace("ws:", f"{scheme}:"), connect_timeout_s=7)
        assert trio.current_time() - started == pytest.approx(7)
        assert loss.phase == ("tls" if scheme == "wss" else "handshake")
        await is_closed.wait()


@pytest.mark.parametrize(
    ("identity", "trusted", "words"),
    [
        ("other.example", True, "certificate not accepted: IP address mismatch"),
        ("127.0.0.1", False, "certificate not accepted: unable to get local issuer certificate"),
    ],
)
async def test_a_server_that_is_not_who_it_should_be_is_lost_in_tls(
    identity: str, trusted: bool, words: str
) -> None:
    ca = trustme.CA()
    server, client = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH), ssl.create_default_context()
    ca.issue_cert(identity).configure_cert(server)
    if trusted:
        ca.configure_trust(client)

    async def talk(stream: trio.SocketStream) -> None:
        with pytest.raises(trio.BrokenResourceError):
            await trio.SSLStream(stream, server, server_side=True).receive_some()

    async with raw_server(talk, shakes_hands=False) as url:
        loss = await loss_of(url.replace("ws:", "wss:"), ssl_context=client)
    assert loss.phase == "tls"
    assert loss.cause.startswith(words)


async def test_a_server_without_tls_is_lost_in_tls() -> None:
    async with raw_server(answering(b"HTTP/1.1 400 Bad Request\r\n\r\n"), shakes_hands=False) as url:
        loss = await loss_of(url.replace("ws:", "wss:"))
    assert loss.phase == "tls"


@pytest.mark.parametrize(
    ("answer", "status", "retry_after", "words"),
    [
        (
            b"HTTP/1.1 429 Slow Down\r\nRetry-After: 7\r\nContent-Length: 4\r\n\r\nslow",
            429,
            "7",
            "HTTP 429: slow",
        ),
        (b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n", 403, None, "HTTP 403"),
        (b"HTTP/1.1 503 Busy\r\n\r\na page until the end", 503, None, "HTTP 503"),
        (b"HTTP/1.1 100 Continue\r\n\r\n", 100, None, "HTTP 100"),
        (b"HTTP/1.1 418 I'm a teapot\r\nRetry-Af", 418, None, "HTTP 418"),
    ],
)
async def test_a_refusal_is_told_with_its_status(
    answer: bytes, status: int, retry_after: str | None, words: str
) -> None:
    async with raw_server(answering(answer), shakes_hands=False) as url:
        loss = await loss_of(url)
    assert isinstance(loss, ConnectionRejectedError)
    assert (loss.phase, loss.status, loss.retry_after) == ("handshake", status, retry_after)
    assert words in loss.cause


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"", "ended the connection instead of answering"),
        (b"HTTP/1.1", "ended the connection instead of answering"),
        (b"SSH-2.0-OpenSSH_9.6\r\n\r\n", "illegal status line"),
        (b"x" * 70_000, ""),
        (b"HTTP/1.1 101 Switching Protocols\r\n\r\n", "Missing header, 'Connection: Upgrade'"),
        (
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: x\r\n\r\n" + frame(b"data"),
            "Bad accept token",
        ),
        (
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Protocol: \xff\r\n\r\n",
            "",
        ),
    ],
)
async def test_an_answer_that_is_not_a_websocket_is_lost_in_the_handshake(answer: bytes, words: str) -> None:
    async with raw_server(answering(answer), shakes_hands=False) as url:
        loss = await loss_of(url)
    assert loss.phase == "handshake"
    assert words in loss.cause
