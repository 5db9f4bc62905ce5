"""Trades as Binance's markets write them, byte for byte, and what is found in blocks of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from harvest.errors import MalformedMessageError
from harvest.market import TRADE, TRADE_ROWS
from tests.pipeline.wire import T0_MS

if TYPE_CHECKING:
    import random
    from collections.abc import Sequence

    from harvest.market import TradeRun
    from harvest.venues.protocol import Venue

_DATA = {
    (
        "binance-usdm",
        "aggTrade",
    ): '"e":"aggTrade","E":{event_time},"a":{trade_id},"s":"{symbol}","p":"{price}",'
    '"q":"{qty}","nq":"{qty}","f":{first},"l":{last},"T":{time},"m":{sold},"st":1',
    (
        "binance-usdm",
        "trade",
    ): '"e":"trade","E":{event_time},"T":{time},"s":"{symbol}","t":{trade_id},"p":"{price}",'
    '"q":"{qty}","X":"{kind}","m":{sold}',
    (
        "binance-spot",
        "aggTrade",
    ): '"e":"aggTrade","E":{event_time},"s":"{symbol}","a":{trade_id},"p":"{price}",'
    '"q":"{qty}","f":{first},"l":{last},"T":{time},"m":{sold},"M":true',
    (
        "binance-spot",
        "trade",
    ): '"e":"trade","E":{event_time},"s":"{symbol}","t":{trade_id},"p":"{price}","q":"{qty}",'
    '"T":{time},"m":{sold},"M":true',
}
FORMS = sorted(_DATA)
#: Digits after the point of a price and of a quantity.
PLACES = {"binance-usdm": (2, 3), "binance-spot": (8, 8)}


def written(
    form: tuple[str, str],
    trade_id: int,
    *,
    symbol: str = "BTCUSDT",
    price: str = "61837.63",
    qty: str = "0.020",
    time: int = T0_MS,
    event_time: int | None = None,
    sold: bool = False,
    kind: str = "MARKET",
) -> bytes:
    """Write one trade in the form of a venue and an event; ``kind`` is X, where there is one."""
    data = _DATA[form].format(
        trade_id=trade_id,
        symbol=symbol,
        price=price,
        qty=qty,
        time=time,
        event_time=time if event_time is None else event_time,
        first=trade_id * 2,
        last=trade_id * 2 + 1,
        sold="true" if sold else "false",
        kind=kind,
    )
    return f'{{"stream":"{symbol.lower()}@{form[1]}","data":{{{data}}}}}'.encode()


class Tape:
    """Writes the trades of one symbol, one after the other, with all that varies among them in a quiet market."""

    def __init__(
        self,
        dice: random.Random,
        form: tuple[str, str],
        symbol: str = "BTCUSDT",
        *,
        first_id: int = 3_010_230_123,
        at_ms: int = T0_MS,
    ) -> None:
        self.dice, self.form, self.symbol = dice, form, symbol
        self.next_id, self.at_ms = first_id, at_ms
        self._price = dice.choice((0.00001234, 0.9, 99.5, 6180.0, 99_990.0))

    def write(self, *, scale: int = 1, **changed: Any) -> bytes:
        """Write the next trade; times are milliseconds times ``scale``."""
        dice, (price_places, qty_places) = self.dice, PLACES[self.form[0]]
        self._price *= 1 + dice.choice((-1, 0, 0, 1)) * 1e-4
        self.at_ms += dice.choice((0, 0, 0, 1))
        time = self.at_ms * scale
        (qty,) = dice.choices((0.001, 0.02, 0.5, 3.25, 120.0), (9, 9, 9, 1, 1))
        fields = {
            "symbol": self.symbol,
            "price": f"{self._price:.{price_places}f}",
            "qty": f"{qty * dice.randrange(1, 9):.{qty_places}f}",
            "time": time,
            "event_time": time + dice.choice((0, 0, 1, 150)) * scale,
            "sold": dice.random() < 0.5,
        }
        self.next_id += 1
        return written(self.form, self.next_id - 1, **(fields | changed))

    def many(self, count: int, **changed: Any) -> list[bytes]:
        """Write the next trades."""
        return [self.write(**changed) for _ in range(count)]


def strange(dice: random.Random) -> bytes:
    """Write a trade in a way of its own: which fields, in which order, and how each of them is written."""
    number = [
        "0",
        "1",
        "7",
        "12",
        "99999999",
        "123456789",
        "1e3",
        "12.0",
        "0.5",
        "1.25",
        "123456789.125",
        "-0",
    ]
    time = ["1721343600000", "1721343600000000", "10000000000000000", "9999999999999999", "1721343600000.0"]
    written_as = {
        "E": (*time, *number),
        "T": (*time, *number),
        "a": (*number, "3010230123", "922337203685477580", "9223372036854775807"),
        "t": (*number, "3010230123", "922337203685477580", "9223372036854775807"),
        "p": (*number, "61837.63", "0.00001234", "12345678.1234567", "12345678.12345678", "0.123456789"),
        "q": (*number, "0.020", "1234567.12345678"),
        "s": ("1000PEPE", "BTC", "7", "牛来USDT"),
        "m": ("true", "false", "0", "1", "01"),
        "X": ("MARKET", "7", "null"),
        "f": (*number, "012", "x5", "null"),
        "M": ("true", "5", "null"),
    }
    event = dice.choice(("aggTrade", "trade"))
    needed = ["E", "T", "a" if event == "aggTrade" else "t", "p", "q", "s", "m"]
    names = [*needed, *dice.sample(sorted(written_as), dice.choice((0, 1, 4)))]
    fields = [("e", f'"{event}"')]
    for name in names:
        # What is plain comes most often, or nothing of it would be a trade.
        values = written_as[name]
        value = dice.choice(values[: dice.choice((2, 2, 2, len(values)))])
        if name not in "mM" or dice.random() < 0.1:
            value = dice.choice((f'"{value}"', value if value[0] in "0123456789nt" else f'"{value}"'))
        fields.append((name, value))
    if dice.random() < 0.5:
        dice.shuffle(fields)
    text = ",".join(f'"{name}":{value}' for name, value in fields)
    return f'{{"stream":"btc1@{event}","data":{{{text}}}}}'.encode()


def decoded(venue: Venue, payloads: Sequence[bytes]) -> list[tuple[Any, ...]] | None:
    """Decode trades one by one: (symbol, id space, type, packed rows) of each owner, the one that comes first before the others.

    None if one is no trade.
    """
    found: dict[tuple[Any, ...], list[tuple[Any, ...]]] = {}
    for payload in payloads:
        try:
            one: Any = venue.decode(payload)
        except MalformedMessageError:
            return None
        if one.shape != TRADE:
            return None
        row = (
            one.event_time,
            one.trade_time,
            one.trade_id,
            one.price,
            one.qty,
            one.aggressor_sold,
            0,
        )
        found.setdefault((one.symbol, one.id_space, one.trade_type), []).append(row)
    return [(*owner, np.array(rows, TRADE_ROWS).tobytes()) for owner, rows in found.items()]


def plain(runs: list[TradeRun]) -> list[tuple[Any, ...]]:
    """Return runs as ``decoded`` does."""
    return [(*run[:3], run.rows.tobytes()) for run in runs]
