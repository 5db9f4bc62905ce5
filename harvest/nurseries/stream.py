"""One stream: a connection inside its idle watchdog, made anew for as long as it takes.

The watchdog is one ``trio.move_on_after`` scope around the connection. Its deadline moves forward with each block that
holds market data; pings, acknowledgements and refusals do not move it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from harvest.log import get_logger
from harvest.metrics import ConnectionStats
from harvest.nurseries.backoff import Backoff
from harvest.nurseries.connection import ConnectionLostError, open_connection
from harvest.venues.protocol import Acknowledgement, Refusal, ShutdownNotice

if TYPE_CHECKING:
    import ssl

    from harvest.metrics import Metrics
    from harvest.nurseries.connection import Connection
    from harvest.nurseries.intake import Intake
    from harvest.nurseries.lag import LagSensor
    from harvest.pipeline.records import Opened
    from harvest.settings import StreamSettings
    from harvest.venues.protocol import ConnectionPlan

#: A silence of which we stood still for more than this part ourselves is recorded as ours.
OWN_STALL_SHARE = 0.1

_TAGS = {"trade": "TRADE", "orderbook": "ORDERBOOK"}


class Stream:
    """Keeps one planned connection alive. ``run`` it in a nursery; it ends only when cancelled.

    Errors of the network and of the venue are handled here. Anything else (a decoder's bug) goes through.
    """

    def __init__(
        self,
        plan: ConnectionPlan,
        name: str,
        *,
        intake: Intake,
        settings: StreamSettings,
        metrics: Metrics,
        lag: LagSensor,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        self.plan = plan
        self.stats = metrics.connections[name] = ConnectionStats(name, plan.feed, plan.symbols)
        self._intake = intake
        self._settings = settings
        self._lag = lag
        self._ssl_context = ssl_context
        self._log = get_logger(_TAGS[plan.feed]).bind(connection=name)
        self._backoff = Backoff(
            initial_s=settings.backoff_initial_s,
            max_s=settings.backoff_max_s,
            reset_s=settings.backoff_reset_s,
        )
        # Of the connection that is open now:
        self._watchdog = trio.CancelScope()
        self._opened: Opened | None = None
        self._unanswered = 0
        self._acknowledged = trio.Event()
        self._data_at: float | None = None
        self._lag_before_s = 0.0

    async def run(self) -> None:
        """Connect, receive, and restart, until cancelled."""
        while True:
            started = trio.current_time()
            self._log.info(f"connecting: {len(self.plan.symbols)} symbols", symbols=len(self.plan.symbols))
            reason = await self._attempt()
            # Only time in which data came counts as stable.
            stable_s = trio.current_time() - started if self._data_at is not None else 0.0
            self.stats.reconnects += 1
            wait_s = self._backoff.next_wait_s(stable_s)
            self.stats.state = f"waiting ({reason})"
            await trio.sleep(wait_s)

    async def _attempt(self) -> str:
        """Make one connection and stay with it to its end; returns why it ended."""
        self.stats.state = "connecting"
        self._data_at = None
        reason = "shutdown"
        try:
            with trio.move_on_after(self._settings.idle_s) as self._watchdog:
                self._lag.watch(self._watchdog)
                await self._session()
            if self._watchdog.cancelled_caught:
                reason = self._judge_silence()
        except ConnectionLostError as error:
            reason = "disconnect"
            self._log.warning(f"connection error: {error}")
        finally:
            self._lag.unwatch(self._watchdog)
            if self._opened is not None:
                self._intake.closed(self._opened, reason)
                self._opened = None
        return reason

    def _judge_silence(self) -> str:
        ours = self._lag.total_s - self._lag_before_s > OWN_STALL_SHARE * self._settings.idle_s
        if ours:
            self.stats.own_stalls += 1
        else:
            self.stats.stalls += 1
        cause = " (our own loop stood still meanwhile)" if ours else ""
        self._log.warning(f"no message for {self._settings.idle_s:g}s, reconnecting{cause}", own_stall=ours)
        return "own_stall" if ours else "stall"

    async def _session(self) -> None:
        settings = self._settings
        self._acknowledged = trio.Event()
        self._unanswered = len(self.plan.requests)
        self._lag_before_s = self._lag.total_s
        async with open_connection(
            self.plan.url,
            on_frames=self._take,
            ssl_context=self._ssl_context,
            allow_insecure=settings.allow_insecure,
            connect_timeout_s=settings.connect_timeout_s,
            close_timeout_s=settings.close_timeout_s,
            ping_interval_s=settings.ping_interval_s or None,
            ping_timeout_s=settings.ping_timeout_s,
            max_message_bytes=settings.max_message_bytes,
            receive_bytes=settings.receive_bytes,
        ) as connection:
            self._open()
            # The loss is raised outside the nursery, which would wrap it in a group.
            loss = await self._receive(connection)
        raise loss

    def _open(self) -> Opened:
        if self._opened is None:
            self._opened = self._intake.opened(self.stats.name, self.plan.feed, self.plan.symbols)
            self.stats.state = "open"
            self.stats.since_mono_ns = self._opened.mono_ns
        return self._opened

    async def _receive(self, connection: Connection) -> ConnectionLostError:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._subscribe, connection)
            nursery.start_soon(self._expect_first_message)
            try:
                await connection.run()
            except ConnectionLostError as error:
                nursery.cancel_scope.cancel()
                return error

    async def _subscribe(self, connection: Connection) -> None:
        try:
            for request in self.plan.requests:
                await connection.send(request)
        except ConnectionLostError as error:
            # ``Connection.run`` raises the same loss where it is handled.
            self._log.debug(f"lost while subscribing: {error}")

    async def _expect_first_message(self) -> None:
        """Name the suspected cause when nothing follows the acknowledgement."""
        await self._acknowledged.wait()
        # Before the watchdog, which would restart the connection unexplained.
        patience_s = min(self._settings.first_message_s, 0.8 * self._settings.idle_s)
        await trio.sleep(patience_s)
        if self._data_at is None:
            streams = ", ".join(self.plan.streams[:3]) + (", …" if len(self.plan.streams) > 3 else "")
            self._log.warning(
                f"acknowledged, but silent for {patience_s:g}s: {streams} on {self.plan.url}. "
                f"Suspected: the wrong route (the venue acknowledges streams that another route carries, and never "
                f"sends them), an unknown symbol, or one that is not trading",
                url=self.plan.url,
                streams=list(self.plan.streams),
                suspected=["wrong route", "unknown symbol", "not trading"],
            )

    def _take(self, frames: list[bytes], recv_ns: int, mono_ns: int) -> None:
        """Take one block; called from within the receive, so it must not wait."""
        # A server may send before the handshake's caller has run again.
        outcome = self._intake.frames(self._open(), frames, recv_ns, mono_ns)
        if outcome.data_messages:
            now = trio.current_time()
            if self._data_at is None:
                self._log.info(f"receiving: {len(self.plan.symbols)} symbols")
                self.stats.state = "receiving"
            self._data_at = now
            self._lag_before_s = self._lag.total_s
            self._watchdog.deadline = now + self._settings.idle_s
        for event in outcome.events:
            if isinstance(event, Acknowledgement):
                self._answered()
            elif isinstance(event, Refusal):
                self._log.error(f"the venue refused a request: {event.message} (code {event.code})")
                self._answered()
            elif isinstance(event, ShutdownNotice):
                self._log.warning("the venue announces that it will close this connection")

    def _answered(self) -> None:
        self._unanswered -= 1
        if self._unanswered <= 0:
            self._acknowledged.set()
