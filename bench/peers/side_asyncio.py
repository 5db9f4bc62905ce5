"""A straightforward recorder, as the one that harvest replaced: ``async for``, json, dicts, a DataFrame at the flush."""

from __future__ import annotations

import asyncio
import json
import time
import urllib.request
from typing import TYPE_CHECKING, Any

from bench.peers.load import DEPTH, TRADES
from bench.peers.side import Clock, Task, main, tell

if TYPE_CHECKING:
    from pathlib import Path

ROWS_A_FILE = 200_000
TOP = 5


class Recorder:
    """Buffers of rows, and a book of two dicts."""

    def __init__(self, directory: Path) -> None:
        import pandas  # before the clock runs

        self._pandas = pandas
        self._directory = directory
        self.prices: list[dict[str, Any]] = []
        self.tops: list[dict[str, Any]] = []
        self.bids: dict[float, float] = {}
        self.asks: dict[float, float] = {}
        self.seen = 0
        self.written = 0
        self._files = 0

    def take_snapshot(self, body: bytes) -> None:
        """Begin the book."""
        snapshot = json.loads(body)
        self.bids = {float(price): float(qty) for price, qty in snapshot["bids"]}
        self.asks = {float(price): float(qty) for price, qty in snapshot["asks"]}

    def take(self, message: str | bytes) -> None:
        """Take one message."""
        data = json.loads(message)["data"]
        self.seen += 1
        event = data.get("e")
        if event in ("aggTrade", "trade"):
            self.prices.append(
                {
                    "time": data["T"],
                    "received": time.time(),
                    "id": data["a"] if event == "aggTrade" else data["t"],
                    "price": float(data["p"]),
                    "qty": float(data["q"]),
                    "side": "sell" if data["m"] else "buy",
                }
            )
        elif event == "depthUpdate":
            self._take_diff(data)
        if len(self.prices) + len(self.tops) >= ROWS_A_FILE:
            self.write()

    def _take_diff(self, data: dict[str, Any]) -> None:
        for levels, changes in ((self.bids, data["b"]), (self.asks, data["a"])):
            for price, qty in changes:
                if float(qty):
                    levels[float(price)] = float(qty)
                else:
                    levels.pop(float(price), None)
        row: dict[str, Any] = {"time": data["E"], "received": time.time()}
        for name, best in (
            ("bid", sorted(self.bids, reverse=True)[:TOP]),
            ("ask", sorted(self.asks)[:TOP]),
        ):
            levels = self.bids if name == "bid" else self.asks
            for level, price in enumerate(best):
                row[f"{name}_px_{level}"], row[f"{name}_qty_{level}"] = price, levels[price]
        self.tops.append(row)

    def write(self) -> None:
        """Write what is buffered."""
        for kind, rows in (("prices", self.prices), ("orderbook", self.tops)):
            if rows:
                directory = self._directory / kind
                directory.mkdir(parents=True, exist_ok=True)
                self._pandas.DataFrame(rows).to_parquet(directory / f"{self._files}.parquet")
                self._files += 1
                self.written += len(rows)
        self.prices, self.tops = [], []


async def _record(task: Task) -> None:
    import websockets

    recorder, clock = Recorder(task.directory), Clock()
    streams = [TRADES, DEPTH] if task.mix == "mix" else [TRADES]
    ahead = 1
    async with websockets.connect(
        f"{task.ws_url}/stream?streams={'/'.join(streams)}", compression=None, max_size=None
    ) as socket:
        if task.mix == "mix":
            with urllib.request.urlopen(f"{task.rest_url}/fapi/v1/depth?symbol=BTCUSDT") as answer:
                recorder.take_snapshot(answer.read())
        async for message in socket:
            recorder.take(message)
            if recorder.seen == ahead + 1:
                clock.start()
            if recorder.seen == task.messages:
                clock.stop()
                break
    recorder.write()
    tell("asyncio recorder", task, clock, recorder.written)


def run(task: Task) -> None:
    """Record until all is received and written."""
    asyncio.run(_record(task))


if __name__ == "__main__":
    main(run)
