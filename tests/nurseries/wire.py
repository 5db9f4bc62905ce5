"""The other side of a WebSocket, by hand: frames as bytes, the answer to the handshake, a stream by script."""

from __future__ import annotations

import base64
import hashlib
import re
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import trio

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable

TEXT, BINARY, CONTINUATION, CLOSE, PING, PONG = 0x1, 0x2, 0x0, 0x8, 0x9, 0xA


def frame(
    payload: bytes, opcode: int = TEXT, *, fin: bool = True, rsv: int = 0, masked: bool = False
) -> bytes:
    """Build a frame as a server does; with ``rsv`` or ``masked`` as it must not."""
    size = len(payload)
    mask_bit = 0x80 if masked else 0
    head = bytes([(0x80 if fin else 0) | rsv << 4 | opcode])
    if size < 126:
        head += bytes([mask_bit | size])
    elif size < 1 << 16:
        head += bytes([mask_bit | 126]) + size.to_bytes(2)
    else:
        head += bytes([mask_bit | 127]) + size.to_bytes(8)
    if masked:
        head += b"\0\0\0\0"
    return head + payload


def switching_protocols(request: bytes) -> bytes:
    """Answer the upgrade request of a client."""
    key = re.search(rb"(?i)sec-websocket-key: *(\S+)", request)
    assert key is not None
    accept = base64.b64encode(hashlib.sha1(key[1] + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n"
    )


def unmask(sent: bytes) -> list[tuple[int, bytes]]:
    """Take apart what a client sent: first byte and payload of each frame."""
    frames = []
    pos = 0
    while pos < len(sent):
        first, length = sent[pos], sent[pos + 1] & 0x7F
        pos += 2
        if length == 126:
            length = int.from_bytes(sent[pos : pos + 2])
            pos += 2
        mask = sent[pos : pos + 4]
        payload = bytes(byte ^ mask[i % 4] for i, byte in enumerate(sent[pos + 4 : pos + 4 + length]))
        frames.append((first, payload))
        pos += 4 + length
    return frames


class ScriptedStream(trio.abc.Stream):
    """A server that answers the handshake, sends given pieces, and ends; it keeps what was sent to it.

    Each piece comes with one ``receive_some``; the first may come together with the answer to the handshake.
    """

    def __init__(self, pieces: Iterable[bytes], *, with_answer: bool = False) -> None:
        self.sent = b""
        self.is_closed = False
        self._pieces = list(pieces)
        self._with_answer = with_answer
        self._is_answered = False
        self._rest = b""

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await trio.lowlevel.checkpoint()
        if self._is_answered:
            self.sent += bytes(data)
            return
        self._is_answered = True
        self._rest = switching_protocols(bytes(data))
        if self._with_answer and self._pieces:
            self._rest += self._pieces.pop(0)

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        await trio.lowlevel.checkpoint()
        if self.is_closed:
            raise trio.ClosedResourceError
        if not self._rest and self._pieces:
            self._rest = self._pieces.pop(0)
        data, self._rest = self._rest[:max_bytes], self._rest[max_bytes or len(self._rest) :]
        return data

    async def aclose(self) -> None:
        self.is_closed = True
        await trio.lowlevel.checkpoint()


def cut(data: bytes, offsets: Iterable[int]) -> list[bytes]:
    """Cut bytes at the offsets; no piece is empty."""
    bounds = [0, *sorted({offset for offset in offsets if 0 < offset < len(data)}), len(data)]
    return [data[start:stop] for start, stop in pairwise(bounds) if start < stop]


@asynccontextmanager
async def raw_server(
    talk: Callable[[trio.SocketStream], Awaitable[None]], *, shakes_hands: bool = True
) -> AsyncIterator[str]:
    """Serve by hand, or only what comes after the handshake; give the URL."""

    async def handle(stream: trio.SocketStream) -> None:
        if shakes_hands:
            request = b""
            while not request.endswith(b"\r\n\r\n"):
                request += await stream.receive_some()
            await stream.send_all(switching_protocols(request))
        await talk(stream)

    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, handle, listeners)
        yield f"ws://127.0.0.1:{listeners[0].socket.getsockname()[1]}/ws/stream"
        nursery.cancel_scope.cancel()


class Peer:
    """The other end of a connection in memory."""

    def __init__(self, stream: trio.StapledStream[Any, Any]) -> None:
        self.stream = stream
        self.received = b""

    async def shake_hands(self) -> None:
        await self.stream.send_all(switching_protocols(bytes(await self.stream.receive_some())))

    async def next_frame(self, opcode: int) -> bytes:
        """Read until a frame of this kind comes, and return its payload."""
        while True:
            self.received += bytes(await self.stream.receive_some())
            for first, payload in unmask(self.received):
                if first & 0xF == opcode:
                    self.received = b""
                    return payload
