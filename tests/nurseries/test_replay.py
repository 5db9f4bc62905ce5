"""The end of a replay: the simulator has sent everything, and nothing more arrives."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from harvest.metrics import Metrics
from harvest.nurseries.replay import POLL_S, QUIET_POLLS, replay_received
from harvest.nurseries.rest import RestError


class Simulator:
    """Says from ``done_at`` on that its replay is done; fails on the request ``fails_on``."""

    def __init__(self, done_at: float, fails_on: int | None = None) -> None:
        self.done_at, self.fails_on = done_at, fails_on
        self.requests: list[Any] = []

    async def get(self, request: Any) -> bytes:
        self.requests.append(request)
        await trio.lowlevel.checkpoint()
        if len(self.requests) == self.fails_on:
            raise RestError("127.0.0.1:1", request.path, "refused", status=None)
        done = "true" if trio.current_time() >= self.done_at else "false"
        return b'{"replay_done":%b,"sent":{"btcusdt@trade":5}}' % done.encode()


async def receive(metrics: Metrics, until_s: float) -> None:
    """Let a message arrive every 100 ms."""
    while trio.current_time() < until_s:
        metrics.feed("trade", "BTCUSDT").stored += 1
        await trio.sleep(0.1)


async def ends_at(simulator: Any, received_until_s: float) -> float:
    metrics = Metrics()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(receive, metrics, received_until_s)
        with trio.fail_after(1000):
            await replay_received(simulator, metrics)
        nursery.cancel_scope.cancel()
    return trio.current_time()


async def test_it_returns_when_all_is_sent_and_nothing_has_come_for_two_polls(autojump_clock):
    simulator = Simulator(10.0)
    assert 10.0 <= await ends_at(simulator, 9.9) <= 10.0 + QUIET_POLLS * POLL_S
    assert {request.path for request in simulator.requests} == {"/simulator/status"}
    # Asking costs nothing of the venue's weight.
    assert {request.weight for request in simulator.requests} == {0}


async def test_while_something_still_arrives_it_is_not_over(autojump_clock):
    assert 20.0 + POLL_S <= await ends_at(Simulator(10.0), 20.0) <= 20.0 + (QUIET_POLLS + 1) * POLL_S


async def test_a_pause_that_is_shorter_than_two_polls_is_no_end(autojump_clock):
    metrics = Metrics()
    simulator: Any = Simulator(0.0)

    async def dawdle() -> None:
        for _ in range(10):
            metrics.feed("trade", "BTCUSDT").stored += 1
            await trio.sleep(0.95 * QUIET_POLLS * POLL_S)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(dawdle)
        await replay_received(simulator, metrics)
        assert metrics.feed("trade", "BTCUSDT").stored == 10
        nursery.cancel_scope.cancel()


async def test_silence_before_the_end_of_the_sending_is_no_end(autojump_clock):
    assert await ends_at(Simulator(60.0), 5.0) >= 60.0


async def test_a_replay_of_nothing_ends_too(autojump_clock):
    assert await ends_at(Simulator(0.0), 0.0) <= (QUIET_POLLS + 1) * POLL_S


async def test_a_simulator_that_does_not_answer_is_an_error(autojump_clock):
    with pytest.raises(RestError, match="refused"):
        await replay_received(Simulator(10.0, fails_on=3), Metrics())  # type: ignore[arg-type]
