"""A match: every side against the same blast, in turn, round after round."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from bench.peers.side import LIMIT_S, Result

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

ROOT = Path(__file__).resolve().parents[2]


@attrs.frozen
class Side:
    """One that takes part: its module, and how many connections it makes in all."""

    name: str
    module: str
    connections: int = 1
    arguments: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    environ: dict[str, str] = attrs.Factory(dict)


SIDES = {
    side.name: side
    for side in (
        Side("harvest", "side_harvest", connections=2),
        Side("cryptofeed", "side_cryptofeed", needs=("cryptofeed",)),
        Side(
            "cryptofeed to Parquet",
            "side_cryptofeed",
            arguments=("--parquet",),
            needs=("cryptofeed", "pandas"),
        ),
        Side("asyncio recorder", "side_asyncio", needs=("websockets", "pandas")),
        Side("picows + uvloop", "side_picows", needs=("picows", "uvloop")),
    )
}


#: What a side may take of memory, its files in the system's cache among it.
WARMED_BYTES = 2 * 2**30
_PAGE_BYTES = 4096


def warm_memory() -> None:
    """Touch memory, and give it back, so that the side that takes it next is not the first to.

    A virtual machine gets memory from its host when it first touches it, and gives back what it has not used for a while: writing
    to such memory takes ten times as long, a file's pages among it. A process of its own does it, for its children would be
    said to have taken as much.
    """
    touch = f"import numpy; numpy.empty({WARMED_BYTES}, numpy.uint8)[::{_PAGE_BYTES}] = 1"
    subprocess.run([sys.executable, "-c", touch], check=True)


class SideError(Exception):
    """A side that did not do what it was asked."""


@attrs.frozen
class Match:
    """What is played: a mix of messages, how many, over TLS or not."""

    mix: str
    messages: int
    is_tls: bool = False

    @property
    def name(self) -> str:
        """Name the match in a table."""
        return f"{self.mix} over TLS" if self.is_tls else self.mix


def play(match: Match, side: Side, *, cores: tuple[int, int] | None, certificate: Path | None) -> Result:
    """Let one side play once.

    Raises:
        SideError: it failed, or has not stored what it was sent.
    """
    environ = dict(os.environ) | side.environ | {"PYTHONPATH": str(ROOT)}
    if certificate is not None:
        environ |= {"SSL_CERT_FILE": str(certificate), "REQUESTS_CA_BUNDLE": str(certificate)}
    with (
        tempfile.TemporaryDirectory(prefix="harvest-bench-") as directory,
        blast(
            match.mix,
            match.messages,
            connections=side.connections,
            core=None if cores is None else cores[0],
            certificate=certificate,
        ) as port,
    ):
        command = [sys.executable, "-m", f"bench.peers.{side.module}", *side.arguments]
        command += ["--mix", match.mix, "--messages", str(match.messages), "--port", str(port)]
        command += ["--directory", f"{directory}/data", *(["--tls"] if match.is_tls else [])]
        command += [] if cores is None else ["--core", str(cores[1])]
        warm_memory()
        done = subprocess.run(
            command,
            env=environ,
            cwd=directory,
            capture_output=True,
            text=True,
            timeout=LIMIT_S + 60,
            check=False,
        )
    if done.returncode or not done.stdout.strip():
        raise SideError(f"{side.name}, {match.name}: exit {done.returncode}\n{done.stderr[-2000:]}")
    result = Result(**json.loads(done.stdout.strip().splitlines()[-1]))
    if result.stored != match.messages:
        raise SideError(
            f"{side.name}, {match.name}: was sent {match.messages:,}, has stored {result.stored:,}"
        )
    return attrs.evolve(result, name=side.name)


@contextmanager
def blast(
    mix: str,
    messages: int,
    *,
    connections: int,
    core: int | None = None,
    certificate: Path | None = None,
    rate: float | None = None,
) -> Iterator[int]:
    """Run the blast server in a process of its own, over TLS with a ``certificate``; gives its port."""
    command = [sys.executable, "-m", "bench.peers.blast", "--mix", mix, "--messages", str(messages)]
    command += ["--connections", str(connections)]
    command += [] if core is None else ["--core", str(core)]
    command += [] if certificate is None else ["--certificate", str(certificate.with_name("server.pem"))]
    command += [] if rate is None else ["--rate", str(rate)]
    process = subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    try:
        assert process.stdout is not None
        yield int(process.stdout.readline())
    finally:
        process.kill()
        process.communicate()


def rounds(
    match: Match,
    sides: Iterable[Side],
    count: int,
    *,
    cores: tuple[int, int] | None,
    certificate: Path | None,
) -> dict[str, list[Result]]:
    """Play ``count`` rounds, the sides in turn; returns the results by side."""
    results: dict[str, list[Result]] = {}
    for _ in range(count):
        for side in sides:
            results.setdefault(side.name, []).append(play(match, side, cores=cores, certificate=certificate))
    return results
