"""Carries out the faults of a script, each at its time from the first acknowledged subscription on."""

from __future__ import annotations

import random
import sys
import time
from typing import TYPE_CHECKING

import trio

from harvest.simulator.fault_script import load_fault_file, parse_fault
from harvest.simulator.tampering import TAMPERING

if TYPE_CHECKING:
    from collections.abc import Callable

    from harvest.simulator.config import SimulatorConfig
    from harvest.simulator.connection import Connection
    from harvest.simulator.fault import Fault
    from harvest.simulator.state import VenueState

_CLOSE_CODE = 1001
_NOTICE_S = 5.0


def read_faults(config: SimulatorConfig) -> list[tuple[Fault, random.Random]]:
    """Read all faults of a configuration, each with its own seeded dice.

    Raises:
        FaultScriptError: A script cannot be understood.
        SimulatorError: The fault file cannot be read.
    """
    faults = [parse_fault(script) for script in config.faults]
    seed = config.seed
    if config.fault_file is not None:
        more, file_seed = load_fault_file(config.fault_file)
        faults += more
        seed = config.seed if file_seed is None else file_seed
    return [(fault, random.Random(f"{seed}/{number}/{fault.script}")) for number, fault in enumerate(faults)]


async def direct(
    state: VenueState,
    faults: list[tuple[Fault, random.Random]],
    *,
    set_pace: Callable[[float], None],
    now_ms: Callable[[], int],
) -> None:
    """Wait for the first acknowledged subscription, then carry out every fault; ends after the last."""
    await state.first_ack.wait()
    start = trio.current_time()
    async with trio.open_nursery() as nursery:
        for fault, dice in faults:
            nursery.start_soon(_Performer(state, fault, set_pace, now_ms).perform, start, dice)


class _Performer:
    """Carries out one fault, as often as it says."""

    def __init__(
        self,
        state: VenueState,
        fault: Fault,
        set_pace: Callable[[float], None],
        now_ms: Callable[[], int],
    ) -> None:
        self._state = state
        self._fault = fault
        self._set_pace = set_pace
        self._now_ms = now_ms

    async def perform(self, start: float, dice: random.Random) -> None:
        """Carry it out at its time, and again as long as it repeats."""
        at = start + self._fault.at.draw(dice)
        async with trio.open_nursery() as nursery:
            while True:
                await trio.sleep_until(at)
                self._state.applied_faults.append((self._fault.script, time.time_ns()))
                print(f"[FAULT] {self._fault.script}", file=sys.stderr, flush=True)
                nursery.start_soon(self._strike)
                if self._fault.every is None:
                    return
                at += self._fault.every.draw(dice)

    async def _strike(self) -> None:
        fault, state = self._fault, self._state
        if fault.action in TAMPERING:
            for connection in self._struck():
                connection.tampering.add(fault.action, fault.target, fault.count)
            return
        match fault.action:
            case "stall":
                for connection in self._struck():
                    connection.silenced.append(fault.target)
                if fault.for_s is not None:
                    now = trio.current_time()
                    state.standing.silenced.append((fault.target, now, now + fault.for_s))
            case "forget":
                for connection in self._struck():
                    connection.forget(fault.target)
            case "cut":
                self._cut(self._struck(), fault.code or _CLOSE_CODE, hard=fault.hard)
            case "shutdown":
                await self._shutdown()
            case "burst":
                await self._burst()
            case _:
                self._begin_standing()
        state.mark_changed()
        if fault.for_s is not None:
            await trio.sleep(fault.for_s)
            state.mark_changed()

    def _struck(self) -> list[Connection]:
        carriers = [one for one in self._state.connections.values() if one.carries(self._fault.target)]
        return carriers[:1] if self._fault.on_one else carriers

    def _cut(self, connections: list[Connection], code: int, *, hard: bool = False) -> None:
        for connection in connections:
            if hard:
                connection.reset()
            else:
                connection.close(code, "cut by the fault script")

    async def _shutdown(self) -> None:
        struck = self._struck()
        for connection in struck:
            connection.notify_shutdown(self._now_ms())
        await trio.sleep(_NOTICE_S if self._fault.notice_s is None else self._fault.notice_s)
        self._cut(struck, _CLOSE_CODE)

    async def _burst(self) -> None:
        times, for_s = self._fault.times or 1.0, self._fault.for_s or 0.0
        self._set_pace(times)
        await trio.sleep(for_s)
        # At half speed the lead is used up after twice its length; ids then go on where the clock is.
        self._set_pace(0.5)
        await trio.sleep(2.0 * (times - 1.0) * for_s)
        self._set_pace(1.0)

    def _begin_standing(self) -> None:
        fault, standing = self._fault, self._state.standing
        until = trio.current_time() + fault.for_s if fault.for_s is not None else float("inf")
        match fault.action:
            case "mute route":
                standing.muted_routes[fault.route or ""] = until
            case "delist":
                standing.delisted.add(fault.target.symbol or "")
            case "halt":
                standing.halted_until[fault.target.symbol or ""] = until
            case "no-pong":
                standing.no_pong_until = until
            case "reject connections":
                standing.reject_until, standing.reject_hard = until, fault.hard
            case "fragment":
                standing.fragment_until = until
            case "pause":
                standing.gate.close(until)
            case "ban":
                standing.banned_until = until
            case "throttle":
                standing.throttled_until = until
            case "rest down":
                standing.rest_down_until = until
            case "slow rest":
                standing.slow_rest_until, standing.slow_rest_s = until, fault.by_s or 0.0
