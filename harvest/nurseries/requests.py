"""The requests of one connection: numbered, and no faster than the venue takes them."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from harvest.nurseries.connection import Connection
    from harvest.venues.protocol import Venue

#: Pings and pongs count too, and what we send in a second may arrive in less.
SHARE = 0.5


class Requests:
    """Subscribes and unsubscribes on one connection, for all who do, within the venue's limit of messages a second."""

    def __init__(self, connection: Connection, venue: Venue) -> None:
        #: Requests so far; each is answered once.
        self.sent = 0
        self._connection = connection
        self._venue = venue
        self._turn = trio.Lock()
        self._sent_at: deque[float] = deque(maxlen=max(int(SHARE * venue.messages_per_s), 1))

    async def subscribe(self, streams: Sequence[str]) -> None:
        """Subscribe to streams.

        Raises:
            ConnectionLostError: the connection has ended.
        """
        await self._send(self._venue.subscribe, streams)

    async def unsubscribe(self, streams: Sequence[str]) -> None:
        """Unsubscribe from streams.

        Raises:
            ConnectionLostError: the connection has ended.
        """
        await self._send(self._venue.unsubscribe, streams)

    async def _send(self, make: Callable[[Sequence[str], int], list[str]], streams: Sequence[str]) -> None:
        async with self._turn:
            for request in make(streams, self.sent + 1):
                if len(self._sent_at) == self._sent_at.maxlen:
                    await trio.sleep_until(self._sent_at[0] + 1.0)
                # Counted before it is sent: the answer may be there before ``send`` has returned.
                self.sent += 1
                self._sent_at.append(trio.current_time())
                await self._connection.send(request)
