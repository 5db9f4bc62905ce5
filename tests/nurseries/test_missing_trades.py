from __future__ import annotations

from itertools import pairwise
from types import SimpleNamespace

import pytest
import structlog
import trio

from harvest.nurseries.missing_trades import MAX_WAITING, SETTLE_S, WORKERS, MissingTrades
from harvest.nurseries.rest import RestError
from harvest.pipeline.events import Outcome
from harvest.venues import VENUES

REST = SimpleNamespace(retry_initial_s=1.0, retry_max_s=8.0)
PAGE = 1000


class Store:
    """Remembers what was stored and given up, as the pipeline would."""

    def __init__(self, *holes: tuple[int, int]) -> None:
        self.missing = {trade_id for low, high in holes for trade_id in range(low, high + 1)}
        self.given_up: list[tuple[str, int, int, str]] = []

    def still_missing(self, symbol: str, from_id: int, to_id: int) -> list[tuple[int, int]]:
        return [(one, one) for one in sorted(self.missing) if from_id <= one <= to_id]

    def fetched_trades(self, symbol: str, from_id: int, to_id: int, body: range) -> Outcome:
        new = {one for one in body if from_id <= one <= to_id} & self.missing
        self.missing -= new
        return Outcome(len(new), [], body[-1] if len(body) else None)

    def unserved(self, symbol: str, from_id: int, to_id: int, reason: str) -> Outcome:
        self.given_up.append((symbol, from_id, to_id, reason))
        return Outcome()


class Client:
    """Serves the ids from ``oldest`` to ``newest`` a page at a time; ``failures`` come first."""

    def __init__(self, oldest: int, newest: int, failures: list[RestError] | None = None) -> None:
        self.oldest, self.newest = oldest, newest
        self.failures = failures or []
        self.asked: list[tuple[float, int]] = []
        self.at_once = self.most_at_once = 0

    async def get(self, request) -> range:
        from_id = int(request.path.partition("fromId=")[2].partition("&")[0])
        self.asked.append((trio.current_time(), from_id))
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            await trio.sleep(0.5)
        finally:
            self.at_once -= 1
        if self.failures:
            raise self.failures.pop(0)
        start = max(from_id, self.oldest)
        return range(start, min(start + PAGE, self.newest + 1))


def make(client: Client, store: Store) -> MissingTrades:
    return MissingTrades(
        VENUES["binance-usdm"],
        client,
        event="aggTrade",
        intake=store,
        still_missing=store.still_missing,
        rest=REST,
    )


async def close(client: Client, store: Store, *gaps: tuple[int, int], seconds: float = 300) -> list[dict]:
    missing = make(client, store)
    for from_id, to_id in gaps:
        missing.want("BTCUSDT", from_id, to_id)
    with structlog.testing.capture_logs() as lines, trio.move_on_after(seconds):
        await missing.run()
    return lines


async def test_a_gap_is_closed_page_by_page_and_no_id_is_asked_twice(autojump_clock):
    client, store = Client(0, 10**6), Store((500, 2999))
    lines = await close(client, store, (500, 2999))
    assert not store.missing
    assert [from_id for _, from_id in client.asked] == [500, 1500, 2500]
    assert store.given_up == []
    assert lines[-1]["event"] == "BTCUSDT: trades 500 to 2999: 2,500 fetched, 0 not to be had"


async def test_what_another_connection_brings_meanwhile_is_not_asked_for(autojump_clock):
    client, store = Client(0, 10**6), Store((5, 9))
    missing = make(client, store)
    missing.want("BTCUSDT", 5, 9)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(missing.run)
        await trio.sleep(SETTLE_S / 2)
        store.missing.clear()
        await trio.sleep(60)
        nursery.cancel_scope.cancel()
    assert client.asked == []


async def test_ids_older_than_the_venue_serves_are_given_up_with_their_reason(autojump_clock):
    client, store = Client(1200, 10**6), Store((500, 1999))
    await close(client, store, (500, 1999))
    assert store.missing == set(range(500, 1200))
    assert store.given_up == [("BTCUSDT", 500, 1999, "not_served")]


async def test_an_empty_page_ends_the_asking(autojump_clock):
    client, store = Client(0, 100), Store((500, 600))
    await close(client, store, (500, 600))
    assert len(client.asked) == 1
    assert store.given_up == [("BTCUSDT", 500, 600, "not_served")]


async def test_a_refused_request_is_given_up_as_refused(autojump_clock):
    refusal = RestError("h", "/x", "HTTP 400", status=400)
    client, store = Client(0, 10**6, [refusal]), Store((5, 9))
    await close(client, store, (5, 9))
    assert len(client.asked) == 1
    assert store.given_up == [("BTCUSDT", 5, 9, "refused")]


@pytest.mark.parametrize("status", [None, 403, 418, 429, 500, 503])
async def test_a_venue_that_cannot_be_asked_now_is_asked_again_until_it_can(status, autojump_clock):
    failures = [RestError("h", "/x", "later", status=status, retry_after_s=20) for _ in range(3)]
    client, store = Client(0, 10**6, failures), Store((5, 9))
    await close(client, store, (5, 9))
    assert not store.missing
    assert store.given_up == []
    times = [when for when, _ in client.asked]
    assert [after - before for before, after in pairwise(times)] == [20.5] * 3


async def test_only_so_many_gaps_are_under_way_at_once(autojump_clock):
    gaps = [(number * 10, number * 10 + 2) for number in range(20)]
    client, store = Client(0, 10**6), Store(*gaps)
    await close(client, store, *gaps)
    assert not store.missing
    assert client.most_at_once == WORKERS


async def test_a_full_queue_leaves_the_gap_a_break_and_says_so():
    missing = make(Client(0, 1), Store())
    with structlog.testing.capture_logs() as lines:
        for number in range(MAX_WAITING + 1):
            missing.want("BTCUSDT", number, number)
    assert missing.waiting == MAX_WAITING
    assert [line["log_level"] for line in lines] == ["error"]
    assert f"trades {MAX_WAITING} to {MAX_WAITING} stay missing" in lines[0]["event"]


async def test_the_end_waits_for_the_gaps_that_are_open_and_for_nothing_else(autojump_clock):
    client, store = Client(0, 10**6), Store((5, 9), (50, 2500))
    missing = make(client, store)
    await missing.settle()
    missing.want("BTCUSDT", 5, 9)
    missing.want("ETHUSDT", 50, 2500)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(missing.run)
        await missing.settle()
        assert not store.missing
        assert trio.current_time() < SETTLE_S + 2
        await missing.settle()
        nursery.cancel_scope.cancel()
