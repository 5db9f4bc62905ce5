"""The stream as the one that starts and replaces sessions: sessions are scripts, the clock is virtual, times are exact."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import attrs
import pytest
import structlog
import trio

from harvest.metrics import Metrics
from harvest.nurseries import stream as stream_room
from harvest.nurseries.lag import LagSensor
from harvest.nurseries.plan import ChangingPlan
from harvest.nurseries.stream import LINGER_S, Stream, first_of
from harvest.settings import Settings
from harvest.venues import VENUES
from harvest.venues.protocol import StreamOptions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SETTINGS = attrs.evolve(Settings().streams, backoff_initial_s=1.0, backoff_max_s=8.0, backoff_reset_s=300.0)
#: The first wait of a backoff is at most this.
SHORT_S = 0.25


class Session:
    """A session whose life is a script; it remembers when it began, ended and was retired."""

    def __init__(self, around: Any, name: str, script: Callable[[Session], Any]) -> None:
        self.delivering, self.ready, self.due, self.ended = (trio.Event() for _ in range(4))
        self.reason, self.stable_s = "shutdown", 0.0
        self.stats, self.name = around.stats, name
        self.began_at = trio.current_time()
        self.ended_at: float | None = None
        self.retired_at: float | None = None
        self._script = script
        self._scope = trio.CancelScope()

    async def run(self) -> None:
        try:
            with self._scope:
                await self._script(self)
        finally:
            self.ended_at = trio.current_time()
            self.ended.set()

    def retire(self) -> None:
        self.retired_at = trio.current_time()
        self.reason = "handover"
        self._scope.cancel()

    def deliver(self) -> None:
        """Be a session that carries everything."""
        self.delivering.set()
        self.ready.set()
        self.stats.state = "receiving"


def lives(
    seconds: float = float("inf"),
    *,
    ready_after: float | None = None,
    due_after: float | None = None,
    reason: str = "disconnect",
    stable_s: float = 0.0,
) -> Callable[[Session], Any]:
    """Script: ready and due after so long (never, if None), then the end for ``reason``."""

    async def script(session: Session) -> None:
        async def later(after_s: float | None, action: Callable[[], object]) -> None:
            if after_s is not None:
                await trio.sleep(after_s)
                action()

        def fall_due() -> None:
            if ready_after is not None and due_after is not None:
                session.stable_s = due_after - ready_after
            session.due.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(later, ready_after, session.deliver)
            nursery.start_soon(later, due_after, fall_due)
            await trio.sleep(seconds)
            nursery.cancel_scope.cancel()
        session.reason, session.stable_s = reason, stable_s

    return script


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


class Bench:
    """A stream whose sessions run the next script each, the last one for ever after."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *scripts: Callable[[Session], Any]) -> None:
        self.sessions: list[Session] = []
        self._scripts = list(scripts)
        monkeypatch.setattr(stream_room, "Session", self._make)
        self.stream = make_stream()

    def _make(self, around: Any, name: str) -> Session:
        script = self._scripts.pop(0) if len(self._scripts) > 1 else self._scripts[0]
        self.sessions.append(Session(around, name, script))
        return self.sessions[-1]

    async def run(self, seconds: float) -> None:
        with trio.move_on_after(seconds):
            await self.stream.run()
        assert all(session.ended_at is not None for session in self.sessions)

    def waits(self) -> list[float]:
        """Return the seconds between the end of each session and the beginning of the next."""
        return [after.began_at - (before.ended_at or 0.0) for before, after in pairwise(self.sessions)]


@pytest.fixture
def lines() -> Iterator[list[Any]]:
    with structlog.testing.capture_logs() as captured:
        yield captured


async def test_the_first_restart_comes_at_once_and_the_next_ones_ever_later_up_to_the_bound(
    monkeypatch, autojump_clock
):
    bench = Bench(monkeypatch, lives(5.0))
    await bench.run(2000)
    waits = bench.waits()
    assert waits[0] <= SHORT_S
    for number, (low, high) in enumerate([(0.5, 1), (1, 2), (2, 4), (4, 8)], start=1):
        assert low <= waits[number] <= high
    assert all(4 <= wait <= 8 for wait in waits[4:])
    # For ever: it never gives up.
    assert len(waits) > 150
    # The last one may still be waiting to be made.
    assert bench.stream.stats.reconnects - (len(bench.sessions) - 1) in (0, 1)


async def test_a_stable_session_makes_the_next_wait_short_and_an_unstable_one_does_not(
    monkeypatch, autojump_clock
):
    broken, stable = lives(1.0), lives(500.0, stable_s=500.0)
    unstable = lives(500.0, stable_s=299.0)
    bench = Bench(monkeypatch, *[broken] * 6, stable, *[broken] * 5, unstable, lives())
    await bench.run(3000)
    waits = bench.waits()
    assert waits[6] <= SHORT_S
    assert 0.5 <= waits[7] <= 1
    assert waits[12] >= 4


async def test_while_it_waits_the_state_says_why(monkeypatch, autojump_clock):
    bench = Bench(monkeypatch, lives(1.0, reason="disconnect"), lives(1.0, reason="stall"), lives())
    states = []

    async def look() -> None:
        while True:
            states.append(bench.stream.stats.state)
            await trio.sleep(0.01)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(look)
        await bench.run(10)
        nursery.cancel_scope.cancel()
    assert list(dict.fromkeys(states)) == ["connecting", "waiting (disconnect)", "waiting (stall)"]


async def test_every_session_has_a_name_of_its_own(monkeypatch, autojump_clock):
    bench = Bench(monkeypatch, lives(1.0))
    await bench.run(5)
    names = [session.name for session in bench.sessions]
    assert names[:3] == ["trade-1", "trade-1.2", "trade-1.3"]
    assert len(set(names)) == len(names)


async def test_a_hand_over_keeps_the_old_session_for_exactly_the_linger_after_the_new_one_is_ready(
    monkeypatch, autojump_clock, lines
):
    bench = Bench(monkeypatch, lives(ready_after=1, due_after=100), lives(ready_after=7))
    await bench.run(200)
    old, new = bench.sessions
    assert new.began_at == 100
    assert old.retired_at == old.ended_at == 107 + LINGER_S
    assert new.ended_at == 200
    assert (bench.stream.stats.handovers, bench.stream.stats.reconnects) == (1, 0)
    assert [line["event"] for line in lines] == ["handed over to a new connection; the old one retires"]


async def test_a_venue_that_shuts_every_new_connection_down_at_once_is_given_ever_more_time(
    monkeypatch, autojump_clock, lines
):
    bench = Bench(monkeypatch, lives(ready_after=0.1, due_after=0.3))
    await bench.run(200)
    waits = [after.began_at - before.began_at for before, after in pairwise(bench.sessions)]
    # The first is due after 0.3 seconds, the others are when they have taken over; and then they wait.
    assert waits[0] <= 0.3 + SHORT_S
    taken_over_s = 0.1 + LINGER_S
    for number, (low, high) in enumerate([(0.5, 1), (1, 2), (2, 4), (4, 8)], start=1):
        assert low <= waits[number] - taken_over_s <= high
    assert all(4 <= wait - taken_over_s <= 8 for wait in waits[4:])
    # Meanwhile the old one delivers.
    for before, after in pairwise(bench.sessions):
        assert (before.ended_at or 0) > after.began_at


async def test_cuts_after_good_work_do_not_make_the_waits_grow(monkeypatch, autojump_clock):
    bench = Bench(monkeypatch, *[lives(1.0)] * 4, lives(23.0, stable_s=23.0))
    await bench.run(1000)
    waits = bench.waits()
    assert waits[3] >= 2
    # A step back at a time, and then every cut costs next to nothing.
    assert 1 <= waits[4] <= 2
    assert 0.5 <= waits[5] <= 1
    assert all(wait <= SHORT_S for wait in waits[6:])


async def test_a_successor_that_is_lost_before_it_is_ready_is_replaced_and_the_old_session_goes_on(
    monkeypatch, autojump_clock, lines
):
    bench = Bench(
        monkeypatch, lives(ready_after=1, due_after=100), lives(3.0), lives(3.0), lives(ready_after=1)
    )
    await bench.run(200)
    old, first, second, third = bench.sessions
    assert first.began_at == 100
    assert 0 <= second.began_at - 103 <= SHORT_S
    assert 0.5 <= third.began_at - (second.ended_at or 0) <= 1
    assert old.ended_at == third.began_at + 1 + LINGER_S
    assert bench.stream.stats.handovers == 1


async def test_a_successor_that_is_lost_while_the_old_session_lingers_does_not_retire_it(
    monkeypatch, autojump_clock, lines
):
    bench = Bench(
        monkeypatch,
        lives(ready_after=1, due_after=100),
        lives(2.0 + LINGER_S / 2, ready_after=2.0),
        lives(ready_after=2.0),
    )
    await bench.run(200)
    old, lost, third = bench.sessions
    assert lost.ended_at == 102 + LINGER_S / 2
    # The old one carried the data until another one stood beside it.
    assert old.ended_at == third.began_at + 2 + LINGER_S
    assert (bench.stream.stats.handovers, bench.stream.stats.reconnects) == (1, 0)


async def test_if_the_old_session_ends_first_the_successor_goes_on_alone(monkeypatch, autojump_clock, lines):
    bench = Bench(monkeypatch, lives(105.0, ready_after=1, due_after=100), lives(ready_after=20))
    states = []

    async def look() -> None:
        for moment in (104, 106, 121):
            await trio.sleep_until(moment)
            states.append(bench.stream.stats.state)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(look)
        await bench.run(200)
    old, new = bench.sessions
    assert (old.ended_at, old.retired_at) == (105, None)
    assert new.ended_at == 200
    # Nobody delivers between the end of the one and the first data of the other, and the state must not say so.
    assert states == ["receiving", "connecting", "receiving"]
    assert bench.stream.stats.handovers == 0


async def test_if_both_sessions_end_while_the_old_one_lingers_another_follows(
    monkeypatch, autojump_clock, lines
):
    bench = Bench(
        monkeypatch,
        lives(102.2, ready_after=1, due_after=100),
        lives(2.5, ready_after=2.0),
        lives(ready_after=1),
    )
    await bench.run(200)
    old, new, third = bench.sessions
    assert (old.ended_at, new.ended_at) == (102.2, 102.5)
    assert 102.5 <= third.began_at <= 102.5 + SHORT_S
    assert third.ended_at == 200


async def test_if_the_old_session_ends_between_two_tries_the_stream_reconnects(
    monkeypatch, autojump_clock, lines
):
    bench = Bench(
        monkeypatch, lives(104.6, ready_after=1, due_after=100), *[lives(1.0)] * 4, lives(ready_after=1)
    )
    await bench.run(300)
    last = bench.sessions[-1]
    assert last.ended_at == 300
    assert last.ready.is_set()


async def test_a_session_that_crashes_ends_the_stream_and_its_other_session(monkeypatch, autojump_clock):
    async def crash(_session: Session) -> None:
        await trio.sleep(5)
        raise ZeroDivisionError("a bug")

    bench = Bench(monkeypatch, lives(ready_after=1, due_after=100), crash)
    with pytest.raises(BaseExceptionGroup) as caught:
        await bench.run(200)
    assert caught.group_contains(ZeroDivisionError, match="a bug")
    assert [session.ended_at for session in bench.sessions] == [105, 105]


async def test_the_first_of_several_events_is_enough_and_one_that_was_set_before_too(autojump_clock):
    early, late = trio.Event(), trio.Event()

    async def set_later() -> None:
        await trio.sleep(3)
        early.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(set_later)
        await first_of(early, late)
    assert trio.current_time() == 3
    await first_of(late, early)
    assert trio.current_time() == 3
