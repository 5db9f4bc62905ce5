from __future__ import annotations

import time
from typing import Any

import pytest
import trio
from trio_websocket import ConnectionClosed, ConnectionRejected, wrap_client_stream

from harvest.nurseries.tap import HandshakeCutError, Tap
from tests.nurseries.wire import BINARY, CONTINUATION, PING, ScriptedStream, frame

LIMIT = 10_000


class Blocks(list[tuple[list[bytes], int, int]]):
    def take(self, frames: list[bytes], recv_ns: int, mono_ns: int) -> None:
        self.append((frames, recv_ns, mono_ns))

    @property
    def frames(self) -> list[bytes]:
        return [payload for frames, _, _ in self for payload in frames]


async def drain(tap: Any) -> ConnectionClosed:
    """Be trio-websocket's user until the connection ends."""
    async with trio.open_nursery() as nursery:
        websocket = await wrap_client_stream(nursery, tap, "venue", "/")
        while True:
            try:
                tap.deliver(await websocket.get_message())
            except ConnectionClosed as closed:
                return closed


class Raw(ScriptedStream):
    """Says what it is told, whatever the client says."""

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await trio.lowlevel.checkpoint()
        self.sent += bytes(data)


async def test_frames_of_one_block_come_as_one_list_with_one_receive_time() -> None:
    blocks = Blocks()
    before = time.time_ns(), time.monotonic_ns()
    await drain(
        Tap(ScriptedStream([frame(b"1") + frame(b"2"), frame(b"3")]), blocks.take, max_message_bytes=LIMIT)
    )
    after = time.time_ns(), time.monotonic_ns()
    assert [frames for frames, _, _ in blocks] == [[b"1", b"2"], [b"3"]]
    assert before[0] <= blocks[0][1] <= blocks[1][1] <= after[0]
    assert before[1] <= blocks[0][2] <= blocks[1][2] <= after[1]


async def test_frames_that_come_with_the_handshake_are_taken_too() -> None:
    blocks = Blocks()
    script = ScriptedStream([frame(b"1") + frame(b"2")[:2], frame(b"2")[2:]], with_answer=True)
    await drain(Tap(script, blocks.take, max_message_bytes=LIMIT))
    assert blocks.frames == [b"1", b"2"]


async def test_messages_of_both_ways_come_in_the_order_of_the_server() -> None:
    blocks = Blocks()
    wire = b""
    for i in range(300):
        wire += frame(b"fast %d" % i)
        wire += frame(b"slow ", fin=False) + frame(b"p", PING) + frame(b"%d" % i, CONTINUATION)
        wire += frame(b"raw %d" % i, BINARY)
    pieces = [wire[start : start + 777] for start in range(0, len(wire), 777)]
    await drain(Tap(ScriptedStream(pieces), blocks.take, max_message_bytes=LIMIT))
    assert blocks.frames == [b"%s %d" % (way, i) for i in range(300) for way in (b"fast", b"slow", b"raw")]
    assert [recv_ns for _, recv_ns, _ in blocks] == sorted(recv_ns for _, recv_ns, _ in blocks)


async def test_a_slow_message_has_the_time_at_which_its_end_was_received() -> None:
    blocks = Blocks()
    tap = Tap(ScriptedStream([frame(b"b", BINARY) + frame(b"t")]), blocks.take, max_message_bytes=LIMIT)
    await drain(tap)
    (_, binary_ns, binary_mono_ns), (_, text_ns, text_mono_ns) = blocks
    assert (binary_ns, binary_mono_ns) == (text_ns, text_mono_ns)


@pytest.mark.parametrize("slow", [False, True])
async def test_an_error_of_the_callback_is_stored_and_ends_the_stream_200_times_over(slow: bool) -> None:
    for nth in range(200):
        calls = 0

        def fail(_frames: list[bytes], _recv_ns: int, _mono_ns: int, nth: int = nth) -> None:
            nonlocal calls
            calls += 1
            if calls > nth % 3:
                raise ZeroDivisionError(nth)

        pieces = [
            frame(b"a", BINARY if slow else 1),
            frame(b"p", PING) + frame(b"b"),
            frame(b"c"),
            frame(b"d"),
        ] * 2
        tap = Tap(ScriptedStream(pieces, with_answer=nth % 2 == 0), fail, max_message_bytes=LIMIT)
        closed = await drain(tap)
        assert closed.reason is not None
        assert closed.reason.code == 1006
        assert isinstance(tap.error, ZeroDivisionError)
        assert tap.error.args == (nth,)
        assert calls == nth % 3 + 1
        assert await tap.receive_some() == b""


async def test_a_muted_tap_drops_the_data_and_still_passes_the_rest() -> None:
    blocks = Blocks()
    tap = Tap(ScriptedStream([frame(b"1"), frame(b"p", PING)]), blocks.take, max_message_bytes=LIMIT)
    tap.mute()
    await drain(tap)
    assert blocks == []


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (b"", None),
        (b"HTTP/1.1 101 Switching", 101),
        (b"HTTP/1.1 503 Service Unavailable\r\n\r\nuntil the end", 503),
        (b"nonsense\r\n", None),
    ],
)
async def test_a_stream_that_ends_before_the_websocket_is_open_says_so(
    answer: bytes, status: int | None
) -> None:
    tap = Tap(Raw([answer] if answer else []), Blocks().take, max_message_bytes=LIMIT)
    with pytest.raises(ExceptionGroup) as caught:
        await drain(tap)
    (error,) = caught.value.exceptions
    assert isinstance(error, HandshakeCutError)
    assert error.status == status


@pytest.mark.parametrize("size", [1, 7, 1000])
async def test_a_refusal_passes_with_its_body_and_nothing_is_sliced(size: int) -> None:
    blocks = Blocks()
    body = frame(b"looks like a frame")
    answer = b"HTTP/1.1 403 Forbidden\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    pieces = [answer[start : start + size] for start in range(0, len(answer), size)]
    with pytest.raises(ExceptionGroup) as caught:
        await drain(Tap(Raw(pieces), blocks.take, max_message_bytes=LIMIT))
    (error,) = caught.value.exceptions
    assert isinstance(error, ConnectionRejected)
    assert error.body == body
    assert blocks == []


async def test_frames_behind_a_handshake_that_fails_are_not_taken() -> None:
    blocks = Blocks()
    answer = (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: of somebody else\r\n\r\n"
    )
    with pytest.raises(ExceptionGroup):
        await drain(Tap(Raw([answer + frame(b"1"), frame(b"2")]), blocks.take, max_message_bytes=LIMIT))
    assert blocks == []


async def test_a_broken_stream_gives_what_waited_and_then_its_end() -> None:
    class Breaking(ScriptedStream):
        async def receive_some(self, max_bytes: int | None = None) -> bytes:
            if data := await super().receive_some(max_bytes):
                return data
            raise trio.BrokenResourceError("the cable")

    blocks = Blocks()
    # trio-websocket sees the bad text in the frame that never ended.
    tap = Tap(Breaking([frame(b"1") + frame(b"\xff" * 9)[:5]]), blocks.take, max_message_bytes=LIMIT)
    closed = await drain(tap)
    assert blocks.frames == [b"1"]
    assert closed.reason is not None
    assert closed.reason.code == 1007
    assert str(tap.broken) == "the cable"


async def test_closing_the_tap_closes_the_stream_under_it() -> None:
    script = ScriptedStream([])
    tap = Tap(script, Blocks().take, max_message_bytes=LIMIT)
    await tap.wait_send_all_might_not_block()
    await tap.aclose()
    assert script.is_closed
    with pytest.raises(trio.ClosedResourceError):
        await tap.receive_some()
