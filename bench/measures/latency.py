"""Latency from the socket to the buffer: from the sending of a trade until its row is packed, on one clock."""

from __future__ import annotations

import numpy as np

from bench.measures.found import Found
from bench.measures.live import live

RATES = (1_000, 10_000, 25_000)


def measure_latency(*, quick: bool) -> Found:
    """Send trades one by one at each rate, from another process."""
    figures: dict[str, float] = {}
    for rate in RATES:
        seen = live("trades", rate=rate, seconds=4 if quick else 12)
        for percent in (50, 99):
            figures[f"{rate:,} messages/s: p{percent}, µs"] = float(np.percentile(seen.latencies_us, percent))
    return Found("latency from the sender's socket to the buffer", figures)
