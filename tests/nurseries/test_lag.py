from __future__ import annotations

import time

import trio

from harvest.nurseries.lag import STALL_FROM_S, LagSensor


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


async def test_a_stall_of_the_tasks_moves_the_watched_deadlines_on_by_its_length():
    clock = Clock()
    sensor = LagSensor(clock)
    watched, other = (trio.CancelScope(deadline=10) for _ in range(2))
    sensor.watch(watched)
    sensor.after_io_wait(0)
    clock.now += 0.75
    sensor.before_io_wait(1)
    assert (watched.deadline, other.deadline) == (10.75, 10)
    assert (sensor.total_s, sensor.longest_s) == (0.75, 0.75)


async def test_a_process_that_slept_longer_than_it_asked_for_has_stalled_by_the_difference():
    clock = Clock()
    sensor = LagSensor(clock)
    watched = trio.CancelScope(deadline=10)
    sensor.watch(watched)
    sensor.before_io_wait(2)
    clock.now += 5
    sensor.after_io_wait(2)
    assert watched.deadline == 13


async def test_what_a_busy_loop_has_anyway_moves_nothing():
    clock = Clock()
    sensor = LagSensor(clock)
    watched = trio.CancelScope(deadline=10)
    sensor.watch(watched)
    sensor.after_io_wait(0)
    clock.now += STALL_FROM_S * 0.9
    sensor.before_io_wait(1)
    clock.now += 0.5
    sensor.after_io_wait(1)
    assert watched.deadline == 10


async def test_an_unwatched_scope_is_left_alone():
    clock = Clock()
    sensor = LagSensor(clock)
    scope = trio.CancelScope(deadline=10)
    sensor.watch(scope)
    sensor.unwatch(scope)
    sensor.after_io_wait(0)
    clock.now += 9
    sensor.before_io_wait(1)
    assert scope.deadline == 10


async def _receives_after_a_stall(instrument: LagSensor | None) -> bool:
    """Block the loop past a watchdog's deadline while a message waits; tell whether it was received."""
    send, receive = trio.open_memory_channel[str](1)
    received = False
    async with trio.open_nursery() as nursery:

        async def stall() -> None:
            await trio.sleep(0.01)
            send.send_nowait("data that was there all the time")
            time.sleep(0.3)  # noqa: ASYNC251 - the stall itself

        nursery.start_soon(stall)
        with trio.move_on_after(0.2) as scope:
            if instrument is not None:
                instrument.watch(scope)
            await receive.receive()
            await trio.lowlevel.checkpoint()
            received = True
    return received


async def test_the_sensor_in_a_real_loop_saves_a_receiver_whose_data_was_waiting():
    assert not await _receives_after_a_stall(None)
    sensor = LagSensor()
    trio.lowlevel.add_instrument(sensor)
    try:
        assert await _receives_after_a_stall(sensor)
    finally:
        trio.lowlevel.remove_instrument(sensor)
    assert sensor.longest_s >= 0.25
