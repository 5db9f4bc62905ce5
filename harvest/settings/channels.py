"""What is recorded besides trades and order books."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from harvest.market import Channel  # noqa: TC001 - the types of settings are resolved when they are read
from harvest.settings.fields import duration, setting

if TYPE_CHECKING:
    from collections.abc import Iterable


def _unique(channels: Iterable[Channel] | None) -> tuple[Channel, ...] | None:
    return None if channels is None else tuple(dict.fromkeys(channels))


@attrs.frozen
class ChannelSettings:
    """What is recorded besides trades and order books."""

    record: tuple[Channel, ...] | None = setting(
        None,
        "HARVEST_CHANNELS",
        "bbo, mark, liquidations, open_interest, partial_depth; binance-spot: bbo, partial_depth",
        converter=_unique,
        none="no other channel",
        flag="--channels",
    )
    partial_levels: int = setting(
        20,
        "HARVEST_PARTIAL_LEVELS",
        "levels a side of partial depth: 5, 10 or 20",
        unit="levels",
        min=5,
        max=20,
    )
    partial_interval_ms: int = setting(
        100,
        "HARVEST_PARTIAL_INTERVAL_MS",
        "between two messages of partial depth; binance-usdm: 100, 250, 500; binance-spot: 100, 1000",
        unit="ms",
        min=100,
        max=1000,
    )
    open_interest_s: float = duration(
        60.0, "HARVEST_OPEN_INTEREST_SEC", "between two questions for the open interest of a symbol", min=1
    )
