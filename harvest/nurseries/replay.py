"""The end of a simulated replay: when everything that was sent has been received, a run of it is over."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import trio

from harvest.venues.protocol import RestRequest

if TYPE_CHECKING:
    from harvest.metrics import Metrics
    from harvest.nurseries.rest import RestClient

POLL_S = 0.5
#: So many polls running without a further message: nothing is on its way any more.
QUIET_POLLS = 2


class ReplayStatus(msgspec.Struct):
    """What the simulator says of its replay."""

    replay_done: bool


async def replay_received(client: RestClient, metrics: Metrics) -> None:
    """Return once the simulator's replay is done, and nothing more of it arrives.

    Raises:
        RestError: the simulator does not answer.
    """
    request = RestRequest("/simulator/status", 0)
    quiet, seen = 0, -1
    while quiet < QUIET_POLLS:
        await trio.sleep(POLL_S)
        status = msgspec.json.decode(await client.get(request), type=ReplayStatus)
        now = sum(stats.stored for stats in metrics.feeds.values())
        quiet = quiet + 1 if status.replay_done and now == seen else 0
        seen = now
