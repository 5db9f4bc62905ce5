"""The trade nursery and the orderbook nursery: one stream task a connection, each feed apart from the other."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from harvest.nurseries.stream import Stream

if TYPE_CHECKING:
    import ssl
    from collections.abc import Sequence

    from harvest.metrics import Metrics
    from harvest.nurseries.intake import Intake
    from harvest.nurseries.lag import LagSensor
    from harvest.nurseries.probe import Prober
    from harvest.settings import StreamSettings
    from harvest.venues.protocol import ConnectionPlan


async def run_feed(
    plans: Sequence[ConnectionPlan],
    *,
    intake: Intake,
    settings: StreamSettings,
    metrics: Metrics,
    lag: LagSensor,
    prober: Prober | None = None,
    ssl_context: ssl.SSLContext | None = None,
) -> None:
    """Keep the connections of one feed alive in a nursery of their own, until cancelled.

    Each plan is carried by ``settings.connections`` sockets: the first arrival wins, and a break of one leaves no hole.

    Called once for trades and once for order books, so that nothing in one can wait for the other.
    """
    async with trio.open_nursery() as nursery:
        for number, plan in enumerate(plans, start=1):
            for twin in range(settings.connections):
                name = f"{plan.feed}-{number}"
                stream = Stream(
                    plan,
                    name if settings.connections == 1 else f"{name}{chr(ord('a') + twin)}",
                    intake=intake,
                    settings=settings,
                    metrics=metrics,
                    lag=lag,
                    prober=prober,
                    ssl_context=ssl_context,
                )
                nursery.start_soon(stream.run)
