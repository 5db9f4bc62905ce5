"""The tap: a stream that stands under trio-websocket, and takes the data frames of each block out from under it.

One scheduler pass a message costs more than all else, so the messages of a block go to the caller as one
list, by one plain call. trio-websocket sees what is left: the handshake, pings and pongs, fragments, errors,
the close.
"""

from __future__ import annotations

import math
import re
import time
from collections import deque
from collections.abc import Callable
from typing import TypeAlias

import trio

from harvest.errors import HarvestError
from harvest.nurseries.frames import FrameSlicer
from harvest.venues.blocks import Block

OnFrames: TypeAlias = Callable[[Block, int, int], None]
"""Takes the payloads of a block in their order, its receive time (UTC nanoseconds), and the same instant on
the monotonic clock (nanoseconds)."""

#: What h11 takes for the end of a response's head.
_HEAD_END = re.compile(rb"\n\r?\n")
_STATUS = re.compile(rb"HTTP/\d\.\d (\d{3})\b")
_SWITCHING_PROTOCOLS = 101
#: Far more than h11 accepts, so that it is h11 who refuses.
_MAX_HEAD_BYTES = 64 * 1024


class HandshakeCutError(HarvestError):
    """The server ended the stream before the WebSocket was open; ``status`` is its HTTP status, if one came."""

    def __init__(self, status: int | None) -> None:
        self.status = status
        super().__init__(
            "the server ended the connection instead of answering"
            if status is None
            else f"the server answered HTTP {status} instead of 101"
        )


class Tap(trio.abc.Stream):
    """Wrap ``stream`` for trio-websocket, and hand its text messages to ``on_frames`` block by block.

    Bytes up to the end of the server's HTTP response pass; after it, of a WebSocket, whole text frames are
    taken out. Messages that need the slow way (fragmented or binary ones) come out of trio-websocket: give
    each to :meth:`deliver`, without an await in between, and the order of all messages is the server's.
    So somebody must always be waiting for trio-websocket's messages.

    ``on_frames`` is called from within :meth:`receive_some`, in the task that reads. What it raises does not
    go through there: it is stored in :attr:`error`, and the stream ends as if the server had gone.

    Closing the tap closes the stream under it.
    """

    def __init__(
        self,
        stream: trio.abc.Stream,
        on_frames: OnFrames,
        *,
        max_message_bytes: int,
        receive_bytes: int = 256 * 1024,
    ) -> None:
        #: What ``on_frames`` raised; no more calls follow.
        self.error: Exception | None = None
        #: How the stream under the tap broke, where it did not just end.
        self.broken: trio.BrokenResourceError | None = None
        #: When bytes came last, whatever they were; Trio's clock, seconds.
        self.received_at = -math.inf
        self._stream = stream
        self._on_frames = on_frames
        self._receive_bytes = receive_bytes
        self._slicer = FrameSlicer(max_message_bytes)
        self._passed_at: deque[tuple[int, int]] = deque()
        self._head = bytearray()
        self._opened = False
        self._refused = False
        self._early: tuple[bytes, int, int] | None = None
        self._muted = False

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Return the next bytes that are for trio-websocket; ``b""`` at the end of the stream.

        ``max_bytes`` bounds nothing: a frame is passed on whole, or it would be handled in pieces.

        Raises:
            HandshakeCutError: the stream ended before the WebSocket was open.
        """
        while self.error is None:
            if self._early is not None:
                data, recv_ns, mono_ns = self._early
                self._early = None
            else:
                try:
                    data = bytes(await self._stream.receive_some(self._receive_bytes))
                except trio.BrokenResourceError as error:
                    self.broken = error
                    data = b""
                recv_ns, mono_ns = time.time_ns(), time.monotonic_ns()
                self.received_at = trio.current_time()
            if not data:
                return self._end()
            passed = (
                self._feed(data, recv_ns, mono_ns)
                if self._opened
                else self._feed_head(data, recv_ns, mono_ns)
            )
            if passed:
                return passed
        await trio.lowlevel.checkpoint()
        return b""

    def deliver(self, message: str | bytes) -> None:
        """Hand a message that came out of trio-websocket to ``on_frames``, with the time its end was received."""
        recv_ns, mono_ns = self._passed_at.popleft()
        self._slicer.take()
        self._call([message.encode() if isinstance(message, str) else message], recv_ns, mono_ns)

    def mute(self) -> None:
        """Drop all data from now on: the connection is being closed, and nobody wants it."""
        self._muted = True

    def pass_all(self) -> None:
        """Take nothing out any more: trio-websocket has judged that the connection is at its end."""
        if not self._muted:
            self._slicer.pass_all()

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send all of ``data`` through the stream under the tap."""
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        """Wait as the stream under the tap does."""
        await self._stream.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        """Close the stream under the tap."""
        await self._stream.aclose()

    def _feed(self, data: bytes, recv_ns: int, mono_ns: int) -> bytes:
        untaken = self._slicer.untaken
        frames, passed = self._slicer.feed(data)
        if frames:
            self._call(frames, recv_ns, mono_ns)
        for _ in range(self._slicer.untaken - untaken):
            self._passed_at.append((recv_ns, mono_ns))
        return passed if self.error is None else b""

    def _feed_head(self, data: bytes, recv_ns: int, mono_ns: int) -> bytes:
        if self._refused:
            return data
        self._head += data
        end = _HEAD_END.search(self._head)
        if end is None and len(self._head) <= _MAX_HEAD_BYTES:
            return b""
        head = bytes(self._head)
        if end is None or self._status() != _SWITCHING_PROTOCOLS:
            self._refused = True
            return head
        self._opened = True
        # Frames that came in the same block wait for the next call, which says that the handshake was good.
        if len(head) > end.end():
            self._early = head[end.end() :], recv_ns, mono_ns
        return head[: end.end()]

    def _status(self) -> int | None:
        status = _STATUS.match(self._head)
        return int(status[1]) if status else None

    def _end(self) -> bytes:
        if not self._opened:
            raise HandshakeCutError(self._status())
        # What waited for its rest goes on: trio-websocket may see in it why the connection ended.
        return self._slicer.flush()

    def _call(self, frames: Block, recv_ns: int, mono_ns: int) -> None:
        if self._muted or self.error is not None:
            return
        try:
            self._on_frames(frames, recv_ns, mono_ns)
        except Exception as error:
            self.error = error
