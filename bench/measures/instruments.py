"""What a message costs against the number of instruments that they are spread over."""

from __future__ import annotations

import time
from statistics import median

from bench.measures.found import Found
from bench.measures.memory import BLOCK, pipeline
from bench.peers.load import SYMBOL, make
from harvest.pipeline.records import Frames, SnapshotBody

COUNTS = (1, 10, 100, 1000)


def measure_instruments(*, quick: bool) -> Found:
    """Feed the same number of trades, and of diffs, of 1 to 1,000 instruments in turn."""
    figures: dict[str, float] = {}
    for mix, messages in (("trades", 100_000), ("mix", 50_000)):
        for count in COUNTS:
            costs = [_cost_us(mix, messages // (2 if quick else 1), count) for _ in range(3)]
            figures[f"{mix}, {count:,} instruments: µs each"] = median(costs)
    return Found("cost of a message against the number of instruments", figures)


def _cost_us(mix: str, messages: int, count: int) -> float:
    load = make("mix" if mix == "mix" else "trades", messages // count)
    of_one = load.frames(frozenset(stream for stream, _ in load.order))
    names = [f"S{number:04}USDT" for number in range(count)]
    old, old_stream = SYMBOL.encode(), SYMBOL.lower().encode()
    frames = [
        frame.replace(old_stream, name.lower().encode()).replace(old, name.encode())
        for frame in of_one
        for name in names
    ]
    machine = pipeline(names)
    if mix == "mix":
        for name in names:
            machine.feed(SnapshotBody(1, 1, 1, name, load.snapshot))
    begun = time.process_time()
    for seq, start in enumerate(range(0, len(frames), BLOCK), start=2):
        machine.feed(Frames(seq, seq, seq, "trade-1", frames[start : start + BLOCK]))
    return (time.process_time() - begun) / len(frames) * 1e6
