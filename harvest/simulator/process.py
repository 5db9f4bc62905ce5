"""The simulator in its own process, which ends with its parent's."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections import deque
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

import msgspec
import trio

from harvest.errors import SimulatorError
from harvest.simulator.arguments import to_arguments
from harvest.simulator.config import Endpoints

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from harvest.simulator.config import SimulatorConfig

_START_S: Final = 60.0
_TERMINATE_S: Final = 3.0
_DYING_S: Final = 0.02
_TAIL_LINES: Final = 20


class _Announcement(msgspec.Struct):
    """What the child prints once it listens."""

    venue: str
    ws: str
    rest: str


class _Relay:
    """Hands the child's stderr on, line by line, in a thread of its own, and keeps its last lines."""

    def __init__(self, source: int, hand_on: Callable[[str], None]) -> None:
        self._source = source
        self._hand_on = hand_on
        self._tail: deque[str] = deque(maxlen=_TAIL_LINES)
        self._thread = threading.Thread(target=self._run, name="simulator-stderr", daemon=True)
        self._thread.start()

    def tail(self) -> str:
        """Give the last lines, once the child has closed its stderr or a second has passed."""
        self._thread.join(1.0)
        return "\n".join(self._tail)

    def _run(self) -> None:
        with os.fdopen(self._source, encoding="utf-8", errors="replace") as lines:
            for line in lines:
                self._tail.append(line.rstrip("\n"))
                self._hand_on(line)


def _to_stderr(line: str) -> None:
    sys.stderr.write(line)
    sys.stderr.flush()


@asynccontextmanager
async def simulator_process(
    config: SimulatorConfig, *, on_stderr: Callable[[str], None] = _to_stderr
) -> AsyncIterator[Endpoints]:
    """Run a simulator in a child process, and give its endpoints once it listens.

    The child ends with this process, however that ends: it holds the other end of the child's stdin.
    ``on_stderr`` gets each line of the child's stderr, in another thread. On leaving, also by cancellation,
    the child is terminated, and killed three seconds later.

    Raises:
        SimulatorError: The child ended before it listened, or while it was in use; with its exit code and
            the last lines of its stderr.
    """
    read_end, write_end = os.pipe()
    try:
        child = await trio.lowlevel.open_process(
            [sys.executable, "-m", "harvest.simulator", *to_arguments(config), "--exit-with-parent"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=write_end,
            # A Ctrl-C at the terminal is the parent's to judge: it may still be draining.
            start_new_session=os.name == "posix",
        )
    except BaseException:
        os.close(read_end)
        raise
    finally:
        os.close(write_end)
    relay = _Relay(read_end, on_stderr)
    try:
        yield await _endpoints(child, relay)
        with trio.move_on_after(_DYING_S):
            # A child whose sockets are closed already may not have been reaped yet.
            await child.wait()
        if child.returncode is not None:
            raise SimulatorError(
                f"the simulator's process ended with exit code {child.returncode} while in use:\n{relay.tail()}"
            )
    finally:
        await _end(child)


async def _endpoints(child: trio.Process, relay: _Relay) -> Endpoints:
    assert child.stdout is not None
    line = b""
    with trio.move_on_after(_START_S):
        while not line.endswith(b"\n") and (more := await child.stdout.receive_some()):
            line += more
    try:
        said = msgspec.json.decode(line, type=_Announcement)
    except msgspec.DecodeError:
        with trio.move_on_after(_TERMINATE_S):
            await child.wait()
        code = child.returncode
        ended = f"ended with exit code {code}" if code is not None else f"said nothing for {_START_S:g} s"
        raise SimulatorError(f"the simulator's process {ended} before it listened:\n{relay.tail()}") from None
    return Endpoints(said.venue, said.ws, said.rest, child.pid)  # type: ignore[arg-type]


async def _end(child: trio.Process) -> None:
    with trio.CancelScope(shield=True):
        if child.stdin is not None:
            await trio.aclose_forcefully(child.stdin)
        if child.stdout is not None:
            await trio.aclose_forcefully(child.stdout)
        if child.poll() is None:
            child.terminate()
        with trio.move_on_after(_TERMINATE_S):
            await child.wait()
        if child.returncode is None:
            child.kill()
            await child.wait()
