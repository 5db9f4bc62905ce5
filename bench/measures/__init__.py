"""What is measured besides matches: memory, stalls, stages, latency, `ingest`, `verify`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.measures.memory import measure_memory

if TYPE_CHECKING:
    from collections.abc import Callable

    from bench.measures.found import Found

MEASURES: dict[str, Callable[..., Found]] = {
    "memory": measure_memory,
}
