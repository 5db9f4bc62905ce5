"""cryptofeed, unchanged but for its URLs: with callbacks that do nothing, or that gather rows for Parquet."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from typing import Any

from bench.peers.side import Clock, Task, main, tell

EXCHANGE_SYMBOL = "BTC-USDT-PERP"
#: Rows of a kind that are gathered before pandas writes them.
ROWS_A_FILE = 200_000
TOP = 5


def _point_at(task: Task) -> Any:
    from cryptofeed import connection
    from cryptofeed.exchanges import BinanceFutures

    ws_url = task.ws_url
    if not task.is_tls:
        # It takes wss:// alone; what is spoken then is decided here.
        opened = connection.connect

        def connect(address: str, **options: Any) -> Any:
            return opened(address.replace("wss://", "ws://"), **options)

        connection.connect = connect
        ws_url = ws_url.replace("ws://", "wss://")
    BinanceFutures.websocket_endpoints[0].address = ws_url
    BinanceFutures.rest_endpoints[0].address = task.rest_url
    return BinanceFutures


class _Rows:
    """Rows of one kind, written by pandas when there are enough."""

    def __init__(self, task: Task, kind: str) -> None:
        import pandas  # before the clock runs

        self._pandas = pandas
        self.rows: list[dict[str, Any]] = []
        self.written = 0
        self._path = task.directory / kind
        self._path.mkdir(parents=True)
        self._files = 0

    def add(self, row: dict[str, Any]) -> None:
        self.rows.append(row)
        if len(self.rows) >= ROWS_A_FILE:
            self.write()

    def write(self) -> None:
        if self.rows:
            self._pandas.DataFrame(self.rows).to_parquet(self._path / f"{self._files}.parquet")
            self._files += 1
            self.written += len(self.rows)
            self.rows = []


def _run(task: Task, *, stores: bool) -> None:
    from cryptofeed import FeedHandler
    from cryptofeed.defines import L2_BOOK, TRADES

    logging.getLogger("feedhandler").setLevel(logging.WARNING)
    futures = _point_at(task)
    clock = Clock()
    seen = 0
    ahead = 2 if task.mix == "mix" else 1
    prices = _Rows(task, "prices") if stores else None
    books = _Rows(task, "books") if stores else None

    def count() -> None:
        nonlocal seen
        seen += 1
        if seen == ahead + 1:
            clock.start()
        if seen >= task.messages:
            clock.stop()
            finish()

    def finish() -> None:
        stored = seen
        if prices is not None and books is not None:
            prices.write()
            books.write()
            stored = prices.written + books.written
        tell("cryptofeed", task, clock, stored)
        # Its own way out waits for closes that are of no interest here.
        os._exit(0)

    async def trade(one: Any, receipt: float) -> None:
        if prices is not None:
            prices.add(
                {
                    "time": one.timestamp,
                    "receipt": receipt,
                    "id": one.id,
                    "side": one.side,
                    "price": float(one.price),
                    "amount": float(one.amount),
                }
            )
        count()

    async def book(one: Any, receipt: float) -> None:
        if one.delta is None:
            return  # The snapshot.
        if books is not None:
            row: dict[str, Any] = {"time": one.timestamp, "receipt": receipt}
            for side, levels in (("bid", one.book.bids), ("ask", one.book.asks)):
                for level in range(TOP):
                    price, quantity = levels.index(level)
                    row[f"{side}_px_{level}"] = float(price)
                    row[f"{side}_qty_{level}"] = float(quantity)
            books.add(row)
        count()

    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    handler = FeedHandler(
        config={"uvloop": False, "log": {"disabled": True, "filename": "", "level": "WARNING"}}
    )
    channels, callbacks = [TRADES], {TRADES: trade}
    if task.mix == "mix":
        channels.append(L2_BOOK)
        callbacks[L2_BOOK] = book
    handler.add_feed(futures(symbols=[EXCHANGE_SYMBOL], channels=channels, callbacks=callbacks))
    handler.run(install_signal_handlers=False)


def run_noop(task: Task) -> None:
    """Receive, and do nothing with it."""
    _run(task, stores=False)


def run_parquet(task: Task) -> None:
    """Receive, and write rows through pandas."""
    _run(task, stores=True)


if __name__ == "__main__":
    stores = "--parquet" in sys.argv
    sys.argv = [one for one in sys.argv if one != "--parquet"]
    main(run_parquet if stores else run_noop)
