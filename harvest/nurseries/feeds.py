"""The trade nursery and the orderbook nursery: one stream task a connection, each feed apart from the other."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import trio

from harvest.log import get_logger
from harvest.nurseries.plan import ChangingPlan
from harvest.nurseries.stream import Stream
from harvest.nurseries.tags import TAGS

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Collection, Sequence

    from harvest.metrics import Metrics
    from harvest.nurseries.intake import Intake
    from harvest.nurseries.lag import LagSensor
    from harvest.nurseries.probe import Prober
    from harvest.settings import StreamSettings
    from harvest.venues.protocol import ConnectionPlan, Venue

    Planner = Callable[[Sequence[str]], list[ConnectionPlan]]


@attrs.frozen
class _Carrier:
    """The sockets of one plan, and what ends them."""

    plan: ChangingPlan
    streams: list[Stream]
    scope: trio.CancelScope

    def change(self, plan: ConnectionPlan) -> None:
        for stream in self.streams:
            stream.stats.symbols = plan.symbols
        self.plan.change(plan)


class FeedNursery:
    """Keeps the connections of one feed alive in a nursery of their own.

    One is made for trades and one for order books, so that nothing in one can wait for the other. ``planner`` splits
    symbols over connections of at most ``max_streams`` streams. Each plan is carried by ``settings.connections``
    sockets: the first arrival wins, and a break of one leaves no hole.
    """

    def __init__(
        self,
        symbols: Sequence[str],
        planner: Planner,
        *,
        max_streams: int,
        venue: Venue,
        intake: Intake,
        settings: StreamSettings,
        metrics: Metrics,
        lag: LagSensor,
        prober: Prober | None = None,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        self._planner = planner
        self._max_streams = max_streams
        self._venue = venue
        self._intake = intake
        self._settings = settings
        self._metrics = metrics
        self._lag = lag
        self._prober = prober
        self._ssl_context = ssl_context
        self._nursery: trio.Nursery | None = None
        self._carriers: list[_Carrier] = []
        self._opened = 0
        for plan in planner(symbols):
            self._add(plan)

    async def run(self) -> None:
        """Run the connections, those that are added later too, until cancelled."""
        async with trio.open_nursery() as self._nursery:
            for carrier in self._carriers:
                self._nursery.start_soon(self._carry, carrier)
            await trio.sleep_forever()

    def change(self, added: Sequence[str], removed: Collection[str]) -> None:
        """Carry other symbols from now on; returns at once, and the connections follow.

        What is added goes to connections that have room, and to new ones beyond that. No connection is touched further
        than by its requests, except one that is left without a symbol: it is closed.
        """
        left = list(added)
        for carrier in self._carriers[:]:
            before = carrier.plan.now.symbols
            kept = [symbol for symbol in before if symbol not in removed]
            room = max(self._max_streams - len(kept), 0)
            symbols = kept + left[:room]
            del left[:room]
            if not symbols:
                self._carriers.remove(carrier)
                carrier.scope.cancel()
            elif symbols != list(before):
                (plan,) = self._planner(symbols)
                carrier.change(plan)
        for plan in self._planner(left):
            carrier = self._add(plan)
            if self._nursery is not None:
                self._nursery.start_soon(self._carry, carrier)

    def _add(self, plan: ConnectionPlan) -> _Carrier:
        self._opened += 1
        carrier = _Carrier(ChangingPlan(plan), [], trio.CancelScope())
        for twin in range(self._settings.connections):
            name = f"{plan.feed}-{self._opened}"
            stream = Stream(
                carrier.plan,
                name if self._settings.connections == 1 else f"{name}{chr(ord('a') + twin)}",
                venue=self._venue,
                intake=self._intake,
                settings=self._settings,
                metrics=self._metrics,
                lag=self._lag,
                prober=self._prober,
                ssl_context=self._ssl_context,
            )
            carrier.streams.append(stream)
        self._carriers.append(carrier)
        return carrier

    async def _carry(self, carrier: _Carrier) -> None:
        with carrier.scope:
            async with trio.open_nursery() as nursery:
                for stream in carrier.streams:
                    nursery.start_soon(stream.run)
        for stream in carrier.streams:
            stream.stats.symbols = ()
            stream.stats.state = "closed"
            log = get_logger(*TAGS[stream.stats.feed])
            log.info("closed: no symbol is left on this connection", connection=stream.stats.name)
