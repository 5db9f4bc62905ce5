"""What every side tells when it is done, and how it is run: in a process of its own, on a core of its own."""

from __future__ import annotations

import argparse
import json
import os
import resource
import time
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from collections.abc import Callable

#: No side may take longer, in seconds.
LIMIT_S = 120.0


@attrs.frozen
class Task:
    """What a side has to do: receive ``messages``, of which the first of each stream come before the clock runs."""

    mix: str
    messages: int
    ws_url: str
    rest_url: str
    directory: Path
    is_tls: bool


@attrs.define
class Clock:
    """The time from the first message of the blast to the last, and to the last row in a file."""

    begun: float | None = None
    received: float | None = None

    def start(self) -> None:
        """Call it at each look that finds more than what came ahead; the first counts."""
        if self.begun is None:
            self.begun = time.perf_counter()

    def stop(self) -> None:
        """Call it when all is received."""
        self.received = time.perf_counter()


@attrs.frozen
class Result:
    """How one side did. ``stored`` are the messages that it can show; ``seconds`` run to its last write."""

    name: str
    messages: int
    stored: int
    receive_seconds: float
    seconds: float
    cpu_seconds: float
    rss_mib: float
    facts: dict[str, float] = attrs.Factory(dict)

    @property
    def thousands_a_second(self) -> float:
        """Messages from the socket to the sink, in thousands a second."""
        return self.messages / self.seconds / 1000


def tell(
    name: str,
    task: Task,
    clock: Clock,
    stored: int,
    facts: dict[str, float] | None = None,
    written: float | None = None,
) -> None:
    """Print the result of this process, as a line of JSON. What is to be written was so at ``written``, or else is now."""
    now = time.perf_counter() if written is None else written
    assert clock.begun is not None and clock.received is not None, "the blast never came"
    usage = resource.getrusage(resource.RUSAGE_SELF)
    result = Result(
        name,
        task.messages,
        stored,
        clock.received - clock.begun,
        now - clock.begun,
        usage.ru_utime + usage.ru_stime,
        usage.ru_maxrss / 1024,
        facts or {},
    )
    print(json.dumps(attrs.asdict(result)), flush=True)


def main(run: Callable[[Task], None]) -> None:
    """Read the task from the command line, take the core, and do it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--mix", required=True)
    parser.add_argument("--messages", type=int, required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--directory", type=Path, required=True)
    parser.add_argument("--core", type=int)
    parser.add_argument("--tls", action="store_true")
    arguments = parser.parse_args()
    if arguments.core is not None:
        os.sched_setaffinity(0, {arguments.core})
    ws, http = ("wss", "https") if arguments.tls else ("ws", "http")
    # The certificate is made out to this name.
    host = "localhost" if arguments.tls else "127.0.0.1"
    run(
        Task(
            arguments.mix,
            arguments.messages,
            f"{ws}://{host}:{arguments.port}",
            f"{http}://{host}:{arguments.port}",
            arguments.directory,
            arguments.tls,
        )
    )
