"""How fast a dead run's records become rows again, beside a capture or alone: ``python -m bench.recovery [--mb 1000] [--quick]``.

A journal of real messages is left as by a run that died, nothing of it in files. Then the program is started as a user starts it: it
records a venue that sends at a pace, and recovers beside it. The clock runs from its start to when the journal of the dead run is gone,
and what was sent meanwhile must be stored. ``--by-hand`` times ``harvest recover`` without a capture.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import signal
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from bench.dead_journal import RUN, VENUE, Made, write_journal
from bench.faults.burst import count_received, flooding, start_run, wait_until_read
from bench.peers.load import SYMBOL
from harvest.pipeline.dead_runs import dead_runs
from tests.program import harvest

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Sequence

#: Messages a second of the capture beside: what the recordings bring.
RATE = 960.0
QUICK_MB = 150.0
#: The load is to go on for longer than the recovery: as if this were its speed.
SLOW_MB_S, SHORTEST_LOAD_S = 20.0, 15.0
LONGEST_S = 600.0
POLL_S = 0.05

_SAID = re.compile(r"([\d,]+) records \(.*? in ([\d.]+)s; ([\d,]+) rows of")


@attrs.frozen
class Outcome:
    """What one recovery took, and what the capture beside it has lost. ``said_s`` is without the start of the program."""

    mb: float
    symbols: int
    frames: int
    seconds: float
    said_s: float
    rows: int
    cpu_s: float
    rss_mib: float
    #: By stream; nothing without a capture.
    sent: dict[str, int] = attrs.Factory(dict)
    stored: dict[str, int] = attrs.Factory(dict)
    overload: Sequence[str] = ()
    #: Whether the load went on for as long as the recovery; how long the sender had to wait at most.
    was_beside: bool = True
    stood_s: float = 0.0

    @property
    def is_kept(self) -> bool:
        """Whether nothing was lost."""
        return self.sent == self.stored and not self.overload

    def to_json(self) -> dict[str, Any]:
        """Return it for machines."""
        return attrs.asdict(self) | {"mb_s": self.mb / self.said_s, "kept": self.is_kept}

    def __str__(self) -> str:
        """Say it to people."""
        lines = [
            f"{self.mb:,.0f} MB of {self.symbols} symbols, {self.frames:,} frames: {self.rows:,} rows in {self.said_s:.1f}s "
            f"({self.seconds:.1f}s with the start of the program): {self.mb / self.said_s:.1f} MB/s, 1 GB in "
            f"{1000 / self.mb * self.said_s:.0f}s; {self.cpu_s:.1f}s of processor time, peak RSS of a process {self.rss_mib:.0f} MiB"
        ]
        if self.sent:
            lines.append(
                f"beside it: {sum(self.sent.values()):,} messages sent, {sum(self.stored.values()):,} stored, the sender stood "
                f"{self.stood_s:.2f}s at most"
                + ("" if self.was_beside else "; the load ended before the recovery")
            )
        return "\n".join([*lines, *self.overload])


def by_hand(directory: Path, made: Made, mb: float, jobs: int) -> Outcome:
    """Let ``harvest recover`` have the machine alone."""
    before, began = _cpu_s(), time.monotonic()
    done = harvest("recover", "data", "--jobs", str(jobs), cwd=directory, timeout_s=LONGEST_S)
    seconds = time.monotonic() - began
    if done.returncode:
        raise RuntimeError(f"harvest recover: {done.stdout}{done.stderr}")
    said_s, rows = _said(done.stdout)
    return Outcome(mb, made.symbols, made.frames, seconds, said_s, rows, _cpu_s() - before, _rss_mib())


def beside_a_capture(directory: Path, made: Made, mb: float, rate: float) -> Outcome:
    """Let ``harvest run`` recover while it records ``rate`` messages a second."""
    load_s = max(mb / SLOW_MB_S, SHORTEST_LOAD_S)
    before = _cpu_s()
    with ExitStack() as stack:
        port, flood = stack.enter_context(flooding(rate, load_s))
        log_path = directory / "run.log"
        log = stack.enter_context(log_path.open("wb"))
        began = time.monotonic()
        run = start_run(port, directory, log)
        try:
            assert flood.stdout is not None
            _wait_until_recovered(directory, run, began)
            seconds, ended = time.monotonic() - began, time.time()
            said = [json.loads(flood.stdout.readline()) for _ in range(2)]
            was_beside = time.time() - ended > 1
            wait_until_read(run, port)
        finally:
            run.send_signal(signal.SIGTERM)
            code = run.wait(LONGEST_S)
    lines = log_path.read_text(encoding="utf-8", errors="replace").splitlines()
    if code:
        raise RuntimeError("\n".join(lines[-20:]))
    said_s, rows = _said("\n".join(lines))
    data = directory / "data"
    return Outcome(
        mb,
        made.symbols,
        made.frames,
        seconds,
        said_s,
        rows,
        _cpu_s() - before,
        _rss_mib(),
        {one["stream"]: one["sent"] for one in said},
        {
            stream: count_received(data / kind / f"venue={VENUE.name}", f"symbol={SYMBOL}")
            for stream, kind in (("trades", "prices"), ("diffs", "depth"))
        },
        [line for line in lines if "overload" in line.lower() or "let go" in line],
        was_beside,
        max(one["stood_s"] for one in said),
    )


def _wait_until_recovered(directory: Path, run: subprocess.Popen[bytes], began: float) -> None:
    while any(one.run == RUN for one in dead_runs(directory / "data")):
        if run.poll() is not None or time.monotonic() - began > LONGEST_S:
            raise RuntimeError((directory / "run.log").read_text(encoding="utf-8", errors="replace")[-2000:])
        time.sleep(POLL_S)


def _said(output: str) -> tuple[float, int]:
    found = _SAID.search(output)
    if found is None:
        raise RuntimeError(f"nothing was recovered: {output[-2000:]}")
    return float(found[2]), int(found[3].replace(",", ""))


def _cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _rss_mib() -> float:
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024


def main() -> None:
    """Measure, and print; the exit code is 1 if the capture lost something."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mb", type=float, default=1000.0, help="size of the journal, in 10^6 bytes")
    parser.add_argument("--quick", action="store_true", help=f"a journal of {QUICK_MB:.0f} MB")
    parser.add_argument("--copies", type=int, default=4, help="how many symbols stand for each recorded one")
    parser.add_argument("--block", type=int, default=10, help="frames of a received block, at least")
    parser.add_argument("--rate", type=float, default=RATE, help="messages a second of the capture beside")
    parser.add_argument("--by-hand", action="store_true", help="harvest recover, without a capture")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes, by hand")
    parser.add_argument("--json", type=Path, help="write the figures there")
    arguments = parser.parse_args()
    mb = QUICK_MB if arguments.quick else arguments.mb
    with tempfile.TemporaryDirectory(prefix="harvest-recovery-") as name:
        directory = Path(name)
        made = write_journal(
            directory / "data", round(mb * 1e6), copies=arguments.copies, block=arguments.block
        )
        mb = sum(run.size_bytes for run in dead_runs(directory / "data")) / 1e6
        if arguments.by_hand:
            outcome = by_hand(directory, made, mb, arguments.jobs)
        else:
            outcome = beside_a_capture(directory, made, mb, arguments.rate)
    print(outcome)
    if arguments.json:
        arguments.json.write_text(json.dumps(outcome.to_json(), indent=2), encoding="utf-8")
    raise SystemExit(0 if outcome.is_kept else 1)


if __name__ == "__main__":
    main()
