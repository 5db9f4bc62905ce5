"""The rest between reads: fewer wake-ups while data comes often, and none of it lost or late when it does not."""

from __future__ import annotations

import trio
import trio.testing

from harvest.nurseries.coalesce import CoalescingStream

PAUSE_S = 0.005


async def reads_of(sends: list[tuple[float, bytes]], max_bytes: int = 1000) -> list[tuple[float, bytes]]:
    """Send at some times, and return what is read, and when, until the end of the stream."""
    begun = trio.current_time()
    theirs, ours = trio.testing.memory_stream_pair()
    found = []

    async def send() -> None:
        for at_s, data in sends:
            await trio.sleep_until(begun + at_s)
            await theirs.send_all(data)
        await theirs.aclose()

    stream = CoalescingStream(ours, PAUSE_S)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        while data := await stream.receive_some(max_bytes):
            found.append((round(trio.current_time() - begun, 6), data))
    return found


async def test_what_comes_seldom_is_read_at_once(autojump_clock: trio.testing.MockClock) -> None:
    sends = [(0.02 * number, b"x") for number in range(1, 6)]
    assert await reads_of(sends) == sends


async def test_what_comes_often_is_read_together(autojump_clock: trio.testing.MockClock) -> None:
    sends = [(round(0.001 * number, 3), b"%d" % (number % 10)) for number in range(100)]
    found = await reads_of(sends)
    assert b"".join(data for _, data in found) == b"".join(data for _, data in sends)
    assert len(found) < 30
    sent_at = [at_s for at_s, _ in sends]
    read = 0
    for at_s, data in found:
        assert at_s - sent_at[read] <= PAUSE_S + 1e-6
        read += len(data)


async def test_where_there_is_much_it_does_not_rest(autojump_clock: trio.testing.MockClock) -> None:
    found = await reads_of([(0.0, b"x" * 5000)])
    assert found == [(0.0, b"x" * 1000)] * 5


async def test_a_rest_that_is_cancelled_loses_nothing(autojump_clock: trio.testing.MockClock) -> None:
    theirs, ours = trio.testing.memory_stream_pair()
    stream = CoalescingStream(ours, PAUSE_S)
    for byte in (b"a", b"b"):
        await theirs.send_all(byte)
        assert await stream.receive_some(1000) == byte
    await theirs.send_all(b"c")
    with trio.move_on_after(PAUSE_S / 2) as scope:
        await stream.receive_some(1000)
    assert scope.cancelled_caught
    assert await stream.receive_some(1000) == b"c"
    await theirs.aclose()
    assert await stream.receive_some(1000) == b""
