"""The watchdog of a stream on the virtual clock: the network is a script, the session is real, times are exact."""

from __future__ import annotations

from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import attrs
import pytest
import structlog
import trio

from harvest.metrics import Metrics
from harvest.nurseries import session as session_room
from harvest.nurseries.lag import LagSensor
from harvest.nurseries.plan import ChangingPlan
from harvest.nurseries.stream import Stream
from harvest.pipeline.events import Outcome
from harvest.pipeline.records import Opened
from harvest.settings import Settings
from harvest.venues import VENUES
from harvest.venues.protocol import Acknowledgement, Refusal, StreamOptions

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

SETTINGS = attrs.evolve(Settings().streams, backoff_initial_s=1.0, backoff_max_s=8.0, backoff_reset_s=300.0)


def make_stream(
    intake: Any = None, lag: LagSensor | None = None, symbols: int = 1, **settings: Any
) -> Stream:
    (plan,) = VENUES["binance-usdm"].connections(
        "trade",
        [f"S{number}USDT" for number in range(symbols)],
        StreamOptions(),
        ws_url="wss://h",
        max_streams=200,
    )
    return Stream(
        ChangingPlan(plan),
        "trade-1",
        venue=VENUES["binance-usdm"],
        intake=intake,
        settings=attrs.evolve(SETTINGS, **settings),
        metrics=Metrics(),
        lag=lag or LagSensor(),
    )


@pytest.fixture
def lines() -> Iterator[list[Any]]:
    with structlog.testing.capture_logs() as captured:
        yield captured


class Intake:
    """Takes each frame for what its text says, and remembers when connections ended, and why."""

    def __init__(self) -> None:
        self.closed_at: list[tuple[float, str]] = []

    def opened(self, connection: str, feed: Any, symbols: tuple[str, ...]) -> Opened:
        return Opened(1, 0, 0, connection, feed, symbols)

    def closed(self, connection: Opened, reason: str) -> None:
        self.closed_at.append((trio.current_time(), reason))

    def frames(self, connection: Opened, frames: list[bytes], recv_ns: int, mono_ns: int) -> Outcome:
        meaning = {b"ack": Acknowledgement(1), b"no": Refusal(1, 2, "no")}
        return Outcome(frames.count(b"data"), [meaning[frame] for frame in frames if frame in meaning])


def wire(monkeypatch: pytest.MonkeyPatch, *frames_at: tuple[float, bytes]) -> None:
    """Let each connection be open at once, and bring frames at times since then; it never ends by itself."""

    @asynccontextmanager
    async def opened(url: str, *, on_frames: Any, **_settings: object) -> AsyncIterator[Any]:
        async def send(_text: str) -> None:
            await trio.lowlevel.checkpoint()

        async def run() -> None:
            began = trio.current_time()
            for after_s, frame in frames_at:
                await trio.sleep_until(began + after_s)
                on_frames([frame], 0, 0)
            await trio.sleep_forever()

        await trio.lowlevel.checkpoint()
        yield SimpleNamespace(send=send, run=run)

    monkeypatch.setattr(session_room, "open_connection", opened)


async def run_for(stream: Stream, seconds: float) -> None:
    with trio.move_on_after(seconds):
        await stream.run()


@pytest.mark.parametrize("silent_frame", [b"ack", b"no"])
async def test_only_data_moves_the_deadline_and_it_passes_at_the_very_moment(
    silent_frame, monkeypatch, autojump_clock
):
    chatter = [(after_s + 0.5, silent_frame) for after_s in range(200)]
    wire(monkeypatch, *sorted([(10.0, b"data"), (37.25, b"data"), *chatter]))
    intake = Intake()
    await run_for(make_stream(intake, idle_s=60.0), 100)
    assert intake.closed_at[0] == (37.25 + 60.0, "stall")


@pytest.mark.parametrize(
    ("stall_s", "expected"),
    [(5.0, (40 + 60 + 5.0, "stall")), (7.0, (40 + 60 + 7.0, "own_stall"))],
)
async def test_a_stall_of_our_own_extends_the_deadline_and_beyond_a_tenth_of_it_is_recorded_as_ours(
    stall_s, expected, monkeypatch, autojump_clock, lines
):
    wire(monkeypatch, (40.0, b"data"))
    now = 0.0
    lag, intake = LagSensor(lambda: now), Intake()
    stream = make_stream(intake, lag, idle_s=60.0, first_message_s=600.0)

    async def stand_still() -> None:
        nonlocal now
        for moment in (20.0, 70.0):
            # What came before the last data is no excuse for what follows it.
            await trio.sleep_until(moment)
            lag.after_io_wait(0)
            now += 30.0 if moment == 20.0 else stall_s
            lag.before_io_wait(0)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(stand_still)
        await run_for(stream, 120)
    assert intake.closed_at[0] == expected
    own = expected[1] == "own_stall"
    assert (stream.stats.stalls, stream.stats.own_stalls) == ((0, 1) if own else (1, 0))
    (line,) = [line for line in lines if "reconnecting" in line["event"]]
    assert line["event"].startswith("no message for 60s, reconnecting")
    assert ("our own loop stood still" in line["event"]) is line["own_stall"] is own


@pytest.mark.parametrize(
    ("first_message_s", "idle_s", "said_at"), [(10.0, 60.0, 12.0), (60.0, 100.0, 62.0), (60.0, 50.0, 40.4)]
)
async def test_silence_after_the_acknowledgement_is_explained_after_its_time_and_before_the_watchdog(
    first_message_s, idle_s, said_at, monkeypatch, autojump_clock, lines
):
    wire(monkeypatch, (2.0, b"ack"))
    stream = make_stream(Intake(), idle_s=idle_s, first_message_s=first_message_s, symbols=5)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run_for, stream, idle_s - 0.1)
        await trio.sleep_until(said_at - 0.1)
        assert not any("silent" in line["event"] for line in lines)
        await trio.sleep_until(said_at + 0.1)
        (line,) = [line for line in lines if "acknowledged, but silent" in line["event"]]
    assert "s0usdt@aggTrade, s1usdt@aggTrade, s2usdt@aggTrade, … on wss://h/market/stream" in line["event"]
    assert len(line["streams"]) == 5


@pytest.mark.parametrize("frames", [[(2.0, b"ack"), (9.0, b"data")], [(2.0, b"no"), (9.0, b"data")], []])
async def test_nothing_is_suspected_where_data_came_in_time_or_nothing_was_acknowledged(
    frames, monkeypatch, autojump_clock, lines
):
    wire(monkeypatch, *frames)
    await run_for(make_stream(Intake(), idle_s=60.0, first_message_s=10.0), 50)
    assert not any("Suspected" in line["event"] for line in lines)
