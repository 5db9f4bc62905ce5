from __future__ import annotations

import datetime
import random
import ssl
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing
import trustme

from harvest.nurseries.tls import TlsStream, default_context

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

CA = trustme.CA()
HOST = "venue.example"


def server_context(cert: trustme.LeafCert | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    (cert or CA.issue_cert(HOST, "127.0.0.1")).configure_cert(context)
    return context


def client_context(ca: trustme.CA = CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    ca.configure_trust(context)
    return context


SERVER = server_context()
CLIENT = client_context()


@asynccontextmanager
async def pair(
    server: ssl.SSLContext = SERVER, client: ssl.SSLContext = CLIENT
) -> AsyncIterator[tuple[TlsStream, trio.SSLStream[trio.abc.Stream]]]:
    """Our client and Trio's server over real sockets, hands shaken."""
    ours, theirs = await socket_pair()
    one = TlsStream(ours, client, HOST)
    other: trio.SSLStream[trio.abc.Stream] = trio.SSLStream(theirs, server, server_side=True)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(other.do_handshake)
        await one.do_handshake()
    try:
        yield one, other
    finally:
        with trio.CancelScope(shield=True):
            await trio.aclose_forcefully(one)
            await trio.aclose_forcefully(other)


async def socket_pair() -> tuple[trio.SocketStream, trio.SocketStream]:
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listeners[0] as listener:
        client = await trio.testing.open_stream_to_socket_listener(listener)
        return client, await listener.accept()


async def test_it_keeps_the_contract_of_a_trio_stream() -> None:
    async def make() -> tuple[TlsStream, trio.SSLStream[trio.abc.Stream]]:
        ours, theirs = trio.testing.memory_stream_pair()
        one = TlsStream(ours, CLIENT, HOST)
        other: trio.SSLStream[trio.abc.Stream] = trio.SSLStream(theirs, SERVER, server_side=True)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(other.do_handshake)
            await one.do_handshake()
        return one, other

    await trio.testing.check_two_way_stream(make, None)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_large_transfers_go_both_ways_at_once(version: ssl.TLSVersion) -> None:
    server = server_context()
    server.minimum_version = server.maximum_version = version
    sent = random.Random(5).randbytes(3_000_000)

    async def receive(stream: trio.abc.Stream, received: bytearray) -> None:
        while len(received) < len(sent):
            received += await stream.receive_some(random.Random(len(received)).choice([1000, 65536, 100_000]))

    at_client, at_server = bytearray(), bytearray()
    async with pair(server=server) as (client, other):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.send_all, sent)
            nursery.start_soon(other.send_all, sent)
            nursery.start_soon(receive, client, at_client)
            nursery.start_soon(receive, other, at_server)
        assert at_client == sent
        assert at_server == sent


async def test_many_records_come_with_one_call() -> None:
    async with pair() as (client, other):
        for i in range(50):
            await other.send_all(b"%02d" % i)
        await trio.testing.wait_all_tasks_blocked(0.01)
        sent, pieces = b"".join(b"%02d" % i for i in range(50)), []
        while len(b"".join(pieces)) < len(sent):
            pieces.append(await client.receive_some())
        assert b"".join(pieces) == sent
        # A busy machine may cut it, but not into records.
        assert len(pieces) < 10


async def test_what_does_not_fit_comes_with_the_next_call() -> None:
    async with pair() as (client, other):
        await other.send_all(b"abcdef")
        assert [await client.receive_some(4), await client.receive_some(4)] == [b"abcd", b"ef"]


@pytest.mark.parametrize(
    ("server", "client", "host", "words"),
    [
        (server_context(), client_context(), "other.example", "Hostname mismatch"),
        (server_context(), client_context(trustme.CA()), HOST, "unable to get local issuer certificate"),
        (server_context(), default_context(), HOST, "unable to get local issuer certificate"),
        (
            server_context(
                CA.issue_cert(
                    HOST, not_after=datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1)
                )
            ),
            client_context(),
            HOST,
            "certificate has expired",
        ),
    ],
    ids=["wrong host", "unknown CA", "system's CAs", "expired"],
)
async def test_a_server_that_is_not_who_it_should_be_is_refused(
    server: ssl.SSLContext, client: ssl.SSLContext, host: str, words: str
) -> None:
    ours, theirs = await socket_pair()
    stream = TlsStream(ours, client, host)
    other: trio.SSLStream[trio.abc.Stream] = trio.SSLStream(theirs, server, server_side=True)
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def serve() -> None:
            # In TLS 1.3 the server is done before the client has judged; it hears of it by an alert.
            with pytest.raises(trio.BrokenResourceError) as heard:
                await other.receive_some()
            assert "ALERT" in str(heard.value.__cause__).upper()

        with pytest.raises(trio.BrokenResourceError) as caught:
            await stream.do_handshake()
        assert isinstance(caught.value.__cause__, ssl.SSLCertVerificationError)
        assert words in caught.value.__cause__.verify_message
        with pytest.raises(RuntimeError):
            await stream.receive_some()
        with pytest.raises(RuntimeError):
            await stream.send_all(b"secret")
        await stream.aclose()
    await trio.aclose_forcefully(other)


async def test_a_server_that_does_not_speak_tls_is_refused() -> None:
    ours, theirs = await socket_pair()
    stream = TlsStream(ours, CLIENT, HOST)
    await theirs.send_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    with pytest.raises(trio.BrokenResourceError):
        await stream.do_handshake()
    await trio.aclose_forcefully(stream)
    await theirs.aclose()


async def test_an_end_in_the_handshake_is_an_error() -> None:
    ours, theirs = await socket_pair()
    stream = TlsStream(ours, CLIENT, HOST)
    await theirs.aclose()
    with pytest.raises(trio.BrokenResourceError):
        await stream.do_handshake()
    await stream.aclose()


async def test_an_end_with_or_without_a_goodbye_is_an_end() -> None:
    for polite in (True, False):
        async with pair() as (client, other):
            await other.send_all(b"last words")
            await (other.aclose() if polite else other.transport_stream.aclose())
            assert await client.receive_some() == b"last words"
            assert await client.receive_some() == b""
            assert await client.receive_some() == b""


async def test_bytes_that_were_tampered_with_are_an_error_after_what_was_good() -> None:
    async with pair() as (client, other):
        await other.send_all(b"good")
        await other.transport_stream.send_all(b"\x17\x03\x03\x00\x20" + b"x" * 32)
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert await client.receive_some() == b"good"
        for _ in range(2):
            with pytest.raises(trio.BrokenResourceError):
                await client.receive_some()


async def test_a_cancelled_receive_loses_nothing() -> None:
    async with pair() as (client, other):
        received = b""
        for i in range(30):
            with trio.move_on_after(0):
                received += await client.receive_some()
            await other.send_all(b"%02d" % i)
            with trio.move_on_after(0.002):
                received += await client.receive_some()
        with trio.move_on_after(5):
            while len(received) < 60:
                received += await client.receive_some()
        assert received == b"".join(b"%02d" % i for i in range(30))


async def test_after_a_send_that_was_cut_sending_is_over_and_receiving_is_not() -> None:
    async with pair() as (client, other):
        with trio.move_on_after(0.05) as scope:
            while True:
                await client.send_all(b"x" * 1_000_000)
        assert scope.cancelled_caught
        with pytest.raises(trio.BrokenResourceError):
            await client.send_all(b"y")
        await other.send_all(b"still here")
        assert await client.receive_some() == b"still here"


async def test_closing_says_goodbye_to_a_peer_that_listens() -> None:
    async with pair() as (client, other):
        await client.aclose()
        # Not an error: trio.SSLStream would call an end without a goodbye broken.
        assert await other.receive_some() == b""
        await client.aclose()
        with pytest.raises(trio.ClosedResourceError):
            await client.receive_some()
        with pytest.raises(trio.ClosedResourceError):
            await client.send_all(b"x")


async def test_closing_does_not_wait_for_a_peer_that_does_not_read(
    autojump_clock: trio.testing.MockClock,
) -> None:
    class Full(trio.abc.Stream):
        """Takes what it is given until it is told to stop."""

        def __init__(self, inner: trio.abc.Stream) -> None:
            self.inner = inner
            self.is_full = False

        async def send_all(self, data: bytes | bytearray | memoryview) -> None:
            if self.is_full:
                await trio.sleep_forever()
            await self.inner.send_all(data)

        async def wait_send_all_might_not_block(self) -> None:
            await self.inner.wait_send_all_might_not_block()

        async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
            return await self.inner.receive_some(max_bytes)

        async def aclose(self) -> None:
            await self.inner.aclose()

    ours, theirs = trio.testing.memory_stream_pair()
    transport = Full(ours)
    client = TlsStream(transport, CLIENT, HOST, close_timeout_s=2)
    other: trio.SSLStream[trio.abc.Stream] = trio.SSLStream(theirs, SERVER, server_side=True)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(other.do_handshake)
        await client.do_handshake()
    transport.is_full = True
    started = trio.current_time()
    await client.aclose()
    assert trio.current_time() - started == pytest.approx(2)
    with pytest.raises(trio.ClosedResourceError):
        await ours.send_all(b"x")
    await trio.aclose_forcefully(other)


async def test_a_forced_close_is_immediate_and_wakes_up_who_waits() -> None:
    async with pair() as (client, _other), trio.open_nursery() as nursery:

        @nursery.start_soon
        async def wait() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await client.receive_some()

        await trio.testing.wait_all_tasks_blocked()
        await trio.aclose_forcefully(client)
