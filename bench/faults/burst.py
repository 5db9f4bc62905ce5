"""A burst: the program with the settings that users have, and ten times what the recordings bring, for minutes.

Nothing may be let go, all that was sent must be stored, and the memory of the process must stay within its budget.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import attrs
import pyarrow.compute as pc
import pyarrow.dataset as ds

from bench.peers.load import SYMBOL
from tests.program import ROOT, command, environment

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Messages a second: ten times the recordings' rate, and what a crash of the market brings for seconds.
RATE, PEAK_RATE, PEAK_S = 9_600.0, 25_000.0, 10.0
#: The budget for what is buffered, and an interpreter with its libraries.
BUDGET_MIB, INTERPRETER_MIB = 512, 100
#: What the machine may be behind with at the end of the sending.
BEHIND_S = 120.0


@attrs.frozen
class Burst:
    """What came of one burst. ``stood_s`` is the longest time that the sender had to wait for the program to take more."""

    rate: float
    seconds: float
    took_s: float
    stood_s: float
    sent: dict[str, int]
    stored: dict[str, int]
    overload: list[str]
    rss_mib: float
    exit_code: int
    #: Streams whose connection the program has given up.
    broken: list[str]

    @property
    def is_kept(self) -> bool:
        """Whether nothing was dropped, all is stored, and the memory is within its budget."""
        within = self.rss_mib <= BUDGET_MIB + INTERPRETER_MIB
        return (
            self.sent == self.stored
            and not self.overload
            and within
            and not self.exit_code
            and not self.broken
        )

    def to_json(self) -> dict[str, Any]:
        """Return it for machines."""
        return attrs.asdict(self) | {"kept": self.is_kept}

    def __str__(self) -> str:
        """Say it to people."""
        sent, stored = sum(self.sent.values()), sum(self.stored.values())
        lines = [
            f"{self.rate:,.0f} messages/s for {self.seconds:g}s (sent in {self.took_s:.1f}s, the sender stood {self.stood_s:.2f}s at "
            f"most): {sent:,} sent, {stored:,} stored; peak RSS {self.rss_mib:.0f} MiB of "
            f"{BUDGET_MIB} + {INTERPRETER_MIB}; exit {self.exit_code}",
            *self.overload,
            *(
                f"the connection of the {stream} broke: the program had fallen too far behind"
                for stream in self.broken
            ),
        ]
        return "\n".join(lines)


def run_burst(rate: float, seconds: float) -> Burst:
    """Record a venue that sends ``rate`` messages a second, to its end."""
    with (
        tempfile.TemporaryDirectory(prefix="harvest-burst-") as name,
        flooding(rate, seconds) as (port, flood),
    ):
        directory = Path(name)
        log_path = directory / "run.log"
        with log_path.open("wb") as log:
            run = start_run(port, directory, log)
            try:
                assert flood.stdout is not None
                said = [json.loads(flood.stdout.readline()) for _ in range(2)]
                sent = {one["stream"]: one["sent"] for one in said}
                wait_until_read(run, port)
            finally:
                rss_mib = peak_rss_mib(run.pid)
                run.send_signal(signal.SIGTERM)
                code = run.wait(BEHIND_S)
        lines = log_path.read_text(encoding="utf-8", errors="replace").splitlines()
        return Burst(
            rate,
            seconds,
            max(one["seconds"] for one in said),
            max(one["stood_s"] for one in said),
            sent,
            {
                "trades": count_received(directory / "data", "prices"),
                "diffs": count_received(directory / "data", "depth"),
            },
            [line for line in lines if "overload" in line.lower() or "let go" in line],
            rss_mib,
            code,
            [one["stream"] for one in said if one["broken"]],
        )


@contextmanager
def flooding(rate: float, seconds: float) -> Iterator[tuple[int, subprocess.Popen[str]]]:
    """Let a process send for so long; gives its port, and it: what it has sent is on its standard output then."""
    arguments = ["--rate", str(rate), "--seconds", str(seconds)]
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.faults.flood", *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert process.stdout is not None
        yield int(process.stdout.readline()), process
    finally:
        process.kill()
        process.communicate()


def start_run(
    port: int, directory: Path, log: IO[bytes], data: str | Path = "data", **settings: str
) -> subprocess.Popen[bytes]:
    """Start the program, which records into ``data`` what is sent at ``port``, and says what it does in ``log``."""
    urls = {"HARVEST_WS_URL": f"ws://127.0.0.1:{port}", "HARVEST_REST_URL": f"http://127.0.0.1:{port}"}
    return subprocess.Popen(
        command("run", "--symbols", SYMBOL, "--output-dir", data, "--no-live"),
        cwd=directory,
        env=environment(**({"HARVEST_MIN_FREE_BYTES": "0"} | urls | settings)),
        stdout=log,
        stderr=log,
    )


def wait_until_read(run: subprocess.Popen[bytes], port: int) -> None:
    """Wait until nothing waits in the receive buffers of the connections to the venue."""
    deadline = time.monotonic() + BEHIND_S
    while run.poll() is None and _unread_bytes(port):
        if time.monotonic() > deadline:
            raise RuntimeError(f"harvest is still behind {BEHIND_S:g}s after the end of the burst")
        time.sleep(0.2)
    # What was read last is on its way through the loop.
    time.sleep(2)


def _unread_bytes(port: int) -> int:
    unread = 0
    for line in Path("/proc/net/tcp").read_text(encoding="ascii").splitlines()[1:]:
        fields = line.split()
        local, remote = (int(end.rpartition(":")[2], 16) for end in fields[1:3])
        waiting_to_go, waiting_to_be_read = (int(size, 16) for size in fields[4].split(":"))
        if remote == port:
            unread += waiting_to_be_read
        elif local == port and remote:
            unread += waiting_to_go
    return unread


def peak_rss_mib(pid: int) -> float:
    """Return the most memory that a process ever had."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
    return next(int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmHWM"))


def count_received(data: Path, kind: str) -> int:
    """Return how many rows of a kind, of all files below ``data / kind``, came over a stream."""
    if not (data / kind).exists():
        return 0
    sources = ds.dataset(data / kind, format="parquet", partitioning="hive").scanner(columns=["source"])
    return sum(
        pc.sum(pc.equal(batch["source"].cast("string"), "ws")).as_py() or 0 for batch in sources.to_batches()
    )
