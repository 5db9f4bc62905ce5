"""The program killed at random, again and again, while a simulated venue sends; what was sent must be there, and once.

The venue lives three days ago, so that its dates are over and are compacted at once: a kill may strike the receiving, a flush,
the recovery of what the kill before has left, or a compaction. What must be there is asked of the simulator's own log of what it has
sent, and of nothing that harvest says.
"""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from collections import Counter, defaultdict
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import attrs
import pyarrow.parquet as pq

from harvest.storage.layout import decode_symbol, parse_file_name
from tests.program import ROOT, command, environment, harvest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SYMBOLS = ("BTCUSDT", "ETHUSDT", "SOLUSDT", "牛来USDT")
#: Multiplies the venue's trades.
RATE = 10.0
#: What a killed process may have had on its way.
GRACE_NS = 250 * 10**6
#: No process has a connection sooner after its start.
CONNECTS_NS = 200 * 10**6
BEHIND_NS = 3 * 86_400 * 10**9
#: From the start of a process to its end; a start takes about a second.
SHORTEST_S, LONGEST_S = 0.3, 4.0
#: A compaction, which has everything to do anew, lives up to so many times as long.
COMPACTING = 4
START_S = 120.0
SETTINGS = {
    "PARQUET_ROTATE_SEC": "1",
    "EXTREME_ROTATE_SEC": "0.9",
    "HARVEST_JOURNAL_SEGMENT_SEC": "1",
    "HARVEST_CHECKPOINT_SEC": "1",
}
STREAMS = {"prices": ("aggTrade", "trade_id"), "depth": ("depth@100ms", "last_update_id")}


@attrs.frozen
class Kill:
    """One life of the program: when it began, and when it was killed (ns, UTC); ``doing`` says in the middle of what."""

    number: int
    begun_ns: int
    killed_ns: int
    doing: str

    @property
    def receives(self) -> bool:
        """Whether it was a run, rather than a recovery or a compaction by hand."""
        return self.doing.startswith(("starting", "recording"))


@attrs.define
class Account:
    """What was sent and what is stored, of trades and of depth together."""

    kills: int = 0
    must: int = 0
    stored: int = 0
    lost: dict[str, list[int]] = attrs.Factory(dict)
    doubled: dict[str, list[int]] = attrs.Factory(dict)
    unreadable: list[str] = attrs.Factory(list)
    compacted_files: int = 0
    verify_exit: int = 0
    verify_damage: list[Any] = attrs.Factory(list)
    doing: Counter[str] = attrs.Factory(Counter)

    @property
    def is_kept(self) -> bool:
        """Whether all that was promised is so."""
        return not (self.lost or self.doubled or self.unreadable or self.verify_exit > 1) and self.must > 0

    def to_json(self) -> dict[str, Any]:
        """Return it for machines."""
        return attrs.asdict(self) | {"kept": self.is_kept}

    def __str__(self) -> str:
        """Say it to people."""
        lost, doubled = (sum(map(len, ids.values())) for ids in (self.lost, self.doubled))
        lives = ", ".join(f"{count:,} {doing}" for doing, count in sorted(self.doing.items()))
        lines = [
            f"{self.kills:,} kills ({lives}): {self.must:,} messages were sent more than 250 ms before one, {lost:,} of them are "
            f"lost; {self.stored:,} are stored, {doubled:,} of them twice; {self.compacted_files} files are compacted, "
            f"{len(self.unreadable)} unreadable; harvest verify says {self.verify_exit}",
            *(f"lost of {stream}: {ids[:20]}" for stream, ids in self.lost.items()),
            *(f"twice in {stream}: {ids[:20]}" for stream, ids in self.doubled.items()),
            *self.unreadable,
            *map(str, self.verify_damage[:20]),
        ]
        return "\n".join(lines)


def run_kills(count: int, directory: Path, report: Path, *, seed: int) -> Account:
    """Kill until ``report`` has ``count`` lines, then recover, and account for everything."""
    directory.mkdir(parents=True, exist_ok=True)
    kills = read_report(report)
    began = time.monotonic()
    with simulated_venue(directory) as (urls, sent):
        for number in range(len(kills), count):
            kill = _live_and_die(number, directory, urls, sent, random.Random(f"{seed} {number}"))
            kills.append(kill)
            with report.open("a", encoding="utf-8") as file:
                file.write(json.dumps(attrs.asdict(kill)) + "\n")
            if number % 10 == 9:
                print(f"{number + 1} kills, {time.monotonic() - began:.0f}s", flush=True)
    _recover(directory)
    found = account(directory, kills)
    done = harvest("verify", "data", "--json", cwd=directory, timeout_s=600)
    found.verify_exit = done.returncode
    if done.returncode > 1:
        found.verify_damage = json.loads(done.stdout)["damage"]
    return found


def read_report(report: Path) -> list[Kill]:
    """Read the kills of earlier calls; none if there is no report."""
    if not report.exists():
        return []
    return [Kill(**json.loads(line)) for line in report.read_text(encoding="utf-8").splitlines()]


@contextmanager
def simulated_venue(directory: Path) -> Iterator[tuple[dict[str, str], Path]]:
    """Run the venue in a process of its own, with a log of what it sends; gives the settings that lead to it, and the log."""
    now_ns = time.time_ns()
    sent = directory / f"sent-{now_ns}.jsonl"
    arguments = ["--symbols", ",".join(SYMBOLS), "--rate", str(RATE), "--port", "0", "--exit-with-parent"]
    # A market is what its time makes it: that of a later call goes on where this one's would be then.
    arguments += ["--sent-log", str(sent), "--start-ns", str(now_ns - BEHIND_NS)]
    with subprocess.Popen(
        [sys.executable, "-m", "harvest.simulator", *arguments],
        cwd=ROOT,
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as simulator:
        assert simulator.stdout is not None
        try:
            ends = json.loads(simulator.stdout.readline())
            yield {"HARVEST_WS_URL": ends["ws"], "HARVEST_REST_URL": ends["rest"]}, sent
        finally:
            simulator.terminate()


def _live_and_die(
    number: int, directory: Path, urls: dict[str, str], sent: Path, dice: random.Random
) -> Kill:
    """Start the program, and kill it: soon, or once it receives, or while it recovers or compacts by hand."""
    kind = dice.choices(("starting", "recording", "recovering", "compacting"), (2, 6, 1, 1))[0]
    lives_s = dice.uniform(SHORTEST_S, LONGEST_S * (COMPACTING if kind == "compacting" else 1))
    log_path = directory / "run.log"
    arguments = {"recovering": ("recover", "data"), "compacting": ("compact", "data")}.get(
        kind, ("run", "--symbols", ",".join(SYMBOLS), "--output-dir", "data", "--no-live")
    )
    if kind == "compacting":
        _recover(directory)
    begun_ns, size = time.time_ns(), sent.stat().st_size if sent.exists() else 0
    (directory / "data").mkdir(exist_ok=True)
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            command(*arguments), cwd=directory, env=environment(**SETTINGS, **urls), stdout=log, stderr=log
        )
        try:
            deadline = time.monotonic() + START_S
            while kind == "recording" and not (sent.exists() and sent.stat().st_size > size):
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"harvest run does not receive: {log_path.read_text()[-2000:]}")
                time.sleep(0.02)
            if arguments[0] == "run":
                time.sleep(lives_s)
            else:
                # These end by themselves.
                with suppress(subprocess.TimeoutExpired):
                    process.wait(lives_s)
        finally:
            process.send_signal(signal.SIGKILL)
            killed_ns = time.time_ns()
            code = process.wait()
    if code not in (-signal.SIGKILL, 0) or (code == 0 and arguments[0] == "run"):
        raise RuntimeError(f"harvest {arguments[0]} has ended with {code}: {log_path.read_text()[-2000:]}")
    if kind == "recording" and "[RECOVER]" in log_path.read_text(encoding="utf-8"):
        kind = "recording and recovering"
    return Kill(number, begun_ns, killed_ns, kind if code else f"{kind}, and ended before")


def _recover(directory: Path) -> None:
    recovered = harvest("recover", "data", cwd=directory, timeout_s=600)
    if recovered.returncode:
        raise RuntimeError(f"harvest recover: {recovered.stdout}{recovered.stderr}")


def account(directory: Path, kills: list[Kill]) -> Account:
    """Hold what is stored against what was sent."""
    found = Account(kills=len(kills), doing=Counter(kill.doing for kill in kills))
    must: dict[str, set[int]] = defaultdict(set)
    for sent in sorted(directory.glob("sent-*.jsonl")):
        add_sent_before_kills(sent, kills, must)
    stored = _stored(directory / "data", found)
    for stream, ids in must.items():
        counts = stored.get(stream, Counter())
        found.must += len(ids)
        if lost := sorted(ids - set(counts)):
            found.lost[stream] = lost
    for stream, counts in stored.items():
        found.stored += counts.total()
        if doubled := sorted(one for one, count in counts.items() if count > 1):
            found.doubled[stream] = doubled
    return found


def add_sent_before_kills(sent: Path, kills: list[Kill], must: dict[str, set[int]]) -> None:
    """Add the ids, by stream, that one venue has sent a process more than ``GRACE_NS`` before its end."""
    # A connection is of the process that lived when it was first used. The venue learns of a death a little later: what it sends
    # first then, to one who was killed while connecting, is none of the next process's, which cannot be there so soon.
    receivers = [kill for kill in kills if kill.receives]
    killed_ns: dict[int, int] = {}
    for line in sent.read_text(encoding="utf-8").splitlines():
        one = json.loads(line)
        at_ns, connection = one["t"], one["connection"]
        if connection not in killed_ns:
            lived = (
                kill.killed_ns for kill in receivers if kill.begun_ns + CONNECTS_NS <= at_ns <= kill.killed_ns
            )
            killed_ns[connection] = next(lived, 0)
        if one["id"] is not None and at_ns < killed_ns[connection] - GRACE_NS:
            must[one["stream"]].add(one["id"])


def _stored(data: Path, found: Account) -> dict[str, Counter[int]]:
    stored: dict[str, Counter[int]] = defaultdict(Counter)
    for path in sorted(data.glob("*/venue=*/symbol=*/date=*/*.parquet")):
        if path.name.startswith("."):
            continue
        kind, symbol = path.parts[-5], decode_symbol(path.parts[-3].removeprefix("symbol="))
        name = parse_file_name(path.name)
        found.compacted_files += name is not None and name.generation > 0
        try:
            file = pq.ParquetFile(path)
            if kind not in STREAMS:
                file.read()
                continue
            suffix, column = STREAMS[kind]
            table = file.read([column, "source"])
        except Exception as error:
            found.unreadable.append(f"{path}: {error}")
            continue
        of_stream = stored[f"{symbol.lower()}@{suffix}"]
        rows = zip(table[column].to_pylist(), table["source"].to_pylist(), strict=True)
        of_stream.update(one for one, source in rows if kind == "prices" or source == "ws")
    return stored
