"""One stream: the sessions that carry a planned connection, one after the other, for as long as it takes.

A session is one connection. The stream starts the next one when it has ended, or hands over before the venue ends it: the
new session delivers, and only then the old one retires.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from harvest.log import get_logger
from harvest.metrics import ConnectionStats
from harvest.nurseries.backoff import Backoff
from harvest.nurseries.session import Session, Surroundings
from harvest.nurseries.tags import TAGS

if TYPE_CHECKING:
    import ssl

    from harvest.metrics import Metrics
    from harvest.nurseries.intake import Intake
    from harvest.nurseries.lag import LagSensor
    from harvest.nurseries.plan import ChangingPlan
    from harvest.nurseries.probe import Prober
    from harvest.settings import StreamSettings
    from harvest.venues.protocol import Venue

#: The old connection stays so much longer: what it was sent before the new one subscribed may be on its way.
LINGER_S = 1.0


class Stream:
    """Keeps one planned connection alive. ``run`` it in a nursery; it ends only when cancelled.

    Errors of the network and of the venue are handled here. Anything else (a decoder's bug) goes through. With a
    ``prober`` the venue is asked about what is silent, before the watchdog judges it.
    """

    def __init__(
        self,
        plan: ChangingPlan,
        name: str,
        *,
        venue: Venue,
        intake: Intake,
        settings: StreamSettings,
        metrics: Metrics,
        lag: LagSensor,
        prober: Prober | None = None,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        feed = plan.now.feed
        self.stats = metrics.connections[name] = ConnectionStats(name, feed, plan.now.symbols)
        self._log = get_logger(*TAGS[feed]).bind(connection=name)
        self._around = Surroundings(
            plan, self.stats, self._log, venue, intake, settings, metrics, lag, prober, ssl_context
        )
        self._sessions = 0
        self._backoff = Backoff(
            initial_s=settings.backoff_initial_s,
            max_s=settings.backoff_max_s,
            reset_s=settings.backoff_reset_s,
        )

    async def run(self) -> None:
        """Connect, receive, hand over and restart, until cancelled."""
        async with trio.open_nursery() as nursery:
            session = self._start(nursery)
            while True:
                await first_of(session.ended, session.due)
                next_at = trio.current_time()
                if session.ended.is_set() or not self._backoff.is_good(session.stable_s):
                    # Before a hand-over too: a venue may tell each new connection at once that it will close it.
                    next_at += self._backoff.next_wait_s(session.stable_s)
                with trio.move_on_at(next_at):
                    await session.ended.wait()
                if session.ended.is_set():
                    self.stats.reconnects += 1
                    self.stats.state = f"waiting ({session.reason})"
                    await trio.sleep_until(next_at)
                    session = self._start(nursery)
                else:
                    session = await self._hand_over(nursery, session)

    def _start(self, nursery: trio.Nursery) -> Session:
        self._sessions += 1
        name = self.stats.name if self._sessions == 1 else f"{self.stats.name}.{self._sessions}"
        session = Session(self._around, name)
        nursery.start_soon(session.run)
        return session

    async def _hand_over(self, nursery: trio.Nursery, old: Session) -> Session:
        """Open another connection, and retire the old one once it delivers; returns the one that goes on."""
        while not old.ended.is_set():
            new = self._start(nursery)
            await first_of(new.ready, new.ended, old.ended)
            if new.ready.is_set():
                with trio.move_on_after(LINGER_S):
                    await first_of(new.ended, old.ended)
            if old.ended.is_set():
                if not new.delivering.is_set():
                    self.stats.state = "connecting"
                return new
            # The successor may have been lost while the old one lingered, which then is all there is.
            if not new.ended.is_set():
                self.stats.handovers += 1
                self._log.info("handed over to a new connection; the old one retires")
                old.retire()
                return new
            with trio.move_on_after(self._backoff.next_wait_s(0)):
                await old.ended.wait()
        return old


async def first_of(*events: trio.Event) -> None:
    """Return when any of the events has been set."""

    async def wait(event: trio.Event) -> None:
        await event.wait()
        nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        for event in events:
            nursery.start_soon(wait, event)
