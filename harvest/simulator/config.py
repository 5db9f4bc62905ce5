"""How a simulator is asked for, and where it then listens."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from harvest.errors import SimulatorError
from harvest.simulator.rules import RULES, VenueName, VenueRules

if TYPE_CHECKING:
    from collections.abc import Iterable


@attrs.frozen
class Endpoints:
    """Where a simulator listens; ``pid`` is the process that serves it."""

    venue: VenueName
    ws_url: str
    rest_url: str
    pid: int


def _paths(values: Iterable[Path | str]) -> tuple[Path, ...]:
    return tuple(Path(value) for value in values)


def _texts(values: Iterable[str]) -> tuple[str, ...]:
    return tuple(values)


@attrs.frozen
class SimulatorConfig:
    """Everything that decides what a simulator serves. None means the venue's own value.

    ``symbols`` are what exchangeInfo lists (empty: a dozen well-known ones; in a replay: the files').
    ``speed`` scales the venue's time; None is as fast as the clients read, for a replay only.
    ``start_ns`` is the venue's time at the start; without it that is the clock's (at a speed other than 1:
    the distance from the market's epoch times the speed), so that the market goes on between runs.
    ``rate`` multiplies the numbers of trades. ``replay_streams`` are the streams a replay waits for;
    without them it waits until no subscription has come for ``settle_s``.
    """

    venue: VenueName = "binance-usdm"
    symbols: tuple[str, ...] = attrs.field(default=(), converter=_texts)
    seed: int = 1
    host: str = "127.0.0.1"
    port: int = 0
    speed: float | None = 1.0
    rate: float = 1.0
    start_ns: int | None = None
    faults: tuple[str, ...] = attrs.field(default=(), converter=_texts)
    fault_file: Path | None = attrs.field(default=None, converter=attrs.converters.optional(Path))
    replay: tuple[Path, ...] = attrs.field(default=(), converter=_paths)
    replay_streams: tuple[str, ...] = attrs.field(default=(), converter=_texts)
    settle_s: float = 0.3
    sent_log: Path | None = attrs.field(default=None, converter=attrs.converters.optional(Path))
    exit_with_parent: bool = False
    ping_interval_s: float | None = None
    pong_deadline_s: float | None = None
    messages_per_s: int | None = None
    streams_per_connection: int | None = None
    attempts_in_5_min: int | None = None
    weight_per_minute: int | None = None
    connection_life_s: float = 86_400.0
    ignored_429s: int = 10
    """So many requests after a 429, before its ``Retry-After`` is over, bring a ban."""
    ban_s: float = 120.0
    send_buffer_bytes: int = 1 << 20
    """A replay does not run further ahead of a client than this."""
    backlog_bytes: int = 64 << 20
    """A client that lags further behind the random market is disconnected, as the venue would."""
    tls_chain: Path | None = attrs.field(default=None, converter=attrs.converters.optional(Path))
    tls_key: Path | None = attrs.field(default=None, converter=attrs.converters.optional(Path))

    def __attrs_post_init__(self) -> None:
        """Refuse what cannot be served.

        Raises:
            SimulatorError: For an unknown venue, a speed or rate out of range, half a TLS identity.
        """
        if self.venue not in RULES:
            raise SimulatorError(f"unknown venue {self.venue!r}: the simulator knows {', '.join(RULES)}")
        if self.speed is None and not self.replay:
            raise SimulatorError("speed max is for a replay: the random market needs a clock. Give a number.")
        if self.speed is not None and not 0 < self.speed <= 1000:
            raise SimulatorError(f"speed {self.speed} is not in (0, 1000]; max is for a replay")
        if not 0 <= self.rate <= 100_000:
            raise SimulatorError(f"rate {self.rate} is not in [0, 100000]")
        if (self.tls_chain is None) is not (self.tls_key is None):
            raise SimulatorError("a certificate chain and its key belong together: give both or none")

    @property
    def rules(self) -> VenueRules:
        """The venue's rules, with what this configuration changes in them."""
        changes = {
            name: value
            for name in (
                "ping_interval_s",
                "pong_deadline_s",
                "messages_per_s",
                "streams_per_connection",
                "attempts_in_5_min",
                "weight_per_minute",
            )
            if (value := getattr(self, name)) is not None
        }
        return attrs.evolve(RULES[self.venue], **changes)
