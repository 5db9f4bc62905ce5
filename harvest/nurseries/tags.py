"""The tags of each feed in the log."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harvest.market import CHANNELS

if TYPE_CHECKING:
    from harvest.market import Feed

TAGS: dict[Feed, tuple[str, ...]] = {
    "trade": ("TRADE",),
    "orderbook": ("ORDERBOOK",),
    **{channel: ("CHANNEL", channel.upper()) for channel in CHANNELS},
}
