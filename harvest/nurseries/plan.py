"""What a stream is to carry, and how that changes while it runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from harvest.venues.protocol import ConnectionPlan


class ChangingPlan:
    """The plan of a stream as it is ``now``, shared by all its sockets; whoever carries it out waits for changes."""

    def __init__(self, plan: ConnectionPlan) -> None:
        self.now = plan
        self._waiting = trio.lowlevel.ParkingLot()

    def change(self, plan: ConnectionPlan) -> None:
        """Put another plan in its place: the URL stays what it was."""
        self.now = plan
        self._waiting.unpark_all()

    async def changed(self) -> None:
        """Wait for the next change. Look at ``now`` right before: what changed earlier is not waited for."""
        await self._waiting.park()
