"""What a venue says: URLs, limits, subscriptions, decoding. One file a venue."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harvest.venues.binance_spot import BinanceSpot
from harvest.venues.binance_usdm import BinanceUsdm

if TYPE_CHECKING:
    from harvest.venues.protocol import Venue

VENUES: dict[str, Venue] = {venue.name: venue for venue in (BinanceUsdm(), BinanceSpot())}
