"""One session: a connection inside its idle watchdog, from connecting to its end.

The watchdog is one ``trio.move_on_after`` scope around the connection, whose deadline moves forward with each block that
holds market data; pings, acknowledgements and refusals do not move it.
"""

from __future__ import annotations

import random
from math import inf
from typing import TYPE_CHECKING

import attrs
import trio

from harvest.nurseries.connection import ConnectionLostError, open_connection
from harvest.nurseries.requests import Requests
from harvest.nurseries.silence import Silence
from harvest.venues.protocol import Acknowledgement, Refusal, ShutdownNotice

if TYPE_CHECKING:
    import ssl

    from structlog.stdlib import BoundLogger

    from harvest.metrics import ConnectionStats, Metrics
    from harvest.nurseries.connection import Connection
    from harvest.nurseries.intake import Intake
    from harvest.nurseries.lag import LagSensor
    from harvest.nurseries.plan import ChangingPlan
    from harvest.nurseries.probe import Prober
    from harvest.pipeline.records import Opened
    from harvest.settings import StreamSettings
    from harvest.venues.blocks import Block
    from harvest.venues.protocol import Venue

#: A silence of which we stood still for more than this part ourselves is recorded as ours.
OWN_STALL_SHARE = 0.1
#: Connections that were opened together are handed over apart, within this part of their life.
STAGGER_SHARE = 0.1


@attrs.frozen
class Surroundings:
    """What all sessions of a stream share. With a ``prober`` the venue is asked about what is silent."""

    plan: ChangingPlan
    stats: ConnectionStats
    log: BoundLogger
    venue: Venue
    intake: Intake
    settings: StreamSettings
    metrics: Metrics
    lag: LagSensor
    prober: Prober | None
    ssl_context: ssl.SSLContext | None


class Session:
    """One connection of a stream.

    ``delivering`` is set by the first market data, ``ready`` when besides every request was answered, so that nothing is
    left out, ``due`` when another connection is to take over, ``ended`` at the end, for ``reason``: ``stall``,
    ``own_stall``, ``disconnect``, ``handover`` or ``shutdown``. It follows the changes of its plan: what is added or
    removed is subscribed to or unsubscribed from, and nothing else of it moves.
    """

    def __init__(self, around: Surroundings, name: str) -> None:
        self.delivering = trio.Event()
        self.ready = trio.Event()
        self.due = trio.Event()
        self.ended = trio.Event()
        self.reason = "shutdown"
        self._around = around
        self._name = name
        self._plan = around.plan
        self._log: BoundLogger = around.log
        self._settings = around.settings
        self._lag = around.lag
        self._watchdog = trio.CancelScope()
        self._opened: Opened | None = None
        self._requests: Requests | None = None
        self._answers = 0
        self._has_asked = False
        self._acknowledged = trio.Event()
        self._lag_before_s = around.lag.total_s
        self._gave_up = False
        self._refused = False
        #: UTC nanoseconds when the connection was open.
        self.opened_ns = 0
        #: Trio's clock at the last block whose market data was let go unread: any symbol may have been in it.
        self.unread_at = -inf
        #: Trio's clock when the connection was open, and at the last market data since.
        self._open_at = self._data_at = trio.current_time()

    async def run(self) -> None:
        """Connect, receive, and close; returns when the connection has ended."""
        symbols = self._plan.now.symbols
        self._log.info(f"connecting: {len(symbols)} symbols", symbols=len(symbols))
        if not self._stream_is_receiving():
            self._around.stats.state = "connecting"
        try:
            with trio.move_on_after(self._settings.idle_s) as self._watchdog:
                self._lag.watch(self._watchdog)
                await self._receive()
            if self._watchdog.cancelled_caught and self.reason != "handover":
                self.reason = self._judge_silence()
        except ConnectionLostError as error:
            self.reason = "disconnect"
            self._log.warning(f"connection error: {error}")
        finally:
            self._lag.unwatch(self._watchdog)
            if self._opened is not None:
                self._around.intake.closed(self._opened, self.reason)
            self.ended.set()

    @property
    def stable_s(self) -> float:
        """Seconds from the opening to the last market data, 0 where none came: silence at the end is no good work."""
        return self._data_at - self._open_at

    def retire(self) -> None:
        """Close this connection: another one delivers what it did."""
        self.reason = "handover"
        self._watchdog.cancel()

    def silent_for_s(self) -> float:
        """Return the seconds since the last market data, or since the connection was opened."""
        return trio.current_time() - self._data_at

    def stay(self) -> None:
        """Move the deadline on by one idle period: the venue has nothing new."""
        self._watchdog.deadline = trio.current_time() + self._settings.idle_s

    def give_up(self) -> None:
        """End this connection: part of it is dead."""
        self._gave_up = True
        self._watchdog.cancel()

    def _stream_is_receiving(self) -> bool:
        return self._around.stats.state == "receiving"

    def _judge_silence(self) -> str:
        stats = self._around.stats
        if self._gave_up:
            stats.stalls += 1
            return "stall"
        ours = self._lag.total_s - self._lag_before_s > OWN_STALL_SHARE * self._settings.idle_s
        if ours:
            stats.own_stalls += 1
        else:
            stats.stalls += 1
        cause = " (our own loop stood still meanwhile)" if ours else ""
        self._log.warning(f"no message for {self._settings.idle_s:g}s, reconnecting{cause}", own_stall=ours)
        return "own_stall" if ours else "stall"

    async def _receive(self) -> None:
        settings = self._settings
        async with open_connection(
            self._plan.now.url,
            on_frames=self._take,
            ssl_context=self._around.ssl_context,
            allow_insecure=settings.allow_insecure,
            connect_timeout_s=settings.connect_timeout_s,
            close_timeout_s=settings.close_timeout_s,
            ping_interval_s=settings.ping_interval_s or None,
            ping_timeout_s=settings.ping_timeout_s,
            max_message_bytes=settings.max_message_bytes,
            receive_bytes=settings.receive_bytes,
            coalesce_s=settings.coalesce_ms / 1000,
        ) as connection:
            self._open()
            # The loss is raised outside the nursery, which would wrap it in a group.
            loss = await self._receive_until_lost(connection)
        raise loss

    async def _receive_until_lost(self, connection: Connection) -> ConnectionLostError:
        requests = self._requests = Requests(connection, self._around.venue)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._keep_subscribed, requests)
            nursery.start_soon(self._expect_first_message)
            nursery.start_soon(self._grow_old)
            if self._around.prober is not None:
                silence = Silence(
                    self._plan,
                    self,
                    idle_s=self._settings.idle_s,
                    prober=self._around.prober,
                    metrics=self._around.metrics,
                    name=self._name,
                    log=self._log,
                )
                nursery.start_soon(silence.watch, requests)
            try:
                await connection.run()
            except ConnectionLostError as error:
                nursery.cancel_scope.cancel()
                return error

    async def _keep_subscribed(self, requests: Requests) -> None:
        """Subscribe to what the plan holds, and follow its changes."""
        asked: set[str] = set()
        try:
            while True:
                self._carry(self._plan.now.symbols)
                wanted = self._plan.now.streams
                gone = sorted(asked.difference(wanted))
                new = [stream for stream in wanted if stream not in asked]
                asked = set(wanted)
                if gone:
                    await requests.unsubscribe(gone)
                if new:
                    await requests.subscribe(new)
                if self._plan.now.streams == wanted:
                    self._has_asked = True
                    self._judge_answers()
                    await self._plan.changed()
        except ConnectionLostError as error:
            # ``Connection.run`` raises the same loss where it is handled.
            self._log.debug(f"lost while subscribing: {error}")

    def _carry(self, symbols: tuple[str, ...]) -> None:
        """Record what this connection carries from here on, where that has changed."""
        opened = self._open()
        if opened.symbols != symbols:
            self._opened = self._around.intake.carries(opened, symbols)
            added, removed = set(symbols).difference(opened.symbols), set(opened.symbols).difference(symbols)
            self._log.info(f"now {len(symbols)} symbols: {len(added)} added, {len(removed)} removed")

    async def _expect_first_message(self) -> None:
        """Name the suspected cause when nothing follows the acknowledgement."""
        await self._acknowledged.wait()
        # Before the watchdog, which would restart the connection unexplained.
        left_s = self._watchdog.deadline - trio.current_time()
        patience_s = min(self._settings.first_message_s, 0.8 * left_s)
        await trio.sleep(patience_s)
        # A refusal has been explained already.
        if not self.delivering.is_set() and not self._refused:
            names = self._plan.now.streams
            streams = ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
            self._log.warning(
                f"acknowledged, but silent for {patience_s:g}s: {streams} on {self._plan.now.url}. "
                f"Suspected: the wrong route (the venue acknowledges streams that another route carries, and never "
                f"sends them), an unknown symbol, or one that is not trading",
                url=self._plan.now.url,
                streams=list(names),
                suspected=["wrong route", "unknown symbol", "not trading"],
            )

    async def _grow_old(self) -> None:
        """Ask for a successor before the venue ends every connection of this age."""
        await trio.sleep(self._settings.handover_s * random.uniform(1 - STAGGER_SHARE, 1))
        self._log.info("this connection is old: handing over before the venue ends it")
        self.due.set()

    def _open(self) -> Opened:
        if self._opened is None:
            plan, stats = self._plan.now, self._around.stats
            self._opened = self._around.intake.opened(self._name, plan.feed, plan.symbols)
            self._open_at = self._data_at = trio.current_time()
            self.opened_ns = self._opened.recv_ns
            if not self._stream_is_receiving():
                stats.state = "open"
            stats.since_mono_ns = self._opened.mono_ns
        return self._opened

    def _take(self, frames: Block, recv_ns: int, mono_ns: int) -> None:
        """Take one block; called from within the receive, so it must not wait."""
        # A server may send before the handshake's caller has run again.
        outcome = self._around.intake.frames(self._open(), frames, recv_ns, mono_ns)
        if outcome.data_messages:
            if not self.delivering.is_set():
                self._log.info(f"receiving: {len(self._plan.now.symbols)} symbols")
                self._around.stats.state = "receiving"
                self.delivering.set()
            self._lag_before_s = self._lag.total_s
            self._data_at = trio.current_time()
            self._watchdog.deadline = self._data_at + self._settings.idle_s
            if outcome.unread:
                self.unread_at = self._data_at
        for event in outcome.events:
            if isinstance(event, Acknowledgement):
                self._answered()
            elif isinstance(event, Refusal):
                self._log.error(f"the venue refused a request: {event.message} (code {event.code})")
                self._around.metrics.refusals += 1
                self._refused = True
                self._answered()
            elif isinstance(event, ShutdownNotice):
                self._log.warning("the venue announces that it will close this connection: handing over")
                self.due.set()
        if self.delivering.is_set() and self._acknowledged.is_set():
            self.ready.set()

    def _answered(self) -> None:
        self._answers += 1
        self._judge_answers()

    def _judge_answers(self) -> None:
        if self._has_asked and self._requests is not None and self._answers >= self._requests.sent:
            self._acknowledged.set()
            if self.delivering.is_set():
                self.ready.set()
