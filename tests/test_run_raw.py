"""The whole program: what a run has kept raw gives, exported and ingested, the rows that the run stored."""

from __future__ import annotations

import gzip
from typing import TYPE_CHECKING, Any

import pytest

from harvest.pipeline.raw_export import ExportExistsError, NoRawCaptureError, export_raw
from harvest.storage.journal import list_raw, list_segments
from tests.program import harvest, rows

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow
#: What an ingest gives numbers and a name of its own.
OWN = {"seq", "venue"}


def content(root: Path, kind: str, symbol: str) -> list[dict[str, Any]]:
    """Return the rows of a kind without what is an ingest's own."""
    return [
        {name: value for name, value in row.items() if name not in OWN}
        for row in rows(root, kind, symbol=symbol)
    ]


def test_what_is_kept_raw_gives_the_same_rows_again(tmp_path: Path) -> None:
    done = harvest(
        *("run", "--symbols", "BTCUSDT,ETHUSDT", "--simulate", "--output-dir", "data", "--no-live"),
        *("--hours", "0.0015", "--keep-raw"),
        cwd=tmp_path,
        HARVEST_JOURNAL_SEGMENT_SEC="1",
    )
    assert done.returncode == 0, done.stderr
    assert list_segments(tmp_path / "data") == []
    assert len(list_raw(tmp_path / "data", "simulated-binance-usdm")) > 1
    done = harvest("export-raw", "data", "--out", "raw", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    files = sorted((tmp_path / "raw").iterdir())
    assert [path.name for path in files] == [
        f"simulated-binance-usdm-{symbol}.txt.gz" for symbol in ("BTCUSDT", "ETHUSDT")
    ]
    done = harvest("ingest", *files, "--venue", "binance-usdm", "--data", "again", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for symbol in ("BTCUSDT", "ETHUSDT"):
        for kind in ("prices", "cvd", "depth", "orderbook", "ofi"):
            stored = content(tmp_path / "data", kind, symbol)
            assert len(stored) > 3
            assert content(tmp_path / "again", kind, symbol) == stored, kind
    assert harvest("verify", "again", cwd=tmp_path).returncode in (0, 1)
    # A part of it.
    exported = export_raw(tmp_path / "data", tmp_path / "part", symbols=["ETHUSDT"])
    (path,) = exported.lines
    lines = gzip.decompress(path.read_bytes()).splitlines()
    assert lines == gzip.decompress(files[1].read_bytes()).splitlines()
    assert exported.lines[path] == len(lines)
    times = [int(line[:19]) for line in lines]
    middle = times[len(times) // 2]
    parts = [
        export_raw(tmp_path / "data", tmp_path / name, symbols=["ETHUSDT"], from_ns=from_ns, to_ns=to_ns)
        for name, from_ns, to_ns in (("first", None, middle), ("second", middle, None))
    ]
    assert [sum(part.lines.values()) for part in parts] == [
        sum(at < middle for at in times),
        sum(at >= middle for at in times),
    ]
    with pytest.raises(ExportExistsError, match="nothing is overwritten"):
        export_raw(tmp_path / "data", tmp_path / "part")
    with pytest.raises(NoRawCaptureError, match="--keep-raw"):
        export_raw(tmp_path / "again", tmp_path / "nothing")
