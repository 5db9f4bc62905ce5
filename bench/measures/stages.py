"""Where the time of one trade and of one diff goes: each stage alone, on the same messages."""

from __future__ import annotations

import struct
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from bench.measures.found import Found
from bench.measures.memory import BLOCK, pipeline
from bench.peers.load import DEPTH, SYMBOL, TRADES, make
from harvest.book.flow import LEVELS, OrderFlow
from harvest.book.ladder import Ladder
from harvest.book.sequence import DepthChain, TradeSequence
from harvest.nurseries.frames import FrameSlicer
from harvest.nurseries.journaling import Journaling
from harvest.pipeline.records import Frames, SnapshotBody
from harvest.settings import JournalSettings
from harvest.storage.journal import Journal
from harvest.storage.parquet import Provenance, encode, warm_up
from harvest.venues import VENUES
from harvest.venues.blocks import join

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from bench.peers.load import Load
    from harvest.pipeline.machine import Pipeline
    from harvest.venues.blocks import Block

RECEIVED_BYTES = 256 * 1024
ROUNDS = 3


def measure_stages(*, quick: bool) -> Found:
    """Time the stages one by one; the last line of each is all of them together, as the state machine does it."""
    load = make("mix", 25_000 if quick else 100_000)
    warm_up()
    figures: dict[str, float] = {}
    for name, stream in (("trade", TRADES), ("diff", DEPTH)):
        frames = load.frames(frozenset((stream,)))
        for stage, run in _stages(name, frames, load).items():
            best = min(_seconds(run) for _ in range(ROUNDS))
            figures[f"{name}: {stage}, µs"] = best / len(frames) * 1e6
    return Found("µs of CPU by stage", figures)


def _seconds(run: Callable[[], Callable[[], object]]) -> float:
    """Prepare a stage, and time it."""
    go = run()
    begun = time.process_time()
    go()
    return time.process_time() - begun


def _stages(name: str, frames: list[bytes], load: Load) -> dict[str, Callable[[], Callable[[], object]]]:
    decode = VENUES["binance-usdm"].decode
    messages = [decode(frame) for frame in frames]
    blocks = [frames[start : start + BLOCK] for start in range(0, len(frames), BLOCK)]
    many = max(RECEIVED_BYTES * len(frames) // sum(map(len, frames)), 1)
    in_one_piece = [join(frames[start : start + many]) for start in range(0, len(frames), many)]

    def slicing() -> Callable[[], object]:
        wire = b"".join(framed(frame) for frame in frames)
        received = [wire[at : at + RECEIVED_BYTES] for at in range(0, len(wire), RECEIVED_BYTES)]
        slicer = FrameSlicer(2**20)
        return lambda: [slicer.feed(data) for data in received]

    def decoding() -> Callable[[], object]:
        return lambda: [decode(frame) for frame in frames]

    def reading() -> Callable[[], object]:
        # As they are received where there are many: in one piece.
        read = VENUES["binance-usdm"].decode_runs
        return lambda: [read(one) for one in in_one_piece]

    def sequencing() -> Callable[[], object]:
        if name == "trade":
            sequence = TradeSequence()
            return lambda: [sequence.accept(one.trade_id) for one in messages]
        chain = DepthChain("usdm")
        return lambda: [
            chain.accept(one.first_update_id, one.last_update_id, one.prev_update_id) for one in messages
        ]

    def booking() -> Callable[[], object]:
        book = _ladder(load)
        return lambda: [(book.apply(one.bids, one.asks), book.top(LEVELS)) for one in messages]

    def flowing() -> Callable[[], object]:
        book, flow = _ladder(load), OrderFlow()
        tops = [(book.apply(one.bids, one.asks), book.top(LEVELS))[1] for one in messages]
        return lambda: [flow.update(*top) for top in tops]

    def journaling() -> Callable[[], object]:
        records = [Frames(seq, seq, seq, "trade-1", block) for seq, block in enumerate(blocks, start=1)]

        def append() -> None:
            with tempfile.TemporaryDirectory(prefix="harvest-bench-") as directory:
                # Without its threads: what they do, they do beside the loop.
                journal = Journaling(
                    Journal(Path(directory), venue="b", run="r", facts={}, settings=JournalSettings())
                )
                for record in records:
                    journal.take(record)

        return lambda: append()

    def ready() -> Pipeline:
        machine = pipeline()
        if name == "diff":
            machine.feed(SnapshotBody(1, 1, 1, SYMBOL, load.snapshot))
        return machine

    def feeding(pieces: Sequence[Block]) -> Callable[[], object]:
        machine = ready()
        records = [Frames(seq, seq, seq, "trade-1", piece) for seq, piece in enumerate(pieces, start=2)]
        return lambda: [machine.feed(record) for record in records]

    def encoding() -> Callable[[], object]:
        machine = ready()
        for seq, block in enumerate(blocks, start=2):
            machine.feed(Frames(seq, seq, seq, "trade-1", block))
        machine.tables.seal_all()
        sealed = machine.tables.take_sealed()
        provenance = Provenance("binance-usdm", "20260101T000000Z0000", trade_ids="aggregate")
        return lambda: [encode(one, provenance) for one in sealed]

    stages = {
        "slice of frames": slicing,
        "decode": decoding,
        "decode, among many": reading,
        "sequence": sequencing,
    }
    if name == "diff":
        stages |= {"book, top 10": booking, "flow": flowing}
    return stages | {
        "journal append": journaling,
        "decode to packed row": lambda: feeding(blocks),
        "decode to packed row, among many": lambda: feeding(in_one_piece),
        "encode to Parquet (in a thread)": encoding,
    }


def _ladder(load: Load) -> Ladder:
    snapshot = VENUES["binance-usdm"].decode_snapshot(load.snapshot)
    book = Ladder()
    book.replace(snapshot.bids, snapshot.asks)
    return book


def framed(payload: bytes) -> bytes:
    """Return a text frame as a server sends it."""
    size = len(payload)
    head = bytes((0x81, size)) if size < 126 else struct.pack(">BBH", 0x81, 126, size)
    return head + payload
