"""The regression guard: what harvest does for a message, against decoding it alone, in one run: ``python -m bench.guard``.

Both take turns on the same frames, in one process, by the processor's time of this thread, and the best round of each
counts: what slows the machine down slows both. No absolute time is asked for. A log line, an await or some needless objects
for each message cost more than the bounds leave.
"""

from __future__ import annotations

import gc
import sys
import time
from typing import TYPE_CHECKING

import attrs
import msgspec

from bench.measures.memory import pipeline
from bench.measures.stages import RECEIVED_BYTES, framed
from bench.peers.load import DEPTH, SYMBOL, TRADES, make
from harvest.nurseries.frames import FrameSlicer
from harvest.pipeline.records import Frames, SnapshotBody

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from bench.peers.load import Load

ROUNDS = 25
#: Messages that come before, so that there are tables and a book.
AHEAD = 3
#: Stream, messages, how many bytes are received at once (0: each message alone), and how many times as long as decoding alone is
#: too long: about 1.6 times what it takes.
GUARDED = {
    "a trade among many, from the received bytes to its row": (TRADES, 4_000, RECEIVED_BYTES, 2.0),
    "a diff of 57 levels among many, from the received bytes to its rows": (DEPTH, 600, RECEIVED_BYTES, 4.8),
    "a trade alone": (TRADES, 1_000, 0, 8.5),
    "a diff of 57 levels alone": (DEPTH, 200, 0, 11.0),
}


@attrs.frozen
class Cost:
    """What one path costs, as a multiple of decoding alone."""

    name: str
    ratio: float
    bound: float

    @property
    def holds(self) -> bool:
        """Whether it stays within its bound."""
        return self.ratio <= self.bound


def costs() -> Iterable[Cost]:
    """Measure each path that is guarded."""
    load = make("mix", 5_100)
    for name, (stream, count, at_once, bound) in GUARDED.items():
        frames = load.frames(frozenset((stream,)))[: count + AHEAD]
        yield Cost(name, _ratio(load, frames[:AHEAD], frames[AHEAD:], at_once), bound)


def _ratio(load: Load, ahead: list[bytes], frames: list[bytes], at_once: int) -> float:
    pieces = list(map(framed, frames))
    if at_once:
        wire = b"".join(pieces)
        pieces = [wire[at : at + at_once] for at in range(0, len(wire), at_once)]
    decode = msgspec.json.Decoder().decode

    def decode_alone() -> None:
        for frame in frames:
            decode(frame)

    def ours() -> Callable[[], None]:
        machine, slicer = pipeline(), FrameSlicer(2**20)
        machine.feed(SnapshotBody(1, 1, 1, SYMBOL, load.snapshot))
        machine.feed(Frames(2, 2, 2, "trade-1", ahead))

        def receive() -> None:
            for seq, data in enumerate(pieces, start=3):
                machine.feed(Frames(seq, seq, seq, "trade-1", slicer.feed(data)[0]))

        return receive

    gc.collect()
    gc.disable()
    try:
        spent = [(_seconds(ours()), _seconds(decode_alone)) for _ in range(ROUNDS)]
    finally:
        gc.enable()
    return min(one for one, _ in spent) / min(alone for _, alone in spent)


def _seconds(run: Callable[[], None]) -> float:
    begun = time.thread_time()
    run()
    return time.thread_time() - begun


def main() -> None:
    """Print each path's cost; exits with 1 if one is beyond its bound."""
    failed = False
    for cost in costs():
        failed |= not cost.holds
        verdict = "holds" if cost.holds else "TOO SLOW"
        print(f"{cost.name}: {cost.ratio:.2f} × decoding alone, bound {cost.bound:g}: {verdict}")
    sys.exit(int(failed))


if __name__ == "__main__":
    main()
