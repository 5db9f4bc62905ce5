from __future__ import annotations

import time
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from harvest.nurseries.rest import RestClient, RestError, WeightBudget
from harvest.storage.bans import Bans
from harvest.venues.protocol import RestRequest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

SETTINGS = SimpleNamespace(timeout_s=2.0, weight_share=0.5, retry_initial_s=1.0, retry_max_s=60.0)


@asynccontextmanager
async def http_server(answers: list[bytes]) -> AsyncIterator[tuple[str, list[bytes]]]:
    """Serve the answers one after the other, a connection each; gives the URL and the requests seen."""
    seen: list[bytes] = []

    async def serve(stream: trio.SocketStream) -> None:
        async with stream:
            seen.append(await stream.receive_some(65536))
            await stream.send_all(answers[len(seen) - 1])

    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, serve, [listener])
        yield f"http://127.0.0.1:{listener.socket.getsockname()[1]}", seen
        nursery.cancel_scope.cancel()


def answer(status: str, body: bytes = b"{}", **headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Connection: close"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


async def test_a_body_comes_back_as_it_was_sent():
    async with (
        http_server([answer("200 OK", b'{"a": 1}')]) as (url, seen),
        RestClient(url, weight_per_minute=1200, settings=SETTINGS) as client,
    ):
        assert await client.get(RestRequest("/api/v3/depth?symbol=BTCUSDT&limit=5", 5)) == b'{"a": 1}'
    assert seen[0].startswith(b"GET /api/v3/depth?symbol=BTCUSDT&limit=5 HTTP/1.1\r\n")


@pytest.mark.parametrize("status", ["429 Too Many Requests", "418 I'm a teapot", "403 Forbidden"])
async def test_a_refusal_pauses_every_request_for_as_long_as_the_venue_says(status, autojump_clock):
    client = RestClient("http://127.0.0.1:9", weight_per_minute=1200, settings=SETTINGS)
    autojump_clock.autojump_threshold = float("inf")
    async with http_server([answer(status, b"slow down", Retry_After="7")]) as (url, _):
        client = RestClient(url, weight_per_minute=1200, settings=SETTINGS)
        with pytest.raises(RestError) as caught:
            await client.get(RestRequest("/x", 1))
    assert caught.value.status == int(status[:3])
    assert caught.value.retry_after_s == 7
    assert "slow down" in str(caught.value)
    autojump_clock.autojump_threshold = 0
    started = trio.current_time()
    await client.budget.spend(1)
    assert 7 <= trio.current_time() - started <= 8


async def test_a_ban_is_remembered_by_the_next_run_and_others_hosts_are_not_touched(tmp_path):
    bans = Bans(tmp_path / "data")
    async with http_server([answer("418 I'm a teapot", Retry_After="90"), answer("200 OK")]) as (url, seen):
        async with RestClient(url, weight_per_minute=1200, settings=SETTINGS, bans=bans) as client:
            with pytest.raises(RestError):
                await client.get(RestRequest("/x", 1))
        assert 89 < bans.seconds_left(client.host, time.time_ns()) <= 91
        async with RestClient(url, weight_per_minute=1200, settings=SETTINGS, bans=bans) as client:
            with trio.move_on_after(0.2) as scope:
                await client.get(RestRequest("/x", 1))
        assert scope.cancelled_caught
        assert len(seen) == 1
    assert bans.seconds_left("other:1", time.time_ns()) == 0
    assert bans.seconds_left(client.host, time.time_ns() + 92 * 10**9) == 0


@pytest.mark.parametrize("content", ["", "[]", "{", '{"h": "soon"}', '{"h": 9999999999999999999999}'])
def test_a_broken_file_of_bans_is_no_ban(content, tmp_path):
    (tmp_path / "_bans.json").write_text(content)
    bans = Bans(tmp_path)
    assert bans.seconds_left("h", time.time_ns()) == 0
    bans.remember("h", time.time_ns() + 10**10)
    assert 9 < bans.seconds_left("h", time.time_ns()) <= 10


async def test_a_host_that_is_not_there_is_named_and_counts_as_unreachable():
    listener = (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]
    port = listener.socket.getsockname()[1]
    await listener.aclose()
    async with RestClient(f"http://127.0.0.1:{port}", weight_per_minute=1200, settings=SETTINGS) as client:
        with pytest.raises(RestError) as caught:
            await client.get(RestRequest("/x?y=1", 1))
    assert caught.value.unreachable
    assert str(caught.value).startswith(f"127.0.0.1:{port}/x: ")


async def test_an_error_of_the_server_has_its_status_and_text():
    async with (
        http_server([answer("400 Bad Request", b'{"code":-1121,"msg":"Invalid symbol."}')]) as (url, _),
        RestClient(url, weight_per_minute=1200, settings=SETTINGS) as client,
    ):
        with pytest.raises(RestError, match=r"HTTP 400 .*Invalid symbol") as caught:
            await client.get(RestRequest("/x", 1))
    assert not caught.value.unreachable


async def test_no_minute_ever_spends_more_than_the_budget(autojump_clock):
    budget = WeightBudget(600)
    spent: list[float] = []
    for _ in range(150):
        await budget.spend(20)
        spent.append(trio.current_time())
    assert spent[0] == spent[4] == 0.0
    for start in spent:
        assert sum(20 for moment in spent if start <= moment < start + 60) <= 600
    assert spent[-1] == pytest.approx((150 * 20 - 100) / (500 / 60), rel=0.01)


async def test_the_venues_own_count_corrects_ours(autojump_clock):
    budget = WeightBudget(600)
    budget.correct(590)
    await budget.spend(20)
    assert trio.current_time() == pytest.approx(10 / (500 / 60))


async def test_a_request_heavier_than_the_burst_waits_for_the_burst_and_goes(autojump_clock):
    budget = WeightBudget(100)
    await budget.spend(250)
    await budget.spend(10)
    assert trio.current_time() == pytest.approx(10 / (500 / 6 / 60))


async def test_what_can_wait_lets_everything_urgent_go_first_and_leaves_it_half_of_the_burst(autojump_clock):
    budget = WeightBudget(600)
    done: list[tuple[str, float]] = []

    async def spend(name: str, spending: Callable[[float], Awaitable[None]]) -> None:
        await spending(40)
        done.append((name, trio.current_time()))

    await budget.spend(100)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(spend, "patient", budget.spend_patiently)
        await trio.sleep(1)
        for _ in range(3):
            nursery.start_soon(spend, "urgent", budget.spend)
    assert [name for name, _ in done] == ["urgent"] * 3 + ["patient"]
    # After 120 for the urgent ones, its 40 and the 50 that it leaves: 500 / 60 a second.
    patient_at = done[-1][1]
    assert 210 / (500 / 60) <= patient_at <= 210 / (500 / 60) + 5
    assert patient_at > done[-2][1] + 50 / (500 / 60)
    # And so what is urgent need not wait for it.
    await budget.spend(50)
    assert trio.current_time() == patient_at


async def test_what_can_wait_waits_out_a_pause_and_goes_even_if_it_is_heavier_than_the_burst(autojump_clock):
    budget = WeightBudget(100)
    budget.pause(30)
    await budget.spend_patiently(250)
    assert 30 <= trio.current_time() < 31


async def test_what_was_paid_is_not_charged_again_but_keeps_to_a_pause(autojump_clock):
    client = RestClient("http://127.0.0.1:9", weight_per_minute=1200, settings=SETTINGS)
    await client.pay_patiently(RestRequest("/x", 100))
    client.budget.pause(7)
    with pytest.raises(RestError):
        await client.get(RestRequest("/x", 100), is_paid=True)
    assert 7 <= trio.current_time() < 9
    before = trio.current_time()
    await client.budget.spend(50)
    assert trio.current_time() == before


async def test_something_small_that_can_wait_takes_nothing_from_something_heavy_that_cannot(autojump_clock):
    budget = WeightBudget(600)
    await budget.spend(100)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(budget.spend_patiently, 5)
        await trio.testing.wait_all_tasks_blocked()
        await budget.spend(100)
        assert trio.current_time() == pytest.approx(100 / (500 / 60))
