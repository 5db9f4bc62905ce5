from __future__ import annotations

import gzip
import json
import socket
import struct
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import trio

from harvest.errors import RecordingError
from harvest.simulator import SimulatorConfig, serve
from harvest.simulator.recording import Recording, read_lines

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from trio.testing import MockClock

RECORDINGS = Path(__file__).resolve().parents[2] / ".." / "shared" / "recordings"
needs_recordings = pytest.mark.skipif(not RECORDINGS.exists(), reason="needs ../shared/recordings")
BASE_NS = 1_721_347_020_000_000_000
HANDSHAKE = (
    b"GET %b HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


def depth(number: int, symbol: str = "BTCUSDT", price: str = "100.0", qty: str = "1.0") -> dict[str, Any]:
    return {
        "stream": f"{symbol.lower()}@depth@0ms",
        "data": {
            "e": "depthUpdate",
            "E": number,
            "T": number,
            "s": symbol,
            "U": number * 10 - 3,
            "u": number * 10,
            "pu": number * 10 - 10,
            "b": [[price, qty]],
            "a": [],
        },
    }


def trade(number: int, symbol: str = "BTCUSDT") -> dict[str, Any]:
    data = {"e": "trade", "E": number, "T": number, "s": symbol, "t": number, "p": "100.0", "q": "2.0"}
    return {"stream": f"{symbol.lower()}@trade", "data": {**data, "X": "MARKET", "m": True}}


def snapshot(last_update_id: int, price: str = "100.0") -> dict[str, Any]:
    return {
        "lastUpdateId": last_update_id,
        "E": 1,
        "T": 1,
        "bids": [[price, "5.0"], ["99.0", "1.0"]],
        "asks": [["101.0", "1.0"]],
    }


def record(
    path: Path, *messages: dict[str, Any], apart_ns: int = 100_000_000, start_ns: int = BASE_NS
) -> Path:
    lines = [
        f"{start_ns + number * apart_ns} {json.dumps(message, separators=(',', ':'))}\n"
        for number, message in enumerate(messages)
    ]
    content = "".join(lines).encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


@pytest.mark.parametrize("name", ["one.gz", "one.txt"])
async def test_a_replay_begins_when_all_subscriptions_stand(
    venue: Callable[..., Any], autojump_clock: MockClock, tmp_path: Path, name: str
) -> None:
    path = record(tmp_path / name, *(trade(number) for number in range(1, 21)))
    async with venue(replay=(path,)) as running:
        one = await running.connect("/public/ws")
        two = await running.connect("/public/ws")
        await trio.sleep(30)
        await one.ask("SUBSCRIBE", "btcusdt@trade")
        assert await one.take(30) == []
        await two.ask("SUBSCRIBE", "btcusdt@trade")
        start = trio.current_time()
        got = [await socket.take(5) for socket in (one, two)]
        assert [[row["t"] for row in rows] for rows in got] == [list(range(1, 21))] * 2
        assert trio.current_time() - start == 10
        _, status, _ = await running.get("/simulator/status")
        assert (status["replay_done"], status["sent"]) == (True, {"btcusdt@trade": 40})


async def test_a_replay_waits_for_the_streams_that_are_expected(
    venue: Callable[..., Any],
    autojump_clock: MockClock,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = record(tmp_path / "one", trade(1), depth(1))
    expected = ("btcusdt@trade", "btcusdt@depth@100ms")
    assert capsys.readouterr().err == ""
    async with venue(replay=(path,), replay_streams=expected) as running:
        one = await running.connect("/public/stream?streams=btcusdt@trade")
        assert await one.take(11) == []
        assert "waits for btcusdt@depth@100ms" in capsys.readouterr().err
        two = await running.connect("/public/stream?streams=btcusdt@depth@100ms")
        rows = await two.take(2)
        assert [row["stream"] for row in rows] == ["btcusdt@depth@100ms"]
        assert await one.take(1)


async def test_the_pace_is_that_of_the_recording_times_the_speed(
    venue: Callable[..., Any], autojump_clock: MockClock, tmp_path: Path
) -> None:
    path = record(tmp_path / "one", *(trade(number) for number in range(1, 102)))
    async with venue(replay=(path,), speed=10.0) as running:
        socket = await running.connect("/public/ws/btcusdt@trade")
        await socket.take(0.3 + 0.5)
        rows = await socket.take(0.2)
        assert len(rows) == pytest.approx(20, abs=2)


async def test_several_files_are_merged_by_receive_time(
    venue: Callable[..., Any], autojump_clock: MockClock, tmp_path: Path
) -> None:
    odd = record(tmp_path / "odd", *(trade(number) for number in range(1, 20, 2)))
    even = record(
        tmp_path / "even",
        *(trade(number, "ETHUSDT") for number in range(2, 21, 2)),
        start_ns=BASE_NS + 50_000_000,
    )
    async with venue(replay=(even, odd), speed=None) as running:
        _, info, _ = await running.get("/fapi/v1/exchangeInfo")
        assert {one["symbol"] for one in info["symbols"]} == {"BTCUSDT", "ETHUSDT"}
        socket = await running.connect("/public/ws/btcusdt@trade/ethusdt@trade")
        assert [row["t"] for row in await socket.take(5)] == list(range(1, 21))


async def test_the_files_snapshot_is_served_before_and_a_newer_book_to_who_asks_again(
    venue: Callable[..., Any], autojump_clock: MockClock, tmp_path: Path
) -> None:
    path = record(
        tmp_path / "one",
        depth(1),
        snapshot(10),
        depth(2, price="100.0", qty="7.0"),
        depth(3, price="98.0", qty="3.0"),
        depth(4, price="99.0", qty="0.0"),
    )
    target = "/fapi/v1/depth?symbol=BTCUSDT&limit=1000"
    async with venue(replay=(path,), speed=None) as running:
        assert (await running.get(target))[1] == snapshot(10)
        socket = await running.connect("/public/ws/btcusdt@depth@100ms")
        assert len(await socket.take(5)) == 4
        _, again, _ = await running.get(target)
        assert (again["lastUpdateId"], again["T"]) == (40, 4)
        assert again["bids"] == [["100.0", "7.0"], ["98.0", "3.0"]]
        _, best, _ = await running.get("/fapi/v1/depth?symbol=BTCUSDT&limit=5")
        assert best["asks"] == [["101.0", "1.0"]]


async def test_a_snapshot_among_several_symbols_is_told_by_its_price(tmp_path: Path) -> None:
    path = record(
        tmp_path / "one",
        depth(1, "BTCUSDT", "64000.0"),
        depth(2, "ETHUSDT", "3400.0"),
        snapshot(10, "3401.0"),
        snapshot(10, "64001.0"),
    )
    recording = Recording([path])
    assert {symbol: [number for number, _ in found] for symbol, found in recording.snapshots.items()} == {
        "ETHUSDT": [2],
        "BTCUSDT": [3],
    }


async def test_recorded_trades_are_served_up_to_where_the_replay_stands(
    venue: Callable[..., Any], autojump_clock: MockClock, tmp_path: Path
) -> None:
    path = record(tmp_path / "one", *(trade(number) for number in range(1, 21)), apart_ns=10**9)
    async with venue(replay=(path,)) as running:
        assert (await running.get("/fapi/v1/trades?symbol=BTCUSDT"))[1] == []
        socket = await running.connect("/public/ws/btcusdt@trade")
        await socket.take(10)
        _, rows, _ = await running.get("/fapi/v1/trades?symbol=BTCUSDT&limit=3")
        assert [row["id"] for row in rows] == [8, 9, 10]
        assert rows[0]["quoteQty"] == "200.00000000"
        assert (await running.get("/fapi/v1/aggTrades?symbol=BTCUSDT"))[1] == []
        assert (await running.get("/fapi/v1/openInterest?symbol=BTCUSDT"))[0] == 503


async def test_a_stream_that_is_not_recorded_is_named_with_what_is(
    venue: Callable[..., Any],
    autojump_clock: MockClock,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = record(tmp_path / "one", trade(1), depth(1))
    async with venue(replay=(path,)) as running:
        socket = await running.connect("/market/ws/btcusdt@aggTrade")
        assert await socket.take(5) == []
    said = capsys.readouterr().err
    assert (
        "btcusdt@aggTrade is not in the recording and stays silent: it has depth, trade for BTCUSDT" in said
    )


async def test_faults_strike_a_replay_too(
    venue: Callable[..., Any], autojump_clock: MockClock, tmp_path: Path
) -> None:
    path = record(tmp_path / "one", *(trade(number) for number in range(1, 101)))
    async with venue(replay=(path,), faults=("gap trades at 2s skip 5", "stall trades at 5s")) as running:
        rows = await (await running.connect("/public/ws/btcusdt@trade")).take(20)
    ids = [row["t"] for row in rows]
    assert ids[-1] - ids[0] + 1 - len(ids) == 5
    assert ids[-1] < 60


@pytest.mark.parametrize(
    ("content", "line", "why"),
    [
        (b"", 0, "holds no message"),
        (b"123 {}\n", 1, "19 digits"),
        (b"1721347020000000000 {nonsense\n", 1, "holds no frame"),
        (b'1721347020000000000 {"stream":"a@trade","data":{}}\n1721347020000000001 {}\n', 2, "neither"),
    ],
)
def test_a_file_that_is_no_recording_is_named_with_its_line(
    tmp_path: Path, content: bytes, line: int, why: str
) -> None:
    path = tmp_path / "broken"
    path.write_bytes(content)
    with pytest.raises(RecordingError, match=why) as caught:
        Recording([path])
    assert (caught.value.path, caught.value.line) == (str(path), line)


def test_a_truncated_or_missing_file_is_an_error_that_names_it(tmp_path: Path) -> None:
    path = tmp_path / "cut.gz"
    path.write_bytes(gzip.compress(b"1721347020000000000 {}\n" * 1000)[:-20])
    with pytest.raises(RecordingError, match=r"cut\.gz"):
        list(read_lines(path))
    with pytest.raises(RecordingError, match="nowhere"):
        Recording([tmp_path / "nowhere"])


def test_frames_in_another_order_or_with_escapes_are_read_alike(tmp_path: Path) -> None:
    path = tmp_path / "one"
    path.write_text(
        '1721347020000000000 {"data":{"t":1},"stream":"a@trade"}\n'
        '1721347020000000000 {"stream":"\\u725b@trade","data":{"t":2}}\n\n',
        encoding="utf-8",
    )
    assert [line[1:] for line in read_lines(path)] == [
        (b"a@trade", b'{"t":1}'),
        ("牛@trade".encode(), b'{"t":2}'),
    ]


def frames(received: bytes) -> Iterator[bytes]:
    at = received.index(b"\r\n\r\n") + 4
    while at < len(received):
        size, header = received[at + 1], 2
        if size == 126:
            (size,), header = struct.unpack_from(">H", received, at + 2), 4
        elif size == 127:
            (size,), header = struct.unpack_from(">Q", received, at + 2), 10
        if received[at] == 0x81:
            yield received[at + header : at + header + size]
        at += header + size


@needs_recordings
@pytest.mark.parametrize("files", ["spot__btcusdt_20240808.gz", "usdm__ethusdt_2024071*.gz"])
async def test_a_replay_over_real_sockets_is_the_recording_byte_for_byte(files: str, tmp_path: Path) -> None:
    paths = sorted(RECORDINGS.glob(files))
    futures = files.startswith("usdm")
    symbol = "ethusdt" if futures else "btcusdt"
    expected = [
        b'{"stream":"%b","data":%b}' % (stream.replace(b"@0ms", b"@100ms"), body)
        for path in paths
        for _, stream, body in read_lines(path)
        if stream
    ]
    config = SimulatorConfig(
        venue="binance-usdm" if futures else "binance-spot",
        replay=tuple(paths),
        speed=None,
        sent_log=tmp_path / "sent",
    )
    door = b"/public/stream" if futures else b"/stream"
    streams = "/".join(f"{symbol}@{kind}" for kind in ("trade", "depth@100ms", "bookTicker"))
    received = bytearray()
    async with trio.open_nursery() as nursery:
        endpoints = await nursery.start(serve, config)
        stream = await trio.open_tcp_stream("127.0.0.1", int(endpoints.ws_url.rsplit(":", 1)[1]))
        async with stream:
            # A small window, so that the replay has to wait for its reader.
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)
            await stream.send_all(HANDSHAKE % (door + b"?streams=" + streams.encode()))
            async with httpx.AsyncClient() as client:
                done = False
                while True:
                    data = b""
                    with trio.move_on_after(0.2):
                        data = await stream.receive_some(1 << 18)
                    received += data
                    if done and not data:
                        break
                    if not data:
                        status = (await client.get(f"{endpoints.rest_url}/simulator/status")).json()
                        done = status["replay_done"]
        nursery.cancel_scope.cancel()
    assert sum(status["sent"].values()) == len(expected)
    assert list(frames(bytes(received))) == expected
    with (tmp_path / "sent").open(encoding="utf-8") as log:
        rows = [json.loads(line) for line in log]
    assert len(rows) == len(expected)
    ids = [row["id"] for row in rows if row["stream"] == f"{symbol}@trade"]
    assert ids == list(range(ids[0], ids[-1] + 1))


@needs_recordings
async def test_the_recorded_snapshot_is_served_whole(
    venue: Callable[..., Any], autojump_clock: MockClock
) -> None:
    path = RECORDINGS / "usdm__btcusdt_20240718.gz"
    body = next(body for _, stream, body in islice(read_lines(path), 5000) if not stream)
    async with venue(replay=(path,)) as running:
        _, served, _ = await running.get("/fapi/v1/depth?symbol=BTCUSDT&limit=1000")
    assert served == json.loads(body)
