"""The front door: reads HTTP, answers REST requests, and hands WebSocket handshakes over."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qs, unquote, urlsplit

import attrs
import h11
import trio
from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, Request
from wsproto.utilities import RemoteProtocolError

from harvest.simulator.connection import Connection, reset_on_close

if TYPE_CHECKING:
    from harvest.simulator.clock import VenueClock
    from harvest.simulator.rest import Response, RestSide
    from harvest.simulator.rules import Route, VenueRules
    from harvest.simulator.state import VenueState

_READ_BYTES: Final = 64 * 1024
#: A handshake may name a thousand streams in its address.
_HEAD_BYTES: Final = 128 * 1024
_ROUTES: Final[dict[str, Route]] = {"public": "public", "market": "market", "private": "private"}


@attrs.frozen
class Door:
    """Where a WebSocket came in: its route, whether messages are wrapped, and the streams of its address."""

    route: Route
    combined: bool
    names: tuple[str, ...]
    micro: bool


def find_door(target: str, rules: VenueRules) -> Door | None:
    """Read the address of a WebSocket handshake; None where the venue has no such path."""
    parts = urlsplit(target)
    words = [unquote(word) for word in parts.path.split("/") if word]
    query = parse_qs(parts.query)
    route: Route = "none"
    if rules.futures and words and words[0] in _ROUTES:
        route = _ROUTES[words.pop(0)]
    micro = not rules.futures and query.get("timeUnit", [""])[0].upper() in ("MICROSECOND", "MICROSECONDS")
    match words:
        case ["ws", *names]:
            return Door(route, False, tuple(names), micro)
        case ["stream"]:
            listed = query.get("streams", [""])[0].split("/")
            return Door(route, True, tuple(name for name in listed if name), micro)
    return None


class Front:
    """Serves TCP connections, each until it closes or becomes a WebSocket."""

    def __init__(self, state: VenueState, rest: RestSide, clock: VenueClock) -> None:
        self._state = state
        self._rest = rest
        self._clock = clock
        self._attempts: deque[float] = deque()

    @property
    def connections(self) -> dict[int, Connection]:
        """The WebSocket connections that are open now, by their number."""
        return self._state.connections

    @property
    def wall_ns(self) -> int:
        """The wall's time, by which weights are counted and faults are timed."""
        return self._clock.wall_ns()

    async def converse(self, stream: trio.abc.Stream) -> None:
        """Serve one connection to its end; errors of its network are its own."""
        try:
            await self._converse(stream)
        except (trio.BrokenResourceError, trio.ClosedResourceError, h11.RemoteProtocolError):
            # The client went away, or speaks no HTTP: there is nobody to tell.
            return
        finally:
            await trio.aclose_forcefully(stream)

    async def _converse(self, stream: trio.abc.Stream) -> None:
        http = h11.Connection(h11.SERVER, max_incomplete_event_size=_HEAD_BYTES)
        while True:
            request = await _next_event(http, stream)
            if not isinstance(request, h11.Request):
                return
            headers = dict(request.headers)
            if headers.get(b"upgrade", b"").lower() == b"websocket":
                await self._upgrade(stream, request, http.trailing_data[0])
                return
            while not isinstance(event := await _next_event(http, stream), h11.EndOfMessage):
                if isinstance(event, h11.ConnectionClosed):
                    return
            method, target = request.method.decode(), request.target.decode()
            response = await self._rest.handle(method, target, headers, self._clock.wall_ns())
            await _respond(http, stream, response)
            if http.our_state is not h11.DONE:
                return
            http.start_next_cycle()

    async def _upgrade(self, stream: trio.abc.Stream, request: h11.Request, rest: bytes) -> None:
        state, standing = self._state, self._state.standing
        await standing.gate.passed()
        if trio.current_time() < standing.reject_until:
            if standing.reject_hard:
                reset_on_close(stream)
            else:
                await stream.send_all(_refusal(503, b"Service Unavailable"))
            return
        if not self._may_try():
            await stream.send_all(_refusal(429, b"Too Many Requests"))
            return
        door = find_door(request.target.decode(), state.rules)
        if door is None:
            await stream.send_all(_refusal(404, b"Not Found"))
            return
        if len(door.names) > state.rules.streams_per_connection:
            await stream.send_all(_refusal(400, b"Bad Request"))
            return
        protocol = WSConnection(ConnectionType.SERVER)
        try:
            protocol.initiate_upgrade_connection(list(request.headers), request.target)
        except RemoteProtocolError:
            await stream.send_all(_refusal(400, b"Bad Request"))
            return
        for event in protocol.events():
            if isinstance(event, Request):
                await stream.send_all(protocol.send(AcceptConnection()))
        connection = Connection(
            state, stream, protocol, route=door.route, combined=door.combined, micro=door.micro
        )
        if door.names:
            connection.subscribe(door.names)
        if rest:
            protocol.receive_data(rest)
        await connection.run()

    def _may_try(self) -> bool:
        most, now = self._state.rules.attempts_in_5_min, trio.current_time()
        if most is None:
            return True
        while self._attempts and self._attempts[0] <= now - 300.0:
            self._attempts.popleft()
        self._attempts.append(now)
        return len(self._attempts) <= most


async def _next_event(http: h11.Connection, stream: trio.abc.Stream) -> object:
    while (event := http.next_event()) is h11.NEED_DATA:
        http.receive_data(bytes(await stream.receive_some(_READ_BYTES)))
    return event


async def _respond(http: h11.Connection, stream: trio.abc.Stream, response: Response) -> None:
    headers = [
        ("Content-Type", "application/json;charset=UTF-8"),
        ("Content-Length", str(len(response.body))),
        *response.headers,
    ]
    head = http.send(h11.Response(status_code=response.status, headers=headers))
    body = http.send(h11.Data(data=response.body))
    end = http.send(h11.EndOfMessage())
    await stream.send_all(b"".join(part for part in (head, body, end) if part))


def _refusal(status: int, reason: bytes) -> bytes:
    return b"HTTP/1.1 %d %b\r\nContent-Length: 0\r\nConnection: close\r\n\r\n" % (status, reason)
