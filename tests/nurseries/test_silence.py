from __future__ import annotations

import json
import math

import pytest
import structlog
import trio

from harvest.metrics import Metrics
from harvest.nurseries.plan import ChangingPlan
from harvest.nurseries.probe import Answer, Verdict
from harvest.nurseries.requests import Requests
from harvest.nurseries.silence import ASKED_AT_ONCE, Silence
from harvest.venues import VENUES
from harvest.venues.protocol import StreamOptions

USDM = VENUES["binance-usdm"]
IDLE_S = 100.0
QUIET, DEAD, UNKNOWN = Verdict.QUIET, Verdict.DEAD, Verdict.UNKNOWN


class Prober:
    """Answers from a table; a missing symbol is quiet. Counts what it is asked."""

    venue = USDM

    def __init__(self, **answers: Answer) -> None:
        self.answers = answers
        self.asked: list[tuple[float, str, int]] = []
        self.takes_s = 0.5

    @staticmethod
    def clock_ns() -> int:
        return round(trio.current_time() * 1e9)

    async def ask(self, feed, symbol, since_ns, *, known_id=0) -> Answer:
        self.asked.append((trio.current_time(), symbol, known_id))
        await trio.sleep(self.takes_s)
        answer = self.answers.get(symbol, Answer(QUIET, 7))
        if answer.verdict is DEAD and answer.newest_id <= known_id:
            return Answer(QUIET, answer.newest_id)
        return answer


class Session:
    opened_ns = 0
    unread_at = -math.inf

    def __init__(self) -> None:
        self.data_at = trio.current_time()
        self.deadline = self.data_at + IDLE_S
        self.stays: list[float] = []
        self.gave_up_at: float | None = None

    def silent_for_s(self) -> float:
        return trio.current_time() - self.data_at

    def stay(self) -> None:
        self.stays.append(trio.current_time())
        self.deadline = trio.current_time() + IDLE_S

    def give_up(self) -> None:
        self.gave_up_at = trio.current_time()


class Connection:
    def __init__(self) -> None:
        self.sent: list[tuple[float, str, list[str]]] = []
        self.ids: list[int] = []

    async def send(self, text: str) -> None:
        request = json.loads(text)
        self.sent.append((trio.current_time(), request["method"], request["params"]))
        self.ids.append(request["id"])


class Bench:
    def __init__(self, symbols: list[str], prober: Prober, feed: str = "trade") -> None:
        (plan,) = USDM.connections(feed, symbols, StreamOptions(), ws_url="wss://h", max_streams=200)
        self.metrics = Metrics()
        self.session = Session()
        self.connection = Connection()
        self.prober = prober
        self.feed = feed
        self.plan = ChangingPlan(plan)
        self.requests = Requests(self.connection, USDM)
        self.silence = Silence(
            self.plan,
            self.session,
            idle_s=IDLE_S,
            prober=prober,
            metrics=self.metrics,
            name="trade-1",
            log=structlog.get_logger(),
        )

    def deliver(self, symbol: str) -> None:
        """Let one message of a symbol arrive now."""
        self.deliver_elsewhere(symbol)
        self.metrics.heard.setdefault("trade-1", {})[symbol] = Prober.clock_ns()
        self.session.data_at = trio.current_time()

    def deliver_elsewhere(self, symbol: str) -> None:
        """Let one message of a symbol arrive now, over another connection."""
        self.metrics.feed(self.feed, symbol).last_mono_ns = Prober.clock_ns()

    async def run(self, seconds: float, *flowing: str, elsewhere: tuple[str, ...] = ()) -> None:
        """Watch for so long, while the ``flowing`` symbols deliver every second, and others do over another connection."""
        with trio.move_on_after(seconds):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.silence.watch, self.requests)
                while True:
                    for symbol in flowing:
                        self.deliver(symbol)
                    for symbol in elsewhere:
                        self.deliver_elsewhere(symbol)
                    await trio.sleep(1)


async def test_while_everything_flows_nobody_is_asked(autojump_clock):
    bench = Bench(["A", "B"], Prober())
    await bench.run(1000, "A", "B")
    assert bench.prober.asked == []
    assert bench.connection.sent == []


async def test_a_quiet_stream_is_confirmed_before_each_deadline_and_never_restarted(autojump_clock):
    bench = Bench(["A"], Prober())
    with trio.move_on_after(10 * IDLE_S):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(bench.silence.watch, bench.requests)
            while True:
                assert trio.current_time() < bench.session.deadline
                await trio.sleep(1)
    assert bench.session.gave_up_at is None
    assert bench.connection.sent == []
    assert len(bench.session.stays) == len(bench.prober.asked) >= 10
    assert bench.prober.asked[0][0] == pytest.approx(80, abs=3)
    assert bench.metrics.feed("trade", "A").quiet_mono_ns == pytest.approx(bench.session.stays[-1] * 1e9)


@pytest.mark.parametrize("answer", [Answer(DEAD, 9), Answer(UNKNOWN)])
async def test_a_dead_stream_or_one_that_cannot_be_asked_about_is_subscribed_anew_and_left_to_the_watchdog(
    answer, autojump_clock
):
    bench = Bench(["A", "B"], Prober(A=answer))
    await bench.run(IDLE_S)
    (left_at, left, streams), (joined_at, joined, again) = bench.connection.sent[:2]
    assert (left, joined) == ("UNSUBSCRIBE", "SUBSCRIBE")
    assert streams == again == ["a@aggTrade", "b@aggTrade"]
    assert 80 <= left_at <= joined_at < IDLE_S
    assert bench.session.stays == []
    assert bench.connection.ids[:2] == [1, 2]


async def test_an_answer_that_takes_too_long_is_none(autojump_clock):
    prober = Prober()
    prober.takes_s = 60
    bench = Bench(["A"], prober)
    await bench.run(IDLE_S)
    assert [method for _, method, _ in bench.connection.sent[:2]] == ["UNSUBSCRIBE", "SUBSCRIBE"]
    assert bench.connection.sent[0][0] < IDLE_S


async def test_one_dead_symbol_among_flowing_ones_is_subscribed_anew_alone(autojump_clock):
    bench = Bench(["A", "B", "C"], Prober(B=Answer(DEAD, 9)))
    with structlog.testing.capture_logs() as lines:
        await bench.run(90, "A", "C")
    assert [streams for _, _, streams in bench.connection.sent] == [["b@aggTrade"]] * 2
    assert bench.session.gave_up_at is None
    assert lines[0]["event"] == "B: silent, though the venue has newer data: subscribing anew"


async def test_a_symbol_that_stays_dead_costs_the_connection_at_the_end_of_the_idle_time(autojump_clock):
    prober = Prober(B=Answer(DEAD, 9))
    bench = Bench(["A", "B"], prober)

    async def trade_on() -> None:
        while True:
            await trio.sleep(5)
            prober.answers["B"] = Answer(DEAD, prober.answers["B"].newest_id + 1)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(trade_on)
        await bench.run(130, "A")
        nursery.cancel_scope.cancel()
    assert bench.session.gave_up_at == pytest.approx(IDLE_S, abs=6)


async def test_a_symbol_that_was_revived_and_is_quiet_then_costs_nothing(autojump_clock):
    # What was missed before it was subscribed anew never comes, and is not held against it.
    bench = Bench(["A", "B"], Prober(B=Answer(DEAD, 9)))
    await bench.run(500, "A")
    assert bench.session.gave_up_at is None
    assert len(bench.connection.sent) == 2
    assert all(known_id == 9 for _, _, known_id in bench.prober.asked[1:])


async def test_a_revived_symbol_that_moves_again_begins_anew(autojump_clock):
    bench = Bench(["A", "B"], Prober(B=Answer(DEAD, 9)))
    await bench.run(90, "A")
    await bench.run(90, "A", "B")
    asked = len(bench.prober.asked)
    bench.prober.answers["B"] = Answer(DEAD, 20)
    await bench.run(90, "A")
    assert bench.session.gave_up_at is None
    assert len(bench.connection.sent) == 4
    assert bench.prober.asked[asked][2] == 0


async def test_many_quiet_symbols_do_not_use_up_the_weight(autojump_clock):
    symbols = [f"S{number}" for number in range(100)]
    bench = Bench(["A", *symbols], Prober())
    await bench.run(IDLE_S * 3, "A")
    times = [when for when, _, _ in bench.prober.asked]
    assert max(times.count(moment) for moment in times) <= ASKED_AT_ONCE
    # Three every fortieth of the idle time.
    assert len(times) <= ASKED_AT_ONCE * 40 * 3
    assert {symbol for _, symbol, _ in bench.prober.asked} == set(symbols)


async def test_a_dead_connection_is_not_kept_for_a_quiet_symbol_while_another_one_brings_the_rest(
    autojump_clock,
):
    # B has nothing new, but A has, and comes over the other connection alone.
    bench = Bench(["A", "B"], Prober())
    await bench.run(IDLE_S, elsewhere=("A",))
    assert bench.session.stays == []
    assert bench.prober.asked == []


async def test_a_symbol_that_only_another_connection_brings_is_dead_here_whatever_the_venue_says(
    autojump_clock,
):
    bench = Bench(["A", "B", "C"], Prober())
    await bench.run(104, "A", "C", elsewhere=("B",))
    assert [streams for _, _, streams in bench.connection.sent] == [["b@aggTrade"]] * 2
    assert bench.connection.sent[0][0] == pytest.approx(80, abs=6)
    # Nothing of it came here in the rest of the idle time either.
    assert bench.session.gave_up_at == pytest.approx(102, abs=3)


async def test_a_message_that_has_just_come_over_another_connection_is_waited_for(autojump_clock):
    bench = Bench(["A", "B"], Prober())
    with trio.move_on_after(150):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(bench.run, 150, "A")
            # At 80 s it is looked, just between the two.
            await trio.sleep(79.9)
            bench.deliver_elsewhere("B")
            await trio.sleep(0.2)
            bench.deliver("B")
    assert bench.connection.sent == []
    assert bench.session.gave_up_at is None


async def test_what_another_connection_brought_while_a_symbol_was_subscribed_anew_is_not_missed(
    autojump_clock,
):
    bench = Bench(["A", "B"], Prober(B=Answer(DEAD, 9)))
    with trio.move_on_after(300):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(bench.run, 300, "A")
            # Half a second after it was subscribed anew.
            await trio.sleep(81)
            assert len(bench.connection.sent) == 2
            bench.deliver_elsewhere("B")
    assert bench.session.gave_up_at is None
    assert len(bench.connection.sent) == 2


async def test_two_connections_that_both_flow_are_left_alone(autojump_clock):
    bench = Bench(["A", "B"], Prober())
    await bench.run(500, "A", "B", elsewhere=("A", "B"))
    assert bench.connection.sent == []
    assert bench.prober.asked == []


async def test_a_halted_symbol_is_not_asked_about_and_has_its_time_when_it_trades_again(autojump_clock):
    bench = Bench(["A", "B"], Prober(B=Answer(DEAD, 9)))
    stats = bench.metrics.feed("trade", "B")
    stats.halted = True
    await bench.run(5 * IDLE_S, "A")
    assert (bench.prober.asked, bench.connection.sent, bench.session.stays) == ([], [], [])
    stats.halted = False
    await bench.run(0.75 * IDLE_S, "A")
    assert bench.prober.asked == []
    await bench.run(0.25 * IDLE_S, "A")
    assert {symbol for _, symbol, _ in bench.prober.asked} == {"B"}


async def test_a_connection_all_of_whose_symbols_are_halted_stays(autojump_clock):
    bench = Bench(["A", "B"], Prober())
    for symbol in "AB":
        bench.metrics.feed("trade", symbol).halted = True
    with trio.move_on_after(10 * IDLE_S):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(bench.silence.watch, bench.requests)
            while True:
                assert trio.current_time() < bench.session.deadline
                await trio.sleep(1)
    assert bench.prober.asked == []


async def test_an_overload_of_ours_is_nobodys_silence(autojump_clock):
    bench = Bench(["A", "B"], Prober(A=Answer(DEAD, 9), B=Answer(DEAD, 9)))

    async def overload() -> None:
        for _ in range(round(3 * IDLE_S)):
            # Data arrives and is let go unread: whose it was, nobody knows.
            bench.session.data_at = bench.session.unread_at = trio.current_time()
            await trio.sleep(1)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(bench.silence.watch, bench.requests)
        await overload()
        nursery.cancel_scope.cancel()
    assert (bench.prober.asked, bench.connection.sent) == ([], [])
    # And when it is over, a symbol that is still silent is asked about in time.
    await bench.run(0.9 * IDLE_S, "A")
    assert {symbol for _, symbol, _ in bench.prober.asked} == {"B"}


async def test_the_plan_of_the_moment_says_who_is_watched_and_subscribed_to_anew(autojump_clock):
    bench = Bench(["A", "B"], Prober(B=Answer(DEAD, 9), C=Answer(DEAD, 9)))
    await bench.run(10, "A", "B")
    (plan,) = USDM.connections("trade", ["A", "C"], StreamOptions(), ws_url="wss://h", max_streams=200)
    bench.metrics.set_aside("B")
    bench.metrics.begin("C", 0, Prober.clock_ns())
    bench.plan.change(plan)
    await bench.run(75, "A")
    # It was added only then.
    assert bench.prober.asked == []
    await bench.run(15, "A")
    assert {symbol for _, symbol, _ in bench.prober.asked} == {"C"}
    assert [streams for _, _, streams in bench.connection.sent] == [["c@aggTrade"]] * 2
    assert ("trade", "B") not in bench.metrics.feeds


async def test_what_is_removed_while_it_is_subscribed_to_anew_is_unsubscribed_from_again(autojump_clock):
    bench = Bench(["A", "B"], Prober(B=Answer(DEAD, 9)))
    (without,) = USDM.connections("trade", ["A"], StreamOptions(), ws_url="wss://h", max_streams=200)
    send = bench.connection.send

    async def send_slowly(text: str) -> None:
        await send(text)
        bench.plan.change(without)
        await trio.sleep(0.1)

    bench.connection.send = send_slowly
    await bench.run(90, "A")
    assert [method for _, method, _ in bench.connection.sent] == ["UNSUBSCRIBE", "SUBSCRIBE", "UNSUBSCRIBE"]
