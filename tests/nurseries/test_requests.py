from __future__ import annotations

import json

import pytest
import trio

from harvest.nurseries.requests import Requests
from harvest.venues import VENUES


class Connection:
    def __init__(self) -> None:
        self.sent: list[tuple[float, str, list[str], int]] = []

    async def send(self, text: str) -> None:
        request = json.loads(text)
        self.sent.append((trio.current_time(), request["method"], request["params"], request["id"]))


@pytest.mark.parametrize("name", ["binance-usdm", "binance-spot"])
async def test_no_second_has_more_requests_than_half_of_what_the_venue_takes(name, autojump_clock):
    venue, connection = VENUES[name], Connection()
    requests = Requests(connection, venue)
    streams = [f"s{number}@trade" for number in range(1024)]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(requests.subscribe, streams)
        for stream in streams[:20]:
            nursery.start_soon(requests.unsubscribe, [stream])
    times = [at for at, *_ in connection.sent]
    most = venue.messages_per_s // 2
    assert times[0] == 0
    assert all(after >= before + 1 for before, after in zip(times, times[most:], strict=False))
    # They are numbered in the order in which they go out, and none is left out.
    assert [number for *_, number in connection.sent] == list(range(1, requests.sent + 1))
    joined = [stream for _, method, names, _ in connection.sent for stream in names if method == "SUBSCRIBE"]
    assert joined == streams


async def test_a_few_requests_go_out_at_once(autojump_clock):
    connection = Connection()
    requests = Requests(connection, VENUES["binance-spot"])
    await requests.unsubscribe(["a@trade"])
    await requests.subscribe(["a@trade"])
    assert trio.current_time() == 0
    assert [method for _, method, *_ in connection.sent] == ["UNSUBSCRIBE", "SUBSCRIBE"]
