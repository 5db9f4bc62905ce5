"""One WebSocket connection: opened, kept alive and closed, each under a deadline.

```
open_connection        its finally closes the socket, whatever happened
└── nursery
    ├── carry          holds trio-websocket's reader: what that raises becomes the reason of the loss
    ├── consume        takes the messages that came the slow way, always
    └── keep alive     pings
```
These tasks never raise what is to be expected of a network: they note why the connection was lost, and
:meth:`Connection.run` raises it in the caller's own task.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, NoReturn

import h11
import trio
from trio_websocket import ConnectionClosed, ConnectionRejected, WebSocketConnection, wrap_client_stream
from wsproto.utilities import ProtocolError

from harvest.nurseries.dial import (
    Address,
    AddressError,
    ConnectionLostError,
    ConnectionRejectedError,
    describe,
    dial,
    phase,
)
from harvest.nurseries.tap import HandshakeCutError, OnFrames, Tap

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator

__all__ = [
    "AddressError",
    "Connection",
    "ConnectionLostError",
    "ConnectionRejectedError",
    "OnFrames",
    "open_connection",
]

#: What trio-websocket's reader raises when a server does not speak the protocol, or not now.
_READER_ERRORS = (ConnectionRejected, HandshakeCutError, ProtocolError, h11.ProtocolError, UnicodeError)
#: A loop that wakes up this much late was stalled itself, and judges nobody's silence.
_OWN_STALL_S = 0.25
_ABNORMAL_CLOSURE = 1006
_MAX_BODY_CHARS = 200


class Connection:
    """An open WebSocket, as :func:`open_connection` gives it."""

    def __init__(self, address: Address, tap: Tap, *, ping_timeout_s: float) -> None:
        self._address = address
        self._tap = tap
        self._ping_timeout_s = ping_timeout_s
        self._websocket: WebSocketConnection | None = None
        self._loss: ConnectionLostError | None = None
        self._lost = trio.Event()
        self._reader_ended = trio.Event()
        self._closing = trio.CancelScope()

    @property
    def url(self) -> str:
        """The URL it was opened with."""
        return self._address.url

    async def send(self, text: str) -> None:
        """Send a text message.

        Raises:
            ConnectionLostError: the connection has ended.
            Exception: what ``on_frames`` raised before.
        """
        try:
            await self._opened.send_message(text)
        except ConnectionClosed as closed:
            self._lose(self._explain(closed))
        else:
            return
        self._raise_loss()

    async def ping(self) -> None:
        """Ping the server, and wait for its pong at most the ``ping_timeout_s`` of the connection, from what came last on.

        Without a pong the connection is given up, and :meth:`run` says so too.

        Raises:
            ConnectionLostError: no pong came in time, or the connection has ended.
            Exception: what ``on_frames`` raised before.
        """
        while not await self._is_answered():
            if self._lost.is_set():
                self._raise_loss()

    async def run(self) -> NoReturn:
        """Wait until the connection ends, by whichever side, and raise why.

        Messages go to ``on_frames`` whether this is waiting or not.

        Raises:
            ConnectionLostError: the connection has ended.
            Exception: what ``on_frames`` raised.
        """
        await self._lost.wait()
        self._raise_loss()

    @property
    def _opened(self) -> WebSocketConnection:
        assert self._websocket is not None, "open_connection gives it before anybody sees this object"
        return self._websocket

    async def _carry(self, max_message_bytes: int, *, task_status: trio.TaskStatus[None]) -> None:
        # Documented to be any Trio stream, and hinted more narrowly.
        stream: Any = self._tap
        try:
            async with trio.open_nursery() as nursery:
                self._websocket = await wrap_client_stream(
                    nursery,
                    stream,
                    self._address.host_header,
                    self._address.target,
                    max_message_size=max_message_bytes,
                )
                task_status.started()
        except BaseExceptionGroup as group:
            expected, others = group.split(_READER_ERRORS)
            if others is not None:
                raise others from None
            assert expected is not None, "a split group has members on one side at least"
            loss = self._explain_reader(_first_of(expected))
        else:
            return
        finally:
            self._reader_ended.set()
            # There is nobody left to hear the server's answer to a close.
            self._closing.cancel()
        if self._websocket is None:
            raise loss
        self._lose(loss)

    async def _consume(self) -> None:
        try:
            while self._tap.error is None:
                self._tap.deliver(await self._opened.get_message())
        except ConnectionClosed as closed:
            self._tap.pass_all()
            if closed.reason is None:
                await self._reader_ended.wait()
            self._lose(self._explain(closed))
        else:
            self._lost.set()

    async def _keep_alive(self, interval_s: float) -> None:
        while not self._lost.is_set():
            await trio.sleep(interval_s)
            while not await self._is_answered():
                if self._lost.is_set():
                    return

    async def _is_answered(self) -> bool:
        """Ping once; False where the connection is lost, or where our own stall leaves it open."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._wait_for_silence, nursery.cancel_scope)
            try:
                await self._opened.ping()
            except ConnectionClosed as closed:
                self._lose(self._explain(closed))
            nursery.cancel_scope.cancel()
            return not self._lost.is_set()
        return False

    async def _wait_for_silence(self, ping: trio.CancelScope) -> None:
        """End a ping when nothing at all has come for as long as its pong may take: that may stand behind megabytes of data."""
        heard_at = trio.current_time()
        # An event a block would cost more than a look now and then.
        while (due := max(heard_at, self._tap.received_at) + self._ping_timeout_s) > trio.current_time():  # noqa: ASYNC110
            await trio.sleep_until(due)
        ping.cancel()
        if trio.current_time() - due < _OWN_STALL_S:
            self._lose(ConnectionLostError(self.url, "ping", f"no pong within {self._ping_timeout_s:g} s"))
            # Wakes up whoever waits on the socket; to a peer that is gone there is nothing to be said.
            await trio.aclose_forcefully(self._tap)

    async def _close(self, timeout_s: float) -> None:
        """Close politely where there is somebody to hear it."""
        self._tap.mute()
        if self._websocket is not None and not self._lost.is_set():
            with trio.move_on_after(timeout_s), self._closing:
                await self._websocket.aclose()

    def _lose(self, loss: ConnectionLostError) -> None:
        if self._loss is None:
            self._loss = loss
        self._lost.set()

    def _raise_loss(self) -> NoReturn:
        # Before all else: to trio-websocket an error of on_frames looks like a connection that just ended.
        if self._tap.error is not None:
            raise self._tap.error
        assert self._loss is not None, "the event of the loss is set after its reason"
        raise self._loss

    def _explain(self, closed: ConnectionClosed) -> ConnectionLostError:
        code = closed.reason.code if closed.reason else _ABNORMAL_CLOSURE
        reason = closed.reason.reason if closed.reason else None
        if closed.reason is None or code == _ABNORMAL_CLOSURE:
            cause = describe(self._tap.broken) if self._tap.broken else "the stream ended without a close"
        else:
            name = closed.reason.name.lower().replace("_", " ")
            cause = f"closed with {code} ({name})" + (f": {reason}" if reason else "")
        return ConnectionLostError(self.url, "open", cause, code=code, reason=reason)

    def _explain_reader(self, error: BaseException) -> ConnectionLostError:
        if isinstance(error, ConnectionRejected):
            headers = {name.lower(): value for name, value in error.headers}
            body = (error.body or b"").decode(errors="replace")[:_MAX_BODY_CHARS]
            retry_after = headers[b"retry-after"].decode("latin-1") if b"retry-after" in headers else None
            return ConnectionRejectedError(self.url, error.status_code, retry_after, body)
        if isinstance(error, HandshakeCutError) and error.status is not None:
            return ConnectionRejectedError(self.url, error.status, None, "")
        if self._websocket is not None and self._websocket.closed is not None:
            # It was closing already, and could not answer a ping any more.
            return self._explain(ConnectionClosed(self._websocket.closed))
        # The first error is the server's; those raised over it are about our answer to it.
        while error.__context__ is not None:
            error = error.__context__
        return ConnectionLostError(self.url, "open" if self._websocket else "handshake", describe(error))


@asynccontextmanager
async def open_connection(
    url: str,
    *,
    on_frames: OnFrames,
    ssl_context: ssl.SSLContext | None = None,
    allow_insecure: bool = False,
    connect_timeout_s: float = 10.0,
    close_timeout_s: float = 2.0,
    ping_interval_s: float | None = 20.0,
    ping_timeout_s: float = 10.0,
    max_message_bytes: int = 16 * 2**20,
    receive_bytes: int = 256 * 1024,
    coalesce_s: float = 0.0,
) -> AsyncIterator[Connection]:
    """Open a WebSocket, and close it at the end of the ``async with`` block.

    ``on_frames`` is called for each received block, synchronously and in the order of messages, with its
    payloads (text as UTF-8), its receive time (UTC nanoseconds) and the same on the monotonic clock; from
    before the block is entered (a server may send at once) until it is left. What it raises,
    :meth:`Connection.run` raises. ``connect_timeout_s`` bounds name, TCP, TLS and WebSocket handshake
    together. ``coalesce_s`` is the rest between two reads. A ``ping_interval_s`` of None leaves out the
    keepalive. Certificates and host names are always verified; plain ``ws://`` leads to this machine only,
    unless ``allow_insecure``.

    Left regularly or by an error, the connection is closed politely, within ``close_timeout_s``; cancelled,
    at once and without a word. Either way the socket is closed when the block has been left.

    Raises:
        AddressError: the URL is not one to connect to.
        ConnectionLostError: the connection did not open; its ``phase`` says how far it came.
    """
    address = Address.parse(url, allow_insecure=allow_insecure)
    deadline = trio.current_time() + connect_timeout_s
    stream = await dial(
        address,
        deadline=deadline,
        timeout_s=connect_timeout_s,
        ssl_context=ssl_context,
        close_timeout_s=close_timeout_s,
        receive_bytes=receive_bytes,
        coalesce_s=coalesce_s,
    )
    # An error of the block is raised outside of the nursery, which would wrap it in a group.
    failure: BaseException | None = None
    try:
        tap = Tap(stream, on_frames, max_message_bytes=max_message_bytes, receive_bytes=receive_bytes)
        connection = Connection(address, tap, ping_timeout_s=ping_timeout_s)
        async with trio.open_nursery() as nursery:
            try:
                with phase(url, "handshake", deadline, connect_timeout_s):
                    await nursery.start(connection._carry, max_message_bytes)
                nursery.start_soon(connection._consume)
                if ping_interval_s is not None:
                    nursery.start_soon(connection._keep_alive, ping_interval_s)
                yield connection
            except BaseException as error:
                failure = error
            if failure is None or isinstance(failure, Exception):
                await connection._close(close_timeout_s)
            nursery.cancel_scope.cancel()
    except BaseException as error:
        # A cancellation that comes while closing does not hide the error of the block.
        if failure is None or not _is_cancellation(error):
            raise
    finally:
        # Shielded, for the same reason; it returns at once.
        with trio.CancelScope(shield=True):
            await trio.aclose_forcefully(stream)
    if failure is not None:
        raise failure


def _is_cancellation(error: BaseException) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return error.split(trio.Cancelled)[1] is None
    return isinstance(error, trio.Cancelled)


def _first_of(group: BaseExceptionGroup[BaseException]) -> BaseException:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
