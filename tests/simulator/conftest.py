"""A venue behind streams in memory, and a client of it: no sockets, so that a virtual clock is exact."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import h11
import pytest
import trio
import trio.testing
from trio_websocket import ConnectionClosed, WebSocketConnection, wrap_client_stream

from harvest.simulator import SimulatorConfig, run_venue

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from harvest.simulator.front import Front


class Socket:
    """A client's WebSocket, with the answers apart from the data."""

    def __init__(self, websocket: WebSocketConnection) -> None:
        self.raw = websocket

    async def ask(self, method: str, *params: str, request_id: int = 1) -> Any:
        """Send a request, and give its answer; data that comes before is lost."""
        await self.raw.send_message(json.dumps({"method": method, "params": params, "id": request_id}))
        while True:
            message = json.loads(await self.raw.get_message())
            if "stream" not in message and ("result" in message or "error" in message or "code" in message):
                return message

    async def take(self, seconds: float) -> list[Any]:
        """Give all that comes in a time, or until the connection is closed."""
        return [json.loads(text) for text in await self.take_raw(seconds)]

    async def take_raw(self, seconds: float) -> list[str]:
        """Give all that comes in a time, or until the connection is closed, as text."""
        messages = []
        with trio.move_on_after(seconds), suppress(ConnectionClosed):
            while True:
                messages.append(await self.raw.get_message())
        return messages

    async def closed(self) -> Any:
        """Wait for the close, and give its reason."""
        try:
            while True:
                await self.raw.get_message()
        except ConnectionClosed as error:
            return error.reason


class Venue:
    """A running venue, and how to reach it."""

    def __init__(self, front: Front, nursery: trio.Nursery) -> None:
        self.front = front
        self._nursery = nursery

    def stream(self) -> trio.abc.Stream:
        """Open a stream to it."""
        ours, theirs = trio.testing.memory_stream_pair()
        self._nursery.start_soon(self.front.converse, theirs)
        return ours

    async def connect(self, path: str) -> Socket:
        """Open a WebSocket."""
        websocket = await wrap_client_stream(self._nursery, self.stream(), "venue", path)
        return Socket(websocket)

    async def get(
        self, target: str, headers: dict[str, str] | None = None
    ) -> tuple[int, Any, dict[str, str]]:
        """Give status, body and headers of a GET."""
        http, stream = h11.Connection(h11.CLIENT), self.stream()
        request = h11.Request(
            method="GET", target=target, headers={"Host": "venue", **(headers or {})}.items()
        )
        await stream.send_all((http.send(request) or b"") + (http.send(h11.EndOfMessage()) or b""))
        status, body, answered = 0, b"", {}
        while not isinstance(event := http.next_event(), h11.EndOfMessage | h11.ConnectionClosed):
            if event is h11.NEED_DATA:
                http.receive_data(await stream.receive_some(65536))
            elif isinstance(event, h11.Response):
                status = event.status_code
                answered = {name.decode(): value.decode() for name, value in event.headers}
            elif isinstance(event, h11.Data):
                body += bytes(event.data)
        await stream.aclose()
        return status, json.loads(body), answered


@asynccontextmanager
async def open_venue(**facts: Any) -> AsyncIterator[Venue]:
    async with trio.open_nursery() as nursery:
        front = await nursery.start(run_venue, SimulatorConfig(**facts))
        yield Venue(front, nursery)
        nursery.cancel_scope.cancel()


@pytest.fixture
def venue() -> Callable[..., Any]:
    """Give the context manager that runs a venue."""
    return open_venue
