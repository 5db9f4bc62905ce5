"""Streams and their sessions on the virtual clock: the connection is a script, everything else is real."""

from __future__ import annotations

import itertools
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import attrs
import pytest
import structlog
import trio

from harvest.metrics import Metrics
from harvest.nurseries import session as session_room
from harvest.nurseries.connection import ConnectionLostError
from harvest.nurseries.feeds import FeedNursery
from harvest.nurseries.lag import LagSensor
from harvest.pipeline.events import Outcome
from harvest.pipeline.records import Opened
from harvest.settings import Settings
from harvest.venues import VENUES
from harvest.venues.protocol import Acknowledgement, Refusal, ShutdownNotice, StreamOptions

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

IDLE_S = 120.0
SETTINGS = attrs.evolve(Settings().streams, idle_s=IDLE_S, first_message_s=10.0, handover_s=1e5)
DATA, ACK, REFUSED, SHUTDOWN = b"data", b"ack", b"refused", b"shutdown"


class Intake:
    """Remembers records; a frame's text says what the pipeline made of it."""

    def __init__(self) -> None:
        self.opened_at: list[tuple[float, str]] = []
        self.closed_at: list[tuple[float, str, str]] = []
        self.bug: Exception | None = None

    def opened(self, connection: str, feed: Any, symbols: tuple[str, ...]) -> Opened:
        self.opened_at.append((trio.current_time(), connection))
        return Opened(1, 0, 0, connection, feed, symbols)

    def closed(self, connection: Opened, reason: str) -> None:
        self.closed_at.append((trio.current_time(), connection.connection, reason))

    def frames(self, connection: Opened, frames: list[bytes], recv_ns: int, mono_ns: int) -> Outcome:
        if self.bug is not None:
            raise self.bug
        events = {ACK: Acknowledgement(1), REFUSED: Refusal(1, 2, "no"), SHUTDOWN: ShutdownNotice()}
        return Outcome(frames.count(DATA), [events[frame] for frame in frames if frame in events])


class Wire:
    """Stands for the network: each connection runs the next script, the last one for ever after."""

    def __init__(self, *scripts: Callable[[Any], Any]) -> None:
        self.scripts = list(scripts)
        self.open = 0
        self.sent: list[str] = []
        self.tasks: dict[str, float] = {}

    @asynccontextmanager
    async def __call__(self, url: str, *, on_frames: Any, **_settings: object) -> AsyncIterator[Any]:
        script = self.scripts.pop(0) if len(self.scripts) > 1 else self.scripts[0]
        self.open += 1
        try:
            await trio.sleep(0.1)
            yield SimpleNamespace(
                send=self._send,
                run=lambda: script(SimpleNamespace(url=url, give=lambda *f: on_frames(list(f), 0, 0))),
            )
        finally:
            self.open -= 1

    async def _send(self, text: str) -> None:
        self.sent.append(text)


def every(seconds: float, times: int | None = None, *first: bytes, then: Exception | None = None) -> Any:
    """Script: ``first`` at once, then data every so often, then silence, or the loss ``then``."""

    async def script(connection: Any) -> None:
        if first:
            connection.give(*first)
        count = 0
        while times is None or count < times:
            await trio.sleep(seconds)
            connection.give(DATA)
            count += 1
        if then is not None:
            raise then
        await trio.sleep_forever()

    return script


def lost(url: str = "wss://h/ws") -> ConnectionLostError:
    return ConnectionLostError(url, "open", "closed with 1006", code=1006)


@pytest.fixture
def lines():
    with structlog.testing.capture_logs() as captured:
        yield captured


def plans(feed: str = "trade", symbols: tuple[str, ...] = ("BTCUSDT",), max_streams: int = 200) -> list:
    venue = VENUES["binance-usdm"]
    return venue.connections(feed, symbols, StreamOptions(), ws_url="wss://h", max_streams=max_streams)


class Bench:
    def __init__(self, monkeypatch: pytest.MonkeyPatch, *scripts: Any, **settings: Any) -> None:
        self.wire = Wire(*scripts)
        monkeypatch.setattr(session_room, "open_connection", self.wire)
        self.intake = Intake()
        self.metrics = Metrics()
        self.settings = attrs.evolve(SETTINGS, **settings)

    async def run(self, seconds: float, planned: list | None = None) -> None:
        with trio.move_on_after(seconds):
            await FeedNursery(
                (),
                lambda symbols: planned or plans(),
                max_streams=200,
                venue=VENUES["binance-usdm"],
                intake=self.intake,
                settings=self.settings,
                metrics=self.metrics,
                lag=LagSensor(),
            ).run()
        assert self.wire.open == 0


async def test_a_stream_that_falls_silent_is_restarted_exactly_the_idle_time_after_its_last_data(
    monkeypatch, autojump_clock, lines
):
    bench = Bench(monkeypatch, every(1, 30, ACK), every(1))
    await bench.run(200)
    first, second = bench.intake.closed_at
    assert first == (pytest.approx(0.1 + 30 + IDLE_S), "trade-1", "stall")
    assert second == (200, "trade-1.2", "shutdown")
    assert bench.intake.opened_at[1][0] <= 30.2 + IDLE_S + 0.25 + 0.1
    assert {"[TRADE]"} == {f"[{line['tag']}]" for line in lines}
    assert "no message for 120s, reconnecting" in [line["event"] for line in lines]
    assert bench.metrics.connections["trade-1"].stalls == 1
    assert bench.metrics.reconnects("BTCUSDT") == 1


async def test_the_silence_at_the_end_of_a_session_is_no_good_work(monkeypatch, autojump_clock, lines):
    bench = Bench(monkeypatch, every(1, 3, ACK))
    await bench.run(6 * IDLE_S)
    intake = bench.intake
    waits = [
        opened_at - 0.1 - closed_at
        for (closed_at, *_), (opened_at, _) in zip(intake.closed_at, intake.opened_at[1:], strict=False)
    ]
    # Three seconds of data and two minutes of silence, again and again: the waits grow.
    for wait, (low, high) in zip(waits, [(0, 0.25), (0.5, 1), (1, 2), (2, 4)], strict=False):
        assert low - 1e-6 <= wait <= high + 1e-6
    assert len(waits) >= 4


async def test_acknowledgements_and_refusals_do_not_move_the_deadline(monkeypatch, autojump_clock, lines):
    async def chatter(connection: Any) -> None:
        while True:
            connection.give(ACK, REFUSED)
            await trio.sleep(1)

    bench = Bench(monkeypatch, chatter, every(1))
    await bench.run(IDLE_S + 2)
    assert bench.intake.closed_at[0] == (IDLE_S, "trade-1", "stall")
    assert "the venue refused a request: no (code 2)" in [line["event"] for line in lines]


async def test_silence_after_the_acknowledgement_is_explained_before_the_watchdog_ends_it(
    monkeypatch, autojump_clock, lines
):
    bench = Bench(monkeypatch, every(1, 0, ACK))
    await bench.run(20)
    (line,) = [line for line in lines if "acknowledged, but silent" in line["event"]]
    assert "silent for 10s: btcusdt@aggTrade on wss://h/market/stream" in line["event"]
    assert line["suspected"] == ["wrong route", "unknown symbol", "not trading"]


async def test_a_lost_connection_is_tried_again_for_ever_with_growing_bounded_waits(
    monkeypatch, autojump_clock, lines
):
    bench = Bench(monkeypatch, every(1, 0, then=lost()), backoff_initial_s=1.0, backoff_max_s=8.0)
    await bench.run(500)
    times = [when for when, _ in bench.intake.opened_at]
    waits = [b - a for a, b in itertools.pairwise(times)]
    assert waits[0] <= 0.25 + 0.2
    assert all(4 <= wait <= 8.2 for wait in waits[6:])
    assert len(times) > 60
    assert {reason for _, _, reason in bench.intake.closed_at[:-1]} == {"disconnect"}
    assert lines[1]["event"] == "connection error: h/ws: closed with 1006 (open)"


async def test_a_stable_time_makes_the_next_wait_short_again(monkeypatch, autojump_clock, lines):
    failing = [every(1, 0, then=lost())] * 8
    bench = Bench(monkeypatch, *failing, every(1, 400, then=lost()), every(1))
    await bench.run(2000)
    times = [when for when, _ in bench.intake.opened_at]
    assert times[9] - times[8] - 400 <= 0.25 + 0.2
    assert times[8] - times[7] > 10


async def test_a_stalled_feed_never_disturbs_another_nor_its_own_other_connection(
    monkeypatch, autojump_clock, lines
):
    bench = Bench(monkeypatch)

    async def by_symbol(connection: Any) -> None:
        count = 0
        while True:
            await trio.sleep(1)
            count += 1
            if "public" in connection.url or count < 20:
                connection.give(DATA)

    bench.wire.scripts = [by_symbol]
    both = plans("trade") + plans("orderbook", ("BTCUSDT", "ETHUSDT"), max_streams=1)
    await bench.run(300, both)
    stalled = [name for _, name, reason in bench.intake.closed_at if reason == "stall"]
    assert {name.partition(".")[0] for name in stalled} == {"trade-1"}
    shut = [name for _, name, reason in bench.intake.closed_at if reason == "shutdown"]
    assert {"orderbook-2", "orderbook-3"} <= set(shut)


async def test_a_bug_in_the_pipeline_crashes_visibly_and_leaves_nothing_open(
    monkeypatch, autojump_clock, lines
):
    bench = Bench(monkeypatch, every(1))
    bench.intake.bug = ZeroDivisionError("a decoder's bug")
    with pytest.raises(BaseExceptionGroup) as caught:
        await bench.run(100)
    assert caught.group_contains(ZeroDivisionError, match="a decoder's bug")
    assert bench.wire.open == 0


async def test_an_old_connection_retires_only_when_its_successor_delivers(monkeypatch, autojump_clock, lines):
    # Delivering alone is not enough: until every request is answered, some of its streams may not flow yet.
    async def late_answer(connection: Any) -> None:
        connection.give(DATA)
        await trio.sleep(40)
        connection.give(ACK)
        while True:
            connection.give(DATA)
            await trio.sleep(1)

    lively = every(1, None, ACK)
    bench = Bench(monkeypatch, lively, every(1, 0, then=lost()), late_answer, lively, handover_s=1000.0)
    await bench.run(1500)
    handed = [(when, name) for when, name, reason in bench.intake.closed_at if reason == "handover"]
    ((when, name),) = handed[:1]
    assert name == "trade-1"
    assert 900 + 41 <= when <= 1000 + 46
    # The first successor was lost, and cost nothing.
    assert [reason for _, _, reason in bench.intake.closed_at][:2] == ["disconnect", "handover"]
    assert bench.metrics.connections["trade-1"].handovers == len(handed)
    assert bench.metrics.connections["trade-1"].reconnects == 0


async def test_a_shutdown_notice_hands_over_at_once(monkeypatch, autojump_clock, lines):
    async def notice(connection: Any) -> None:
        for _ in range(50):
            connection.give(DATA)
            await trio.sleep(1)
        connection.give(SHUTDOWN)
        await trio.sleep(30)
        raise lost()

    bench = Bench(monkeypatch, notice, every(1, None, ACK))
    await bench.run(200)
    assert bench.intake.closed_at[0] == (pytest.approx(52.2), "trade-1", "handover")
    assert "handing over" in " ".join(line["event"] for line in lines)


async def test_if_the_old_one_breaks_during_the_hand_over_the_new_one_goes_on(
    monkeypatch, autojump_clock, lines
):
    bench = Bench(monkeypatch, every(1, 1005, then=lost()), every(60, None, ACK), handover_s=1000.0)
    await bench.run(1300)
    assert next(reason for _, _, reason in bench.intake.closed_at) in {"disconnect", "handover"}
    assert bench.intake.closed_at[-1][2] == "shutdown"
    assert bench.metrics.connections["trade-1"].reconnects <= 1


async def test_several_sockets_carry_one_plan_under_names_of_their_own(monkeypatch, autojump_clock, lines):
    bench = Bench(monkeypatch, every(1), connections=2)
    await bench.run(10)
    assert sorted(name for _, name in bench.intake.opened_at) == ["trade-1a", "trade-1b"]
    assert len(bench.wire.sent) == 2


async def test_cancelled_at_each_await_nothing_stays_open_and_every_opening_has_its_end(
    monkeypatch, autojump_clock
):
    for tenth in range(0, 40):
        bench = Bench(monkeypatch, every(0.7, 2, ACK, then=lost()), every(0.3))
        await bench.run(tenth / 10)
        assert len(bench.intake.opened_at) == len(bench.intake.closed_at)
