"""The whole program as a user starts it: a process of its own, its output, its exit code, its files."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow.dataset as ds

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

ROOT = Path(__file__).resolve().parents[1]
RECORDINGS = ROOT.parent / "shared" / "recordings"
#: Settings of whoever runs the tests must not reach the program.
_NAMES = ("SYMBOLS", "OUTPUT_DIR", "RUN_HOURS", "STREAM_IDLE_SEC", "TRADE_TIMEOUT", "ORDERBOOK_TIMEOUT")


def environment(**settings: str) -> dict[str, str]:
    """Return this process's environment without settings of its own, and with ``settings``."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("HARVEST_") and name not in _NAMES
    }
    # Plain output, whatever terminal the tests run in.
    return kept | {"NO_COLOR": "1", "TERM": "dumb", "COLUMNS": "200"} | settings


def command(*arguments: str | Path) -> list[str]:
    """Return the command line that runs harvest with ``arguments``."""
    return [sys.executable, "-m", "harvest", *map(str, arguments)]


def harvest(
    *arguments: str | Path, cwd: Path, timeout_s: float = 90, **settings: str
) -> subprocess.CompletedProcess[str]:
    """Run harvest in ``cwd`` to its end; ``settings`` are environment variables."""
    return subprocess.run(
        command(*arguments),
        cwd=cwd,
        env=environment(**settings),
        timeout=timeout_s,
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )


def rows(root: Path, kind: str, columns: Sequence[str] | None = None, **where: str) -> list[dict[str, Any]]:
    """Read all rows of a kind, in the order of ``seq`` and then of the files."""
    base = root / kind
    if not base.exists():
        return []
    dataset = ds.dataset(base, format="parquet", partitioning="hive")
    table = dataset.to_table()
    found = [
        row for row in table.to_pylist() if all(str(row[name]) == value for name, value in where.items())
    ]
    found.sort(key=lambda row: row["seq"])
    return found if columns is None else [{name: row[name] for name in columns} for row in found]


def chain_holes(diffs: Sequence[Mapping[str, Any]]) -> list[tuple[int, int]]:
    """Return where USD-M diffs do not continue each other: (last id before, predecessor that the next one names)."""
    pairs = itertools.pairwise(diffs)
    return [
        (before["last_update_id"], after["prev_update_id"])
        for before, after in pairs
        if before["last_update_id"] != after["prev_update_id"]
    ]
