"""Feeds whose symbols change while they run: what is sent, and which connections are touched."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import trio
from trio_websocket import ConnectionClosed

from harvest.pipeline.records import Opened
from harvest.simulator import SimulatorConfig, serve
from tests.nurseries.feed_bench import Bench, Socket, plans, server
from tests.pipeline.wire import trade

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from harvest.nurseries.feeds import FeedNursery

BTC, ETH, SOL, BNB = "BTCUSDT", "ETHUSDT", "SOLUSDT", "BNBUSDT"


class Talk:
    """A server's script that acknowledges everything, remembers it by connection, and sends trades of one symbol."""

    def __init__(self) -> None:
        self.sent: dict[int, list[tuple[str, list[str]]]] = {}

    async def __call__(self, socket: Socket) -> None:
        said = self.sent.setdefault(socket.number, [])
        subscribed = trio.Event()

        async def listen() -> None:
            while True:
                request = await socket.request()
                said.append((request["method"], request["params"]))
                subscribed.set()
                await socket.websocket.send_message(f'{{"result":null,"id":{request["id"]}}}')

        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(listen)
                await subscribed.wait()
                await socket.trades(1000 * socket.number)
        except* ConnectionClosed:
            # As the client wants it.
            pass

    def streams(self) -> dict[int, set[str]]:
        """Return what each connection is subscribed to."""
        held: dict[int, set[str]] = {}
        for number, said in self.sent.items():
            streams = held[number] = set()
            for method, names in said:
                streams.update(names) if method == "SUBSCRIBE" else streams.difference_update(names)
        return held


@asynccontextmanager
async def changing(
    bench: Bench, url: str, symbols: Sequence[str], *, max_streams: int = 200
) -> AsyncIterator[FeedNursery]:
    """Run the trades of ``symbols`` beside the block."""
    feed = bench.feed_nursery(plans(url, "trade", symbols, max_streams), max_streams=max_streams, url=url)
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(feed.run)
            yield feed
            nursery.cancel_scope.cancel()


def change(bench: Bench, feed: FeedNursery, *added: str, removed: Sequence[str] = ()) -> None:
    """Change the symbols as a watchlist does."""
    bench.intake.change_symbols(dict.fromkeys(added), tuple(removed))
    feed.change(added, removed)


def opened(bench: Bench) -> list[tuple[str, tuple[str, ...]]]:
    return [(record.connection, record.symbols) for record in bench.records if isinstance(record, Opened)]


async def test_what_is_added_and_removed_is_a_request_on_the_living_connection_and_nothing_else(tmp_path):
    bench, talk = Bench(tmp_path, (BTC, ETH)), Talk()
    async with server(talk) as venue, changing(bench, venue.url, (BTC, ETH)) as feed:
        await bench.until(lambda: bench.metrics.feed("trade", BTC).stored)
        change(bench, feed, SOL, removed=(ETH,))
        await bench.until(lambda: len(talk.sent[1]) == 3)
        stored = bench.metrics.feed("trade", BTC).stored
        await bench.until(lambda: bench.metrics.feed("trade", BTC).stored > stored + 3)
        assert bench.metrics.connections["trade-1"].symbols == (BTC, SOL)
    assert talk.sent == {
        1: [
            ("SUBSCRIBE", ["btcusdt@aggTrade", "ethusdt@aggTrade"]),
            ("UNSUBSCRIBE", ["ethusdt@aggTrade"]),
            ("SUBSCRIBE", ["solusdt@aggTrade"]),
        ]
    }
    assert opened(bench) == [("trade-1", (BTC, ETH)), ("trade-1", (SOL,))]
    (closed,) = [record for record in bench.records if type(record).__name__ == "Closed"]
    assert closed.symbols == (BTC, SOL)
    assert bench.metrics.reconnects() == 0
    ids = bench.trade_ids()
    assert ids == list(range(ids[0], ids[-1] + 1))


async def test_what_has_no_room_gets_a_new_connection_and_one_without_symbols_is_closed(tmp_path):
    bench, talk = Bench(tmp_path, (BTC, ETH, SOL)), Talk()
    async with (
        server(talk) as venue,
        changing(bench, venue.url, (BTC, ETH, SOL), max_streams=2) as feed,
    ):
        await bench.until(lambda: len(talk.sent) == 2 and all(talk.sent.values()))
        change(bench, feed, BNB, "XRPUSDT", "ADAUSDT", "TRXUSDT")
        await bench.until(lambda: len(talk.sent) == 4 and all(talk.sent.values()))
        await bench.until(lambda: sum(map(len, talk.streams().values())) == 7)
        assert sorted(map(len, talk.streams().values())) == [1, 2, 2, 2]
        assert {number for number, said in talk.sent.items() if len(said) == 2} == {
            number for number, streams in talk.streams().items() if "solusdt@aggTrade" in streams
        }
        change(bench, feed, removed=(BTC, ETH))
        await bench.until(lambda: venue.open == 3)
        assert bench.metrics.connections["trade-1"].state == "closed"
        assert bench.metrics.connections["trade-1"].symbols == ()
        # Room is used again, wherever it is.
        change(bench, feed, BTC)
        await bench.until(lambda: sum(map(len, talk.streams().values())) == 8)
        assert venue.accepted == 4
    assert dict(bench.closed())["trade-1"] == "shutdown"
    assert bench.metrics.reconnects() == 0


async def test_all_sockets_on_the_same_streams_change(tmp_path):
    bench, talk = Bench(tmp_path, (BTC,), connections=2), Talk()
    async with server(talk) as venue, changing(bench, venue.url, (BTC,)) as feed:
        await bench.until(lambda: len(talk.sent) == 2 and all(talk.sent.values()))
        change(bench, feed, ETH, removed=(BTC,))
        await bench.until(lambda: all(len(said) == 3 for said in talk.sent.values()))
        assert set(map(frozenset, talk.streams().values())) == {frozenset({"ethusdt@aggTrade"})}
        change(bench, feed, removed=(ETH,))
        await bench.until(lambda: venue.open == 0)
    assert venue.accepted == 2
    assert {name for name, _ in bench.closed()} == {"trade-1a", "trade-1b"}


async def test_a_connection_made_later_carries_what_holds_then(tmp_path):
    talk = Talk()

    async def end_soon(socket: Socket) -> None:
        with trio.move_on_after(0.5):
            await talk(socket)
        await socket.websocket.aclose(1001, "go away")

    bench = Bench(tmp_path, (BTC,))
    async with server(end_soon, talk) as venue, changing(bench, venue.url, (BTC,)) as feed:
        await bench.until(lambda: bench.metrics.feed("trade", BTC).stored)
        change(bench, feed, ETH)
        await bench.until(lambda: venue.accepted == 2 and talk.sent.get(2))
        assert talk.sent[2] == [("SUBSCRIBE", ["btcusdt@aggTrade", "ethusdt@aggTrade"])]


async def test_a_session_that_is_handed_over_to_carries_what_holds_then(tmp_path):
    bench, talk = Bench(tmp_path, (BTC,), handover_s=1.0), Talk()
    async with server(talk) as venue, changing(bench, venue.url, (BTC,)) as feed:
        await bench.until(lambda: bench.metrics.feed("trade", BTC).stored)
        change(bench, feed, ETH, removed=(BTC,))
        change(bench, feed, BTC)
        await bench.until(lambda: bench.metrics.connections["trade-1"].handovers)
        assert talk.streams()[2] == {"btcusdt@aggTrade", "ethusdt@aggTrade"}
    assert bench.metrics.reconnects() == 0


async def test_what_is_still_on_its_way_of_a_removed_symbol_is_let_go_and_one_that_comes_again_has_its_gap(
    tmp_path,
):
    async def slow(socket: Socket) -> None:
        await socket.subscribed()
        await socket.send(trade(1, event="aggTrade"), trade(1, symbol=ETH, event="aggTrade"))
        assert (await socket.request())["method"] == "UNSUBSCRIBE"
        await socket.send(trade(2, event="aggTrade"), trade(2, symbol=ETH, event="aggTrade"))
        assert (await socket.request())["method"] == "SUBSCRIBE"
        await socket.send(trade(5, event="aggTrade"))
        await trio.sleep_forever()

    bench = Bench(tmp_path, (BTC, ETH))
    async with server(slow) as venue, changing(bench, venue.url, (BTC, ETH)) as feed:
        await bench.until(lambda: bench.metrics.feed("trade", ETH).stored == 1)
        change(bench, feed, removed=(BTC,))
        await bench.until(lambda: bench.metrics.feed("trade", ETH).stored == 2)
        change(bench, feed, BTC)
        await bench.until(lambda: bench.trade_ids() == [1, 5])
    assert bench.metrics.unknown_symbols == {BTC: 1}
    assert bench.harness.column("breaks", "reason") == ["downtime"]


@pytest.mark.parametrize("venue", ["binance-usdm"])
async def test_at_the_simulated_venue_the_others_go_on_undisturbed(venue, tmp_path):
    bench = Bench(tmp_path, (BTC, ETH))
    async with trio.open_nursery() as nursery:
        endpoints: Any = await nursery.start(serve, SimulatorConfig(venue=venue, rate=30))
        async with changing(bench, endpoints.ws_url, (BTC, ETH)) as feed:
            await bench.until(lambda: bench.metrics.feed("trade", ETH).stored > 5)
            change(bench, feed, SOL, removed=(ETH,))
            await bench.until(lambda: bench.metrics.feed("trade", SOL).stored > 5)
            stored = bench.metrics.feed("trade", BTC).stored
            await bench.until(lambda: bench.metrics.feed("trade", BTC).stored > stored + 5)
        nursery.cancel_scope.cancel()
    for symbol in (BTC, ETH, SOL):
        ids = bench.trade_ids(symbol)
        assert ids == list(range(ids[0], ids[-1] + 1))
    assert bench.metrics.reconnects() == 0
