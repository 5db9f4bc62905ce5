"""`verify` with depth replayed, on two cores, against `ingest` of the same rows."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from pathlib import Path
from statistics import median

from bench.measures.found import Found
from bench.measures.recordings import MISSING, copies, ingested, recordings
from bench.ratios import Ratio, of_medians
from harvest.pipeline.verify import verify

TITLE = "verify of the recordings"
#: How often each recording is there, under a name of its own: a directory of one would be read before the processes are up.
COPIES = 4
JOBS = 2


def measure_verifying(*, quick: bool) -> Found:
    """Ingest, and verify what came of it, in turn."""
    files = recordings()
    if not files:
        return Found(f"{TITLE}; {MISSING}", {})
    ingest_rates, rates, alone = [], [], []
    cpu: dict[str, list[float]] = {"ingest": [], f"verify on {JOBS} cores": [], "verify on one core": []}
    with tempfile.TemporaryDirectory(prefix="harvest-bench-") as directory:
        copied = copies(files, 2 if quick else COPIES, Path(directory))
        for _ in range(2 if quick else 3):
            root = Path(directory) / "data"
            begun, cpu_begun = time.perf_counter(), _cpu_s()
            rows = sum(ingested(copied, root))
            ingest_rates.append(rows / (time.perf_counter() - begun))
            cpu["ingest"].append(rows / (_cpu_s() - cpu_begun))
            for jobs, of_jobs, name in (
                (JOBS, rates, f"verify on {JOBS} cores"),
                (1, alone, "verify on one core"),
            ):
                begun, cpu_begun = time.perf_counter(), _cpu_s()
                report = verify(root, jobs=jobs)
                of_jobs.append(rows / (time.perf_counter() - begun))
                cpu[name].append(rows / (_cpu_s() - cpu_begun))
                if report.damage or sum(series.rows for series in report.series) != rows:
                    raise RuntimeError(f"verify finds fault with what was ingested: {report.damage[:3]}")
            shutil.rmtree(root)
    figures = {
        "rows": float(rows),
        "ingest: rows/s": median(ingest_rates),
        f"verify on {JOBS} cores: rows/s": median(rates),
        "verify on one core: rows/s": median(alone),
    } | {f"{name}: rows a second of CPU": median(of_side) for name, of_side in cpu.items()}
    value = of_medians(rates, ingest_rates)
    return Found(
        TITLE,
        figures,
        [Ratio("verify with depth replayed, rows/s on two cores, against ingest", value, 2, 4)],
    )


def _cpu_s() -> float:
    """Return the processor's time of this process and of its children that have ended."""
    used = os.times()
    return used.user + used.system + used.children_user + used.children_system
