"""The fastest transport that Python has (Cython on uvloop), with harvest's own pipeline and files behind it."""

from __future__ import annotations

import time
import urllib.request
from typing import Any

from bench.peers.load import DEPTH, SYMBOL, TRADES
from bench.peers.side import Clock, Task, main, tell
from harvest.metrics import Metrics
from harvest.pipeline.machine import Pipeline
from harvest.pipeline.records import Frames, SnapshotBody
from harvest.storage.files import DataDirectory
from harvest.storage.layout import new_run_id
from harvest.storage.parquet import Provenance, encode
from harvest.venues import VENUES
from harvest.venues.blocks import join


class Sink:
    """What harvest does with a block, without its tasks."""

    def __init__(self, task: Task) -> None:
        venue = VENUES["binance-usdm"]
        self.metrics = Metrics()
        self.pipeline = Pipeline(
            venue,
            metrics=self.metrics,
            levels=5,
            max_rows=200_000,
            max_pending_diffs=5000,
            resume_cvd=lambda _symbol, _day: 0,
            symbols=[SYMBOL],
            id_space="aggregate",
        )
        self._directory = DataDirectory(task.directory)
        self._provenance = Provenance(venue.name, new_run_id(time.time_ns()), trade_ids="aggregate")
        self._seq = 0
        self.rows = 0

    def next_seq(self) -> int:
        """Number the next record."""
        self._seq += 1
        return self._seq

    def take(self, frames: list[bytes]) -> None:
        """Take the frames of one received block."""
        now = time.time_ns()
        self.pipeline.feed(Frames(self.next_seq(), now, now, "trade-1", join(frames)))

    def write(self, pool: Any = None) -> None:
        """Write what is sealed."""
        for sealed in self.pipeline.tables.take_sealed():
            if sealed.kind.name in ("prices", "depth"):
                self.rows += sealed.count
            path = self._directory.path_of(sealed, venue=self._provenance.venue, run=self._provenance.run)

            def save(sealed: Any = sealed, path: Any = path) -> None:
                self._directory.publish(path, encode(sealed, self._provenance).data)

            if pool is None:
                save()
            else:
                pool.submit(save)


async def _receive(task: Task) -> None:
    import asyncio
    import ssl
    from concurrent.futures import ThreadPoolExecutor

    from picows import WSFrame, WSListener, WSMsgType, WSTransport, ws_connect

    sink, clock = Sink(task), Clock()
    loop = asyncio.get_running_loop()
    done = asyncio.Event()
    pool = ThreadPoolExecutor(2)
    trades = sink.metrics.feed("trade", SYMBOL)
    diffs = sink.metrics.feed("orderbook", SYMBOL)

    class Listener(WSListener):  # type: ignore[misc]
        def __init__(self) -> None:
            self.block: list[bytes] = []

        def on_ws_frame(self, _transport: WSTransport, frame: WSFrame) -> None:
            if frame.msg_type == WSMsgType.TEXT:
                if not self.block:
                    # Called when all frames of this block were.
                    loop.call_soon(self.flush)
                self.block.append(frame.get_payload_as_bytes())

        def flush(self) -> None:
            block, self.block = self.block, []
            sink.take(block)
            sink.write(pool)
            seen = trades.stored + diffs.stored
            if seen > 1:
                clock.start()
            if seen >= task.messages and not done.is_set():
                clock.stop()
                done.set()

    streams = [TRADES, DEPTH] if task.mix == "mix" else [TRADES]
    context = ssl.create_default_context() if task.is_tls else None
    transport, _ = await ws_connect(
        Listener, f"{task.ws_url}/stream?streams={'/'.join(streams)}", ssl_context=context
    )
    if task.mix == "mix":
        with urllib.request.urlopen(f"{task.rest_url}/fapi/v1/depth?symbol={SYMBOL}") as answer:
            now = time.time_ns()
            sink.pipeline.feed(SnapshotBody(sink.next_seq(), now, now, SYMBOL, answer.read()))
    await done.wait()
    transport.disconnect()
    sink.pipeline.tables.seal_all()
    sink.write(pool)
    pool.shutdown(wait=True)
    tell("picows + uvloop", task, clock, sink.rows - (1 if task.mix == "mix" else 0))


def run(task: Task) -> None:
    """Receive until all is there and written."""
    import uvloop

    uvloop.run(_receive(task))


if __name__ == "__main__":
    main(run)
