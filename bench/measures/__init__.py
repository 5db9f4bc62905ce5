"""What is measured besides matches: memory, stalls, stages, latency, `ingest`, `verify`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.measures.cpu import measure_cpu
from bench.measures.ingest import measure_ingest
from bench.measures.instruments import measure_instruments
from bench.measures.latency import measure_latency
from bench.measures.memory import measure_memory
from bench.measures.stages import measure_stages
from bench.measures.stall import measure_stall
from bench.measures.startup import measure_startup
from bench.measures.verifying import measure_verifying

if TYPE_CHECKING:
    from collections.abc import Callable

    from bench.measures.found import Found

MEASURES: dict[str, Callable[..., Found]] = {
    "stall": measure_stall,
    "latency": measure_latency,
    "ingest": measure_ingest,
    "verifying": measure_verifying,
    "memory": measure_memory,
    "stages": measure_stages,
    "cpu": measure_cpu,
    "instruments": measure_instruments,
    "startup": measure_startup,
}
