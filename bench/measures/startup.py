"""How long until harvest answers, and until a run has its first row."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from bench.measures.found import Found
from bench.peers.match import ROOT

if TYPE_CHECKING:
    from collections.abc import Sequence

LIMIT_S = 60


def measure_startup(*, quick: bool) -> Found:
    """Start the program as a user does, again and again; the first row is one that stands in the journal's pipeline."""
    figures: dict[str, float] = {}
    count = 3 if quick else 7
    with tempfile.TemporaryDirectory(prefix="harvest-bench-") as directory:
        for name, arguments in (
            ("harvest --version", ["--version"]),
            ("harvest check-config", ["check-config"]),
        ):
            figures[f"{name}: s"] = median(_until_it_ends(arguments, directory) for _ in range(count))
    figures["harvest run --simulate, to the first trade: s"] = median(
        _until_it_receives() for _ in range(count)
    )
    return Found("start-up", figures)


def _command(arguments: Sequence[str]) -> list[str]:
    return [sys.executable, "-m", "harvest", *arguments]


def _environ() -> dict[str, str]:
    return dict(os.environ) | {"PYTHONPATH": str(ROOT), "NO_COLOR": "1", "SYMBOLS": "BTCUSDT"}


def _until_it_ends(arguments: Sequence[str], directory: str) -> float:
    begun = time.perf_counter()
    subprocess.run(_command(arguments), cwd=directory, env=_environ(), capture_output=True, check=True)
    return time.perf_counter() - begun


def _until_it_receives() -> float:
    with tempfile.TemporaryDirectory(prefix="harvest-bench-") as directory:
        begun = time.perf_counter()
        process = subprocess.Popen(
            _command(["run", "--simulate", "--no-live", "--output-dir", str(Path(directory) / "data")]),
            cwd=directory,
            env=_environ(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stderr is not None
        try:
            for line in process.stderr:
                if "[TRADE]" in line and "receiving" in line:
                    return time.perf_counter() - begun
        finally:
            process.terminate()
            process.communicate(timeout=LIMIT_S)
    raise RuntimeError("the run ended before it received anything")
