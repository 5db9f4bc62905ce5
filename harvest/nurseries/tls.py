"""A TLS client stream that gives all the plaintext of a wake-up at once.

trio.SSLStream gives one TLS record a call, and a record is often one message. Here the received bytes go
through ``ssl.MemoryBIO`` objects and are decrypted until OpenSSL wants more, so that a block of many records
costs one call.
"""

from __future__ import annotations

import functools
import ssl
from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar

import trio

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

#: The most plaintext that one TLS record holds.
_RECORD_BYTES = 16 * 1024


@functools.cache
def default_context() -> ssl.SSLContext:
    """Return the system's default context: certificates and host names are verified. One serves all."""
    return ssl.create_default_context()


class TlsStream(trio.abc.Stream):
    """Speak TLS as a client over ``transport``, which from now on belongs to this stream.

    Call :meth:`do_handshake` first, under a deadline of yours. ``server_hostname`` is what the certificate is
    verified against, and what the server is told (SNI). One task may send while another receives. An end
    without TLS's own goodbye is an end like any other: WebSocket frames say themselves whether they are whole.

    A cancelled :meth:`receive_some` loses nothing; a cancelled :meth:`send_all` may leave a cut record, after
    which sending raises trio.BrokenResourceError.
    """

    def __init__(
        self,
        transport: trio.abc.Stream,
        context: ssl.SSLContext,
        server_hostname: str,
        *,
        close_timeout_s: float = 2.0,
        receive_bytes: int = 256 * 1024,
    ) -> None:
        self._transport = transport
        self._close_timeout_s = close_timeout_s
        self._receive_bytes = receive_bytes
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=server_hostname)
        self._ready = False
        self._closed = False
        self._ended = False
        self._failure: Exception | None = None
        self._send_cut = False
        self._sending = False
        self._receiving = False
        self._flush_lock = trio.StrictFIFOLock()
        self._feeding = False
        self._fed = trio.lowlevel.ParkingLot()

    async def do_handshake(self) -> None:
        """Shake hands and verify the server; cancelled or failed, the stream is only good for closing.

        Raises:
            trio.BrokenResourceError: with the ssl.SSLError (such as ssl.SSLCertVerificationError) as its cause,
                or as the transport raised it.
        """
        try:
            await self._advance(self._tls.do_handshake)
        except trio.BrokenResourceError:
            # The alert tells the server's operator what was wrong.
            with suppress(trio.BrokenResourceError):
                await self._flush()
            raise
        self._ready = True

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Encrypt and send all of ``data``."""
        if self._sending:
            raise trio.BusyResourceError("another task is sending on this stream")
        self._sending = True
        try:
            self._check()
            await trio.lowlevel.checkpoint()
            view = memoryview(data)
            for start in range(0, len(view), self._receive_bytes):
                await self._advance(
                    functools.partial(self._tls.write, view[start : start + self._receive_bytes])
                )
        finally:
            self._sending = False

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until the transport would take data."""
        if self._sending:
            raise trio.BusyResourceError("another task is sending on this stream")
        self._sending = True
        try:
            self._check()
            async with self._flush_lock:
                await self._transport.wait_send_all_might_not_block()
        finally:
            self._sending = False

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Return all plaintext that is there, at most ``max_bytes``; ``b""`` at the end of the stream."""
        if max_bytes is not None and max_bytes < 1:
            raise ValueError("max_bytes must be at least 1")
        if self._receiving:
            raise trio.BusyResourceError("another task is receiving on this stream")
        self._receiving = True
        try:
            self._check()
            await trio.lowlevel.checkpoint_if_cancelled()
            has_waited = False
            while True:
                plain = self._decrypt(max_bytes or self._receive_bytes)
                if plain is not None:
                    if not has_waited:
                        await trio.lowlevel.cancel_shielded_checkpoint()
                    return plain
                # Plaintext is never in hand here, so that a cancellation loses none.
                await self._make_progress()
                has_waited = True
        finally:
            self._receiving = False

    async def aclose(self) -> None:
        """Say goodbye, not waiting for an answer and only for ``close_timeout_s``, and close the transport.

        Cancelled, or by ``trio.aclose_forcefully``, it closes the transport at once.
        """
        if self._closed:
            await trio.lowlevel.checkpoint()
            return
        self._closed = True
        try:
            if self._ready and self._failure is None:
                with suppress(ssl.SSLError):
                    self._tls.unwrap()
                with trio.move_on_after(self._close_timeout_s), suppress(trio.BrokenResourceError):
                    await self._flush()
        finally:
            await trio.aclose_forcefully(self._transport)

    def _check(self) -> None:
        if self._closed:
            raise trio.ClosedResourceError("this stream is closed")
        if not self._ready:
            raise RuntimeError("call do_handshake() first")

    def _decrypt(self, limit: int) -> bytes | None:
        """Return the plaintext that is there, ``b""`` at the end, None when more bytes are needed."""
        parts: list[bytes] = []
        if not self._ended and self._failure is None:
            read, append = self._tls.read, parts.append
            # A record is often one message: this loop turns once for each.
            try:
                while limit > 0:
                    part = read(_RECORD_BYTES if limit >= _RECORD_BYTES else limit)
                    if not part:
                        self._ended = True
                        break
                    append(part)
                    limit -= len(part)
            except ssl.SSLWantReadError:
                pass
            except (ssl.SSLEOFError, ssl.SSLZeroReturnError):
                self._ended = True
            except ssl.SSLError as error:
                self._failure = error
        if parts:
            return parts[0] if len(parts) == 1 else b"".join(parts)
        if self._failure is not None:
            raise trio.BrokenResourceError(str(self._failure)) from self._failure
        return b"" if self._ended else None

    async def _advance(self, operation: Callable[[], T]) -> T:
        """Run an operation of OpenSSL, sending and receiving what it needs, until it has succeeded and is sent."""
        while True:
            if self._failure is not None:
                raise trio.BrokenResourceError(str(self._failure)) from self._failure
            try:
                result = operation()
            except ssl.SSLWantReadError:
                await self._make_progress()
            except ssl.SSLError as error:
                self._failure = error
            else:
                await self._flush()
                return result

    async def _make_progress(self) -> None:
        """Send what waits to be sent, or else receive; never both.

        While this waits, another task may bring the stream forward, so OpenSSL has to be asked again after
        each wait.
        """
        if self._outgoing.pending:
            await self._flush()
        else:
            await self._feed()

    async def _flush(self) -> None:
        async with self._flush_lock:
            # Taken with the lock held: the order of records is the order on the wire.
            data = self._outgoing.read()
            if not data:
                return
            if self._send_cut:
                raise trio.BrokenResourceError("an earlier send was cut in the middle of a record")
            self._send_cut = True
            await self._transport.send_all(data)
            self._send_cut = False

    async def _feed(self) -> None:
        if self._feeding:
            await self._fed.park()
            return
        self._feeding = True
        try:
            data = await self._transport.receive_some(self._receive_bytes)
            if data:
                self._incoming.write(data)
            else:
                self._incoming.write_eof()
        finally:
            self._feeding = False
            self._fed.unpark_all()
