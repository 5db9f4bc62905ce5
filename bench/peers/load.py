"""What is sent: frames of one instrument as Binance USD-M sends them, numbered without a gap."""

from __future__ import annotations

import json
import random
import re
from typing import Literal

import attrs

SYMBOL = "BTCUSDT"
TRADES, DEPTH = "btcusdt@aggTrade", "btcusdt@depth@100ms"
#: Inside one UTC date, so that every side writes one.
BEGIN_MS = 1_785_542_400_000 + 3_600_000
#: Levels of one diff, both sides together, and trades to each of them.
DIFF_LEVELS = 57
TRADES_A_DIFF = 4
FIRST_TRADE_ID = 2_400_000_001
SNAPSHOT_ID = 5_000_000_000
SNAPSHOT_LEVELS = 1000
#: Bytes of an aggTrade, on the average, in its envelope.
TRADE_BYTES = 195

#: Before the time of an event, and the digits of one in microseconds.
EVENT_TIME, STAMP_DIGITS = b'"E":', 16

_MILLISECONDS = re.compile(rb'"E":(\d{13})')

Mix = Literal["trades", "mix"]


@attrs.frozen
class Load:
    """The frames of each stream, in order; ``first`` ones are sent before the clock runs."""

    mix: Mix
    trades: list[bytes]
    diffs: list[bytes]
    order: list[tuple[str, int]]
    snapshot: bytes

    @property
    def messages(self) -> int:
        """How many frames there are."""
        return len(self.trades) + len(self.diffs)

    def frames(self, streams: frozenset[str]) -> list[bytes]:
        """Return the frames of some streams, in their order."""
        of = {TRADES: self.trades, DEPTH: self.diffs}
        return [of[stream][index] for stream, index in self.order if stream in streams]


def make(mix: Mix, messages: int, *, seed: int = 1) -> Load:
    """Make ``messages`` frames: trades alone, or four trades to one diff of 57 levels."""
    dice = random.Random(seed)
    of_trades: list[bytes] = []
    diffs: list[bytes] = []
    order: list[tuple[str, int]] = []
    mid = 640_000  # in ticks of 0.10
    update_id = SNAPSHOT_ID
    for number in range(messages):
        now_ms = BEGIN_MS + number // 20
        mid += dice.choice((-1, 0, 0, 0, 1))
        if mix == "mix" and number % (TRADES_A_DIFF + 1) == 0:
            previous, update_id = update_id, update_id + dice.randint(60, 900)
            order.append((DEPTH, len(diffs)))
            diffs.append(_diff(dice, mid, now_ms, previous, update_id))
        else:
            order.append((TRADES, len(of_trades)))
            of_trades.append(_trade(dice, mid, now_ms, FIRST_TRADE_ID + len(of_trades)))
    return Load(mix, of_trades, diffs, order, _snapshot(640_000))


def trades(count: int, first: int) -> list[bytes]:
    """Make trades alone, from the ``first``-th on."""
    dice = random.Random(first)
    return [_trade(dice, 640_000, BEGIN_MS, FIRST_TRADE_ID + first + number) for number in range(count)]


def in_microseconds(load: Load) -> Load:
    """Return the load with event times in microseconds, as a venue gives them that is asked to."""

    def changed(frames: list[bytes]) -> list[bytes]:
        return [_MILLISECONDS.sub(rb'"E":\g<1>000', frame, count=1) for frame in frames]

    return attrs.evolve(load, trades=changed(load.trades), diffs=changed(load.diffs))


def _price(ticks: int) -> str:
    return f"{ticks // 10}.{ticks % 10}0"


def _trade(dice: random.Random, mid: int, now_ms: int, trade_id: int) -> bytes:
    last = trade_id * 2
    maker = "true" if dice.random() < 0.5 else "false"
    return (
        f'{{"stream":"{TRADES}","data":{{"e":"aggTrade","E":{now_ms},"a":{trade_id},"s":"{SYMBOL}",'
        f'"p":"{_price(mid)}","q":"{dice.randint(1, 2000) / 1000:.3f}","f":{last - 1},"l":{last},'
        f'"T":{now_ms - 3},"m":{maker}}}}}'
    ).encode()


def _diff(dice: random.Random, mid: int, now_ms: int, previous: int, update_id: int) -> bytes:
    def levels(count: int, direction: int) -> str:
        ticks = {mid + direction * (1 + int(dice.expovariate(0.02))) for _ in range(count)}
        quantities = (0 if dice.random() < 0.3 else dice.randint(1, 20_000) for _ in ticks)
        return ",".join(f'["{_price(t)}","{q / 1000:.3f}"]' for t, q in zip(ticks, quantities, strict=True))

    bids = DIFF_LEVELS // 2
    return (
        f'{{"stream":"{DEPTH}","data":{{"e":"depthUpdate","E":{now_ms},"T":{now_ms - 4},"s":"{SYMBOL}",'
        f'"U":{previous + 1},"u":{update_id},"pu":{previous},'
        f'"b":[{levels(bids, -1)}],"a":[{levels(DIFF_LEVELS - bids, +1)}]}}}}'
    ).encode()


def _snapshot(mid: int) -> bytes:
    sides = {
        name: [[_price(mid + direction * (1 + depth)), "1.500"] for depth in range(SNAPSHOT_LEVELS)]
        for name, direction in (("bids", -1), ("asks", +1))
    }
    return json.dumps({"lastUpdateId": SNAPSHOT_ID, "E": BEGIN_MS, "T": BEGIN_MS} | sides).encode()
