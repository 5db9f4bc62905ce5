"""One WebSocket connection: what it is subscribed to, what waits to be sent, pings, limits, its end."""

from __future__ import annotations

import socket
import struct
import time
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import trio
from wsproto.connection import ConnectionState
from wsproto.events import CloseConnection, Ping, Pong, TextMessage
from wsproto.utilities import LocalProtocolError, RemoteProtocolError

from harvest.simulator.frames import fragmented_text, text_frame
from harvest.simulator.requests import answer
from harvest.simulator.streams import StreamKey, parse_stream
from harvest.simulator.tampering import Outgoing, Tampering

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from wsproto import WSConnection

    from harvest.simulator.fault import Target
    from harvest.simulator.rules import Route
    from harvest.simulator.state import VenueState

_SEND_BYTES: Final = 256 * 1024
_CLOSE_S: Final = 1.0
_REQUEST_CHARS: Final = 256 * 1024
#: Between fragments, pings come at most so often: a client must answer each, and may not say much in a second.
_FRAGMENTED_PING_S: Final = 1.0


def reset_on_close(stream: trio.abc.Stream) -> None:
    """Let the close of a stream be a TCP reset, that loses what was not sent."""
    raw = getattr(stream, "transport_stream", stream)
    if isinstance(raw, trio.SocketStream):
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


class Connection:
    """A WebSocket connection after its handshake. `run` it; it ends when either side does.

    ``route`` is where it came in; ``combined`` wraps every message with its stream's name. Messages are
    queued by `send` and `send_text` without waiting; the queue is the caller's to bound, by `room`.
    """

    def __init__(
        self,
        state: VenueState,
        stream: trio.abc.Stream,
        protocol: WSConnection,
        *,
        route: Route,
        combined: bool,
        micro: bool,
    ) -> None:
        state.connections_seen += 1
        self.number = state.connections_seen
        self.route = route
        self.combined = combined
        self.micro = micro
        self.opened_at = trio.current_time()
        #: On spot the event time is stamped for each connection; of eight in a row no two agree.
        self.late_us = 0 if state.rules.futures else self.number % 8 * 1000 + 300
        self.tampering = Tampering(state.config.seed * 1_000_003 + self.number)
        self.silenced: list[Target] = []
        self.queued_bytes = 0
        self._state = state
        self._stream = stream
        self._protocol = protocol
        self._streams: dict[str, StreamKey | None] = {}
        self._forgotten: set[str] = set()
        self._frames: deque[tuple[bytes, str | None, int | None]] = deque()
        self._waiting = trio.lowlevel.ParkingLot()
        self._roomless = trio.lowlevel.ParkingLot()
        self._scope = trio.CancelScope()
        self._closing = False
        self._ended = False
        self._text = ""
        self._incoming: deque[float] = deque()
        self._pings: dict[bytes, None] = {}
        self._last_pong = self.opened_at
        self._next_fragmented_ping = self.opened_at

    @property
    def stream_names(self) -> list[str]:
        """The names of its streams, in the order of their subscription."""
        return [name for name in self._streams if name not in self._forgotten]

    @property
    def stream_limit(self) -> int:
        """How many streams the venue lets it have."""
        return self._state.rules.streams_per_connection

    def subscribe(self, names: Iterable[str]) -> None:
        """Add streams; unknown ones are accepted, and stay silent."""
        for name in names:
            self._streams[name] = parse_stream(name, self._state.rules)
            self._forgotten.discard(name)
        self._state.mark_subscribed()

    def unsubscribe(self, names: Iterable[str]) -> None:
        """Remove streams."""
        for name in names:
            self._streams.pop(name, None)
        self._state.mark_changed()

    def forget(self, target: Target) -> None:
        """Lose subscriptions without a word."""
        self._forgotten.update(name for name, key in self._streams.items() if key and target.hits(key))
        self._state.mark_changed()

    def carries(self, target: Target) -> bool:
        """Say whether it is subscribed to any stream that is meant."""
        return any(key is not None and target.hits(key) for key in self._streams.values())

    def audible(self) -> Iterator[tuple[str, StreamKey]]:
        """Give the streams that flow: known, on their own route, and not struck by a fault."""
        if self._closing or self._ended:
            return
        standing = self._state.standing
        for name, key in self._streams.items():
            if key is None or name in self._forgotten:
                continue
            if self._state.rules.futures and (key.route != self.route or standing.mutes(self.route)):
                continue
            if key.symbol in standing.delisted or (key.symbol is not None and standing.halts(key.symbol)):
                continue
            if any(target.hits(key) for target in self.silenced) or standing.silences_new(
                key, self.opened_at
            ):
                continue
            yield name, key

    def send(self, key: StreamKey, name: str, text: bytes, stream_id: int | None) -> None:
        """Queue a message of a stream, as the faults of this connection leave it.

        A client that is too far behind loses the connection.
        """
        if self.queued_bytes > self._state.config.backlog_bytes:
            self.reset()
            return
        message = Outgoing(name, text, stream_id)
        for one in self.tampering.apply(key, message) if self.tampering else (message,):
            payload = self._wrapped(one.name, one.text)
            now = trio.current_time()
            if now < self._state.standing.fragment_until and len(payload) > 2:
                ping_between = now >= self._next_fragmented_ping
                if ping_between:
                    self._next_fragmented_ping = now + _FRAGMENTED_PING_S
                frame = fragmented_text(payload, ping_between=ping_between)
            else:
                frame = text_frame(payload)
            real = one.stream_id is not None or one is message
            self.send_frame(frame, one.name if real else None, one.stream_id)

    def send_frame(self, frame: bytes, name: str | None, stream_id: int | None) -> None:
        """Queue a ready frame; with a name it is accounted for once it was sent."""
        if self._closing or self._ended:
            return
        self._frames.append((frame, name, stream_id))
        self.queued_bytes += len(frame)
        if self._waiting:
            self._waiting.unpark()

    def notify_shutdown(self, event_time_ms: int) -> None:
        """Queue the venue's notice that it will cut the connection."""
        notice = b'{"e":"serverShutdown","E":%d}' % event_time_ms
        self.send_frame(text_frame(self._wrapped("!serverShutdown", notice)), None, None)

    async def room(self, most_bytes: int) -> None:
        """Wait until at most so many bytes are queued, or it has ended."""
        while self.queued_bytes > most_bytes and not self._ended:
            await self._roomless.park()

    def close(self, code: int, reason: str) -> None:
        """Send a close frame after what is queued, and give the client a second to answer."""
        if self._closing or self._ended:
            return
        with suppress(LocalProtocolError):
            self.send_frame(self._protocol.send(CloseConnection(code=code, reason=reason)), None, None)
        self._finish()

    def reset(self) -> None:
        """End it with a TCP reset, whatever is queued."""
        reset_on_close(self._stream)
        self._frames.clear()
        self._scope.cancel()

    async def run(self) -> None:
        """Serve it until it ends; the stream is closed then, in whatever way."""
        self._state.connections[self.number] = self
        self._state.mark_changed()
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._write)
                    nursery.start_soon(self._keep_alive)
                    await self._read()
                    self._finish()
        finally:
            self._ended = True
            self._roomless.unpark_all()
            del self._state.connections[self.number]
            self._state.mark_changed()
            await trio.aclose_forcefully(self._stream)

    def _wrapped(self, name: str, text: bytes) -> bytes:
        return b'{"stream":"%b","data":%b}' % (name.encode(), text) if self.combined else text

    def _finish(self) -> None:
        self._closing = True
        self._scope.deadline = min(self._scope.deadline, trio.current_time() + _CLOSE_S)
        self._waiting.unpark()
        self._state.mark_changed()

    async def _write(self) -> None:
        while True:
            while not self._frames:
                if self._closing and self._protocol.state is not ConnectionState.LOCAL_CLOSING:
                    self._scope.cancel()
                await self._waiting.park()
            await self._state.standing.gate.passed()
            batch: list[bytes] = []
            messages: list[tuple[str, int | None]] = []
            size = 0
            while self._frames and size < _SEND_BYTES:
                frame, name, stream_id = self._frames.popleft()
                batch.append(frame)
                size += len(frame)
                if name is not None:
                    messages.append((name, stream_id))
            try:
                await self._stream.send_all(b"".join(batch))
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                self._scope.cancel()
                return
            self.queued_bytes -= size
            self._state.sent.record(self.number, messages)
            self._roomless.unpark_all()

    async def _read(self) -> None:
        while True:
            try:
                for event in self._protocol.events():
                    if isinstance(event, CloseConnection):
                        if self._protocol.state is ConnectionState.REMOTE_CLOSING:
                            self.send_frame(self._protocol.send(event.response()), None, None)
                        return
                    self._receive(event)
                await self._state.standing.gate.passed()
                data = await self._stream.receive_some()
                if not data:
                    return
                self._protocol.receive_data(bytes(data))
            except RemoteProtocolError as error:
                self.close(
                    error.event_hint.code if isinstance(error.event_hint, CloseConnection) else 1002, ""
                )
                return
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                return

    def _receive(self, event: object) -> None:
        now = trio.current_time()
        if isinstance(event, TextMessage):
            self._text += event.data
            if len(self._text) > _REQUEST_CHARS:
                self.close(1009, "Message too big")
                return
            if not event.message_finished:
                return
            text, self._text = self._text, ""
            self.send_frame(text_frame(answer(text, self)), None, None)
        elif isinstance(event, Ping):
            # A ping that crosses our close frame on its way is left unanswered: nothing may follow a close.
            if now >= self._state.standing.no_pong_until and not self._closing:
                self.send_frame(self._protocol.send(event.response()), None, None)
        elif isinstance(event, Pong) and bytes(event.payload) in self._pings:
            self._pings.clear()
            self._last_pong = now
        self._incoming.append(now)
        while self._incoming[0] <= now - 1.0:
            self._incoming.popleft()
        if len(self._incoming) > self._state.rules.messages_per_s:
            self.close(1008, "Too many requests")

    async def _keep_alive(self) -> None:
        rules, life_s = self._state.rules, self._state.config.connection_life_s
        next_ping = self.opened_at + rules.ping_interval_s
        while True:
            late = self._last_pong + rules.pong_deadline_s
            end = self.opened_at + life_s
            await trio.sleep_until(min(next_ping, late, end))
            now = trio.current_time()
            if self._state.standing.gate.is_closed:
                # Pongs that came meanwhile were not read: the client is not to blame.
                await self._state.standing.gate.passed()
                self._last_pong = trio.current_time()
            elif now >= end:
                self.close(1008, "disconnected")
                return
            elif now >= self._last_pong + rules.pong_deadline_s:
                self.close(1008, "Pong timeout")
                return
            elif now >= next_ping and not self._closing:
                payload = b"%d" % (time.time_ns() // 1_000_000)
                self._pings[payload] = None
                self.send_frame(self._protocol.send(Ping(payload=payload)), None, None)
                next_ping = now + rules.ping_interval_s
