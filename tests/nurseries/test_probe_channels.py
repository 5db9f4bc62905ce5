"""Dead or quiet, for the channels that follow the book: the venue's book tells whether it has moved."""

from __future__ import annotations

import json

import pytest

from harvest.market import CHANNELS
from harvest.nurseries.probe import Answer, Prober, Verdict
from harvest.nurseries.rest import RestError
from tests.pipeline.test_channels import Channel, partial, quote

#: What ``quote`` and ``partial`` of the wire show.
BID, ASK = ["100.0", "1"], ["101", "2"]
PARTIAL_BIDS, PARTIAL_ASKS = [["99", "1"], ["98", "1"]], [["101", "2"]]


class Client:
    """Shows one book after the other."""

    def __init__(self, *books) -> None:
        self._books = list(books)
        self.asked: list[str] = []

    async def get(self, request) -> bytes:
        self.asked.append(request.path)
        book = self._books.pop(0)
        if isinstance(book, Exception):
            raise book
        update_id, bids, asks = book
        return json.dumps({"lastUpdateId": update_id, "bids": bids, "asks": asks}).encode()


def prober(client, *frames):
    harness = Channel("bbo", "partial_depth")
    if frames:
        harness.frames(*frames)
    return Prober(harness.pipeline.venue, client, harness.pipeline, "aggTrade")


async def verdicts(asked, feed="bbo", times=1):
    return [(await asked.ask(feed, "BTCUSDT", 0)).verdict for _ in range(times)]


@pytest.mark.parametrize(
    ("book", "verdict"),
    [
        ((50, [BID, ["99", "5"]], [ASK]), Verdict.QUIET),
        ((50, [["100.0", "2"]], [ASK]), Verdict.DEAD),
        ((50, [BID], [["102", "2"]]), Verdict.DEAD),
        # Older than what the stream brought.
        ((7, [["100.0", "2"]], [ASK]), Verdict.QUIET),
    ],
)
async def test_best_quotes_are_quiet_while_the_best_levels_stay_as_they_are(book, verdict):
    client = Client(book)
    assert await verdicts(prober(client, quote(7))) == [verdict]
    assert client.asked == ["/fapi/v1/depth?symbol=BTCUSDT&limit=5"]


async def test_partial_depth_is_held_against_all_its_levels():
    alike, other = (
        (50, [*PARTIAL_BIDS, ["1", "1"]], PARTIAL_ASKS),
        (51, [["99", "1"], ["98", "7"]], PARTIAL_ASKS),
    )
    client = Client(alike, other)
    asked = prober(client, partial(7))
    assert await verdicts(asked, "partial_depth") == [Verdict.QUIET]
    assert client.asked == ["/fapi/v1/depth?symbol=BTCUSDT&limit=20"]
    assert await verdicts(asked, "partial_depth") == [Verdict.DEAD]


async def test_before_the_first_message_the_second_question_tells():
    same, moved = (50, [BID], [ASK]), (60, [["100.5", "1"]], [ASK])
    assert await verdicts(prober(Client(same, same, moved)), times=3) == [
        Verdict.QUIET,
        Verdict.QUIET,
        Verdict.DEAD,
    ]


async def test_what_was_missed_before_is_not_held_against_a_stream_that_was_subscribed_anew():
    moved = (60, [["100.5", "1"]], [ASK])
    assert await verdicts(prober(Client(moved, moved), quote(7)), times=2) == [Verdict.DEAD, Verdict.QUIET]


async def test_a_venue_that_cannot_be_asked_tells_nothing():
    client = Client(RestError("venue", "/x", "HTTP 503", status=503))
    assert await prober(client, quote(7)).ask("bbo", "BTCUSDT", 0) == Answer(Verdict.UNKNOWN)


def test_only_what_follows_the_book_can_be_asked_about():
    asked = prober(Client())
    silent = [feed for feed in ("trade", "orderbook", *CHANNELS) if not asked.can_ask(feed)]
    assert silent == ["mark", "liquidations", "open_interest"]
