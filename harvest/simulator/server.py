"""The listener: one port for the venue's REST and WebSocket sides, and the tasks behind them."""

from __future__ import annotations

import os
import ssl
from functools import partial
from typing import TYPE_CHECKING

import trio

from harvest.errors import SimulatorError
from harvest.simulator.clock import VenueClock
from harvest.simulator.config import Endpoints
from harvest.simulator.director import direct, read_faults
from harvest.simulator.front import Front
from harvest.simulator.listing import list_symbols
from harvest.simulator.random_feed import feed_random
from harvest.simulator.random_history import RandomHistory
from harvest.simulator.random_market import RandomMarket
from harvest.simulator.recording import Recording
from harvest.simulator.replay_feed import ReplayPosition, feed_recording
from harvest.simulator.replay_history import ReplayHistory
from harvest.simulator.rest import RestSide
from harvest.simulator.sent import SentAccount
from harvest.simulator.state import VenueState

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from harvest.simulator.config import SimulatorConfig
    from harvest.simulator.market_source import MarketSource


class _Venue:
    """A venue behind its front door, ready to run; making it reads the faults and surveys the recordings."""

    def __init__(self, config: SimulatorConfig, sent: SentAccount) -> None:
        self._faults = read_faults(config)
        self._state = VenueState(config, sent)
        self._market, self._feed, self._clock = _source(config, self._state)
        self.front = Front(self._state, RestSide(self._state, self._market), self._clock)

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._feed)
            await direct(self._state, self._faults, set_pace=self._clock.set_pace, now_ms=self._market.now_ms)


async def run_venue(
    config: SimulatorConfig, *, task_status: trio.TaskStatus[Front] = trio.TASK_STATUS_IGNORED
) -> None:
    """Run a venue without a listener until cancelled; gives the `Front`, whose ``converse`` serves a stream.

    With streams in memory and a virtual clock, everything the venue does has an exact time.

    Raises:
        SimulatorError: The fault script or its file is wrong, or the log cannot be written.
        RecordingError: A file to replay cannot be read as a recording.
    """
    with SentAccount(config.sent_log) as sent:
        venue = _Venue(config, sent)
        task_status.started(venue.front)
        await venue.run()
        await trio.sleep_forever()


async def serve(
    config: SimulatorConfig, *, task_status: trio.TaskStatus[Endpoints] = trio.TASK_STATUS_IGNORED
) -> None:
    """Serve a venue on its port until cancelled; all connections are closed at once then.

    Start it with ``await nursery.start(serve, config)``, which gives the `Endpoints` once it listens.

    Raises:
        SimulatorError: The port or the certificate cannot be had, the fault script or its file is wrong, or
            the log cannot be written.
        RecordingError: A file to replay cannot be read as a recording.
    """
    with SentAccount(config.sent_log) as sent:
        venue = _Venue(config, sent)
        context = _tls(config)
        listeners = await _listen(config)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(venue.run)
            if context is None:
                await nursery.start(partial(trio.serve_listeners, venue.front.converse, listeners))
            else:
                secured = [trio.SSLListener(listener, context) for listener in listeners]
                await nursery.start(partial(trio.serve_listeners, venue.front.converse, secured))
            task_status.started(_endpoints(config, listeners[0]))


def _source(
    config: SimulatorConfig, state: VenueState
) -> tuple[MarketSource, Callable[[], Awaitable[None]], VenueClock]:
    rules = config.rules
    if config.replay:
        recording = Recording(config.replay)
        position = ReplayPosition(recording.first_ns)
        clock = VenueClock(config.speed or 1.0, recording.first_ns)
        history = ReplayHistory(recording, position, rules, config.symbols)
        pace = None if config.speed is None else clock
        return history, partial(feed_recording, state, recording, position, pace), clock
    clock = VenueClock(config.speed or 1.0, config.start_ns)
    listing = list_symbols(rules, config.symbols)
    market = RandomMarket(listing, config.seed, rate=config.rate, futures=rules.futures)
    return RandomHistory(market, rules, clock), partial(feed_random, state, market, clock), clock


async def _listen(config: SimulatorConfig) -> list[trio.SocketListener]:
    try:
        return await trio.open_tcp_listeners(config.port, host=config.host)
    except OSError as error:
        raise SimulatorError(
            f"cannot listen on {config.host}:{config.port}: {error}. Choose another port, or 0 for any."
        ) from error


def _tls(config: SimulatorConfig) -> ssl.SSLContext | None:
    if config.tls_chain is None or config.tls_key is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(config.tls_chain, config.tls_key)
    except OSError as error:
        raise SimulatorError(f"cannot use {config.tls_chain} and {config.tls_key}: {error}") from error
    return context


def _endpoints(config: SimulatorConfig, listener: trio.SocketListener) -> Endpoints:
    port = listener.socket.getsockname()[1]
    host = f"[{config.host}]" if ":" in config.host else config.host
    secure = "s" if config.tls_chain else ""
    return Endpoints(
        config.venue, f"ws{secure}://{host}:{port}", f"http{secure}://{host}:{port}", os.getpid()
    )
