"""The random market of a venue: each instrument's book, trades, mark price and liquidations, at any time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from harvest.simulator.clock import EPOCH_NS
from harvest.simulator.noise import ValueNoise, key_of, mix
from harvest.simulator.random_book import STEP_NS, RandomBook
from harvest.simulator.random_trades import RandomTrades
from harvest.simulator.wire import Liquidation, MarkPrice

if TYPE_CHECKING:
    from harvest.simulator.listing import Listed

STEP_MS: Final = STEP_NS // 1_000_000
_FUNDING_MS: Final = 8 * 3_600_000
#: One second in so many has a liquidation.
_LIQUIDATION_ONE_IN: Final = 90


def step_at(venue_ns: int) -> int:
    """Give the last step that has begun at an instant."""
    return (venue_ns - EPOCH_NS) // STEP_NS


class RandomInstrument:
    """Everything that the random market says of one instrument."""

    def __init__(self, listed: Listed, seed: int, *, rate: float, futures: bool) -> None:
        self.listed = listed
        self.book = RandomBook(listed, seed, futures=futures)
        self.trades = RandomTrades(listed, self.book, seed, rate=rate, futures=futures)
        key = key_of(seed, "mark", listed.symbol)
        self._basis = ValueNoise(mix(key, 1), ((600, 0.0004), (36_000, 0.0008)))
        self._force_key = mix(key, 2)
        self._interest_key = mix(key, 3)

    def mark_price(self, step: int) -> MarkPrice:
        """Give the mark price at a step: the mid, a smooth basis away from the index."""
        bid, ask = self.book.touch(step)
        scale = 10 ** (8 - self.listed.tick_places)
        mark = (bid + ask) * scale // 2
        basis = self._basis.at(step)
        now_ms = EPOCH_NS // 1_000_000 + step * STEP_MS
        return MarkPrice(
            mark=_eight(mark),
            index=_eight(int(mark * (1.0 - basis))),
            funding_rate=f"{basis / 8:.8f}",
            next_funding_ms=(now_ms // _FUNDING_MS + 1) * _FUNDING_MS,
        )

    def liquidation(self, second: int) -> Liquidation | None:
        """Give the latest liquidation of a second from the epoch on; mostly there is none."""
        chance = mix(self._force_key, second)
        if chance % _LIQUIDATION_ONE_IN:
            return None
        time_ms = EPOCH_NS // 1_000_000 + second * 1000 + (chance >> 8) % 1000
        sold = bool(chance >> 20 & 1)
        bid, ask = self.book.touch((time_ms - EPOCH_NS // 1_000_000) // STEP_MS)
        return Liquidation(time_ms, sold, bid if sold else ask, 1 + (chance >> 24) % self.listed.step_base)

    def open_interest(self, step: int) -> str:
        """Give the open interest at a step, in the instrument's quantity."""
        wave = mix(self._interest_key, step // 1200) % 1000
        return self.listed.qty(self.listed.step_base * (50_000 + wave))


def _eight(units: int) -> str:
    return f"{units // 10**8}.{units % 10**8:08d}"


class RandomMarket:
    """The random market of one venue."""

    def __init__(self, listing: dict[str, Listed], seed: int, *, rate: float, futures: bool) -> None:
        self.instruments = {
            symbol: RandomInstrument(listed, seed, rate=rate, futures=futures)
            for symbol, listed in listing.items()
        }
