"""What a message costs at live rates, where each one comes alone: all threads, the journal and the idle loop too."""

from __future__ import annotations

from bench.measures.found import Found
from bench.measures.live import live

#: Messages a second on each of the two connections.
RATES = (50, 250, 1_000)


def measure_cpu(*, quick: bool) -> Found:
    """Receive trades and diffs at each rate, and count the processor's time."""
    figures: dict[str, float] = {}
    for rate in RATES:
        seen = live("mix", rate=rate, seconds=5 if quick else 15)
        figures[f"{2 * rate:,} messages/s over 2 streams: µs of CPU each"] = (
            seen.cpu_seconds / seen.messages * 1e6
        )
    return Found("cost of a message at live rates", figures)
