"""Whole feeds before a real intake and pipeline, and a server on loopback whose connections are scripts."""

from __future__ import annotations

import itertools
import json
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import attrs
import trio
from trio_websocket import ConnectionClosed, WebSocketConnection, WebSocketRequest, serve_websocket

from harvest.nurseries.feeds import FeedNursery
from harvest.nurseries.intake import Intake
from harvest.nurseries.lag import LagSensor
from harvest.pipeline.records import Closed, Opened
from harvest.settings import Settings
from harvest.storage.quarantine import Quarantine
from harvest.venues import VENUES
from harvest.venues.protocol import StreamOptions
from tests.pipeline.wire import Harness, trade

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
    from pathlib import Path

    from harvest.market import Channel, Feed
    from harvest.pipeline.events import Outcome
    from harvest.pipeline.records import Record
    from harvest.venues.protocol import ConnectionPlan, Venue

    Script = Callable[["Socket"], Awaitable[None]]

#: A loaded machine takes its time; nothing here waits for so long unless it is broken.
PATIENCE_S = 20.0
ACK = '{"result":null,"id":1}'
SETTINGS = attrs.evolve(
    Settings().streams,
    idle_s=PATIENCE_S,
    first_message_s=PATIENCE_S,
    backoff_initial_s=0.1,
    backoff_max_s=0.2,
    ping_interval_s=0,
    close_timeout_s=1.0,
)


class Bench:
    """A real intake and pipeline that remember each record, and the feeds that lead to them."""

    def __init__(
        self,
        root: Path,
        symbols: Sequence[str] = ("BTCUSDT",),
        *,
        channels: Sequence[Channel] = (),
        **settings: Any,
    ) -> None:
        self.harness = Harness(symbols=symbols, channels=channels)
        self.metrics = self.harness.metrics
        self.records: list[Record] = []
        self.quarantine = Quarantine(root, "run")
        self.settings = attrs.evolve(SETTINGS, **settings)
        self.ssl_context: ssl.SSLContext | None = None
        self.intake = Intake(
            self,
            next_seq=1,
            quarantine=self.quarantine,
            max_buffered_bytes=2**30,
            buffered_bytes=lambda: 0,
            want_snapshot=lambda symbol: None,
            want_trades=lambda symbol, from_id, to_id: None,
        )

    @property
    def venue(self) -> Venue:
        """What the intake asks of a pipeline besides."""
        return self.harness.pipeline.venue

    def feed(self, record: Record) -> Outcome:
        """Stand between the intake and the pipeline."""
        self.records.append(record)
        return self.harness.pipeline.feed(record)

    async def run(self, plans: list[ConnectionPlan]) -> None:
        """Run one feed until cancelled."""
        await self.feed_nursery(plans).run()

    def feed_nursery(
        self, plans: list[ConnectionPlan], *, max_streams: int = 200, url: str = ""
    ) -> FeedNursery:
        """Make one feed that begins with ``plans``; what is added later goes to ``url``."""
        venue, feed = VENUES["binance-usdm"], plans[0].feed

        def planner(symbols: Sequence[str]) -> list[ConnectionPlan]:
            if list(symbols) == [symbol for plan in plans for symbol in plan.symbols]:
                return plans
            return venue.connections(feed, symbols, StreamOptions(), ws_url=url, max_streams=max_streams)

        return FeedNursery(
            [symbol for plan in plans for symbol in plan.symbols],
            planner,
            max_streams=max_streams,
            venue=venue,
            intake=self.intake,
            settings=self.settings,
            metrics=self.metrics,
            lag=LagSensor(),
            ssl_context=self.ssl_context,
        )

    @asynccontextmanager
    async def running(self, *feeds: list[ConnectionPlan]) -> AsyncIterator[None]:
        """Run feeds beside the block, which has its time; then no opening is without its end."""
        with trio.fail_after(PATIENCE_S):
            async with trio.open_nursery() as nursery:
                for plans in feeds:
                    nursery.start_soon(self.run, plans)
                yield
                nursery.cancel_scope.cancel()
        self.check_pairs()

    def check_pairs(self) -> None:
        """Check that each connection was opened once and closed once, in this order."""
        lives = [record for record in self.records if isinstance(record, Opened | Closed)]
        for name, of_one in itertools.groupby(
            sorted(lives, key=lambda r: r.connection), lambda r: r.connection
        ):
            assert [type(record) for record in of_one] == [Opened, Closed], name

    def closed(self) -> list[tuple[str, str]]:
        """Return name and reason of each connection that has ended."""
        return [(record.connection, record.reason) for record in self.records if isinstance(record, Closed)]

    def trade_ids(self, symbol: str = "BTCUSDT") -> list[int]:
        return self.harness.column("prices", "trade_id", symbol=symbol)

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait until a condition holds."""
        with trio.fail_after(PATIENCE_S):
            while not condition():  # noqa: ASYNC110 - it may be about the server, the log, or the pipeline
                await trio.sleep(0.005)


class Socket:
    """The server's end of one connection."""

    def __init__(self, websocket: WebSocketConnection, number: int) -> None:
        self.websocket = websocket
        self.number = number

    async def request(self) -> dict[str, Any]:
        """Return the next request of the client."""
        return json.loads(await self.websocket.get_message())

    async def subscribed(self) -> None:
        """Wait for a subscription, and acknowledge it."""
        await self.request()
        await self.websocket.send_message(ACK)

    async def send(self, *messages: bytes) -> None:
        for message in messages:
            await self.websocket.send_message(message.decode())

    async def trades(self, from_id: int, count: int | None = None, every_s: float = 0.02) -> None:
        """Send trades with ids from ``from_id`` on; without a count for ever."""
        for trade_id in itertools.count(from_id) if count is None else range(from_id, from_id + count):
            await self.send(trade(trade_id, event="aggTrade"))
            await trio.sleep(every_s)


class Server:
    """A server on loopback: each connection runs the next script, the last one for ever after."""

    def __init__(self, scripts: tuple[Script, ...]) -> None:
        self.open = 0
        self.accepted = 0
        self.url = ""
        self._scripts = scripts

    async def handle(self, request: WebSocketRequest) -> None:
        websocket = await request.accept()
        script = self._scripts[min(self.accepted, len(self._scripts) - 1)]
        self.open += 1
        self.accepted += 1
        try:
            # A close, or none, is what the client makes of it.
            with suppress(ConnectionClosed):
                await script(Socket(websocket, self.accepted))
        finally:
            self.open -= 1


@asynccontextmanager
async def server(*scripts: Script, context: ssl.SSLContext | None = None) -> AsyncIterator[Server]:
    venue = Server(scripts)
    async with trio.open_nursery() as nursery:
        listening = await nursery.start(
            partial(serve_websocket, venue.handle, "127.0.0.1", 0, context, connect_timeout=PATIENCE_S)
        )
        port = listening.listeners[0].port
        venue.url = f"ws://127.0.0.1:{port}" if context is None else f"wss://localhost:{port}"
        yield venue
        nursery.cancel_scope.cancel()


def plans(
    url: str, feed: Feed = "trade", symbols: Sequence[str] = ("BTCUSDT",), max_streams: int = 200
) -> list[ConnectionPlan]:
    venue = VENUES["binance-usdm"]
    return venue.connections(feed, symbols, StreamOptions(), ws_url=url, max_streams=max_streams)


async def flow(socket: Socket) -> None:
    """Script: subscribed, and then trades for ever, a thousand ids further for each connection."""
    await socket.subscribed()
    await socket.trades(1000 * socket.number)


def events(lines: list[Any]) -> list[str]:
    return [line["event"] for line in lines]
