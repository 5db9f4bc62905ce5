"""What differs between the two venues: routes, limits, deadlines and prices in weight.

Source: the public API documentation of Binance (spot and USD-M futures), as of autumn 2026.
"""

from __future__ import annotations

from typing import Final, Literal

import attrs

VenueName = Literal["binance-usdm", "binance-spot"]
Route = Literal["public", "market", "private", "none"]


@attrs.frozen
class VenueRules:
    """The facts of one venue that its server enforces."""

    venue: VenueName
    futures: bool
    rest_prefix: str
    ping_interval_s: float
    pong_deadline_s: float
    messages_per_s: int
    streams_per_connection: int
    attempts_in_5_min: int | None
    """How many WebSocket handshakes an address may try in five minutes; None where the venue says nothing."""
    weight_per_minute: int
    depth_interval_ms: int
    """The interval of a plain ``@depth`` stream."""
    depth_intervals_ms: frozenset[int]
    history_ms: int | None
    """How far back aggTrades go; None for all of it."""


USDM: Final = VenueRules(
    venue="binance-usdm",
    futures=True,
    rest_prefix="/fapi/v1/",
    ping_interval_s=180.0,
    pong_deadline_s=600.0,
    messages_per_s=10,
    streams_per_connection=200,
    attempts_in_5_min=None,
    weight_per_minute=2400,
    depth_interval_ms=250,
    depth_intervals_ms=frozenset({0, 100, 250, 500}),
    history_ms=48 * 3_600_000,
)

SPOT: Final = VenueRules(
    venue="binance-spot",
    futures=False,
    rest_prefix="/api/v3/",
    ping_interval_s=20.0,
    pong_deadline_s=60.0,
    messages_per_s=5,
    streams_per_connection=1024,
    attempts_in_5_min=300,
    weight_per_minute=6000,
    depth_interval_ms=1000,
    depth_intervals_ms=frozenset({100, 1000}),
    history_ms=None,
)

RULES: Final[dict[str, VenueRules]] = {rules.venue: rules for rules in (USDM, SPOT)}


def depth_weight(rules: VenueRules, limit: int) -> int:
    """Give the weight of a depth request of ``limit`` levels."""
    prices = (
        ((50, 2), (100, 5), (500, 10), (1000, 20))
        if rules.futures
        else ((100, 5), (500, 25), (1000, 50), (5000, 250))
    )
    return next((weight for most, weight in prices if limit <= most), prices[-1][1])
