"""Fewer wake-ups: after a read that found little, a rest, so that what comes meanwhile is read at one stroke."""

from __future__ import annotations

import math

import trio

#: The rest is for data that comes this many times as often as the rest is long, or more.
_RATHER_OFTEN = 2.0


class CoalescingStream(trio.abc.Stream):
    """Rest for ``pause_s`` between two reads of ``transport``, as long as data comes rather often, and little of it at once.

    A quiet stream is read as soon as something comes. What comes during a rest is read, and so has its receive time, up to
    ``pause_s`` later. It stands below TLS, so that records of many wake-ups are decrypted in one.
    """

    def __init__(self, transport: trio.abc.Stream, pause_s: float) -> None:
        self._transport = transport
        self._pause_s = pause_s
        self._read_at = -math.inf
        self._rests = False

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Return what is there after the rest, as the transport does; a cancelled call loses nothing."""
        if self._rests:
            await trio.sleep_until(self._read_at + self._pause_s)
        data = bytes(await self._transport.receive_some(max_bytes))
        now = trio.current_time()
        is_little = max_bytes is None or len(data) < max_bytes
        self._rests = is_little and now - self._read_at < _RATHER_OFTEN * self._pause_s
        self._read_at = now
        return data

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send all of ``data``."""
        await self._transport.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        """Wait as the transport does."""
        await self._transport.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        """Close the transport."""
        await self._transport.aclose()
