"""What the parts of a running simulator share: its connections, who hears which stream, what is wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from harvest.simulator.standing import StandingFaults

if TYPE_CHECKING:
    from harvest.simulator.config import SimulatorConfig
    from harvest.simulator.connection import Connection
    from harvest.simulator.sent import SentAccount
    from harvest.simulator.streams import StreamKey

    Audience = list[tuple[Connection, str]]


class VenueState:
    """The shared state; everything in it belongs to the one Trio thread."""

    def __init__(self, config: SimulatorConfig, sent: SentAccount) -> None:
        self.config = config
        self.rules = config.rules
        self.sent = sent
        self.standing = StandingFaults()
        self.connections: dict[int, Connection] = {}
        self.first_ack = trio.Event()
        self.subscribed_at = -float("inf")
        self.version = 0
        self.connections_seen = 0
        self.applied_faults: list[tuple[str, int]] = []
        self._audiences: dict[StreamKey, Audience] = {}
        self._built = -1
        self._changed = trio.Event()

    def mark_changed(self) -> None:
        """Say that who hears what has changed, or a fault about it has begun or ended."""
        self.version += 1
        self._changed.set()

    def mark_subscribed(self) -> None:
        """Say that a subscription was acknowledged."""
        self.subscribed_at = trio.current_time()
        self.first_ack.set()
        self.mark_changed()

    async def changed(self) -> None:
        """Wait for the next change."""
        if self._changed.is_set():
            self._changed = trio.Event()
        await self._changed.wait()

    def audiences(self) -> dict[StreamKey, Audience]:
        """Give for each stream the connections that hear it, each with its own name of the stream."""
        if self._built != self.version:
            self._audiences = {}
            for connection in self.connections.values():
                for name, key in connection.audible():
                    self._audiences.setdefault(key, []).append((connection, name))
            self._built = self.version
        return self._audiences
