"""Open interest, asked for on the virtual clock."""

from __future__ import annotations

from types import SimpleNamespace

import structlog
import trio

from harvest.nurseries.polling import BUDGET_SHARE, STEP_S, OpenInterestPoll
from harvest.nurseries.rest import RestError
from harvest.venues import VENUES


class Client:
    """Answers after ``takes_s``; refuses the questions whose numbers are in ``refused``."""

    def __init__(
        self, *, per_minute: float = 1200, takes_s: float = 0.0, refused: tuple[int, ...] = ()
    ) -> None:
        self.budget = SimpleNamespace(per_minute=per_minute)
        self.asked: list[tuple[float, str]] = []
        self._takes_s, self._refused = takes_s, refused

    async def get(self, request) -> bytes:
        self.asked.append((round(trio.current_time(), 3), request.path.partition("=")[2]))
        number = len(self.asked)
        await trio.sleep(self._takes_s)
        if number in self._refused:
            raise RestError("venue", request.path, "HTTP 503", status=503)
        return b"%d" % number


class Intake:
    def __init__(self) -> None:
        self.polled_bodies: list[tuple[str, str, int, bytes]] = []

    def polled(self, feed, symbol, failed, body) -> None:
        self.polled_bodies.append((feed, symbol, failed, body))


async def poll(client, seconds, symbols=("A", "B"), interval_s=60.0):
    intake = Intake()
    with trio.move_on_after(seconds):
        await OpenInterestPoll(
            VENUES["binance-usdm"], client, lambda: symbols, interval_s=interval_s, intake=intake
        ).run()
    return intake.polled_bodies


async def test_each_symbol_is_asked_for_at_once_and_then_every_interval(autojump_clock):
    client = Client()
    bodies = await poll(client, 121)
    assert client.asked == [
        *((0.0, "A"), (STEP_S, "B"), (60.0, "A"), (60 + STEP_S, "B")),
        *((120.0, "A"), (120 + STEP_S, "B")),
    ]
    assert bodies[:2] == [("open_interest", "A", 0, b"1"), ("open_interest", "B", 0, b"2")]


async def test_a_refused_question_is_logged_and_counted_with_the_next_answer(autojump_clock):
    client = Client(refused=(1, 3))
    with structlog.testing.capture_logs() as lines:
        bodies = await poll(client, 121)
    assert [(symbol, failed) for _, symbol, failed, _ in bodies] == [("B", 0), ("B", 0), ("A", 2), ("B", 0)]
    warnings = [line for line in lines if line["log_level"] == "warning"]
    assert [line["symbol"] for line in warnings] == ["A", "A"]
    assert warnings[0]["tag"] == "CHANNEL.OPEN_INTEREST"


async def test_many_symbols_take_no_more_than_their_part_of_the_budget(autojump_clock):
    client = Client(per_minute=40)
    await poll(client, 599, symbols=[f"S{number}" for number in range(20)], interval_s=5.0)
    assert len(client.asked) <= 10 * 40 * BUDGET_SHARE
    assert len(client.asked) > 0.9 * 10 * 40 * BUDGET_SHARE


async def test_questions_that_were_due_during_a_long_answer_are_left_out(autojump_clock):
    client = Client(takes_s=100.0)
    await poll(client, 450, symbols=("A",))
    assert [at for at, _ in client.asked] == [0.0, 100.0, 200.0, 300.0, 400.0]
