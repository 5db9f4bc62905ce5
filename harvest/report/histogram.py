"""How latencies are spread: counted in ten bins a power of ten, from 0.1 ms to 100 s, and the same before zero."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_STEPS = (1.0, 1.25, 1.6, 2.0, 2.5, 3.15, 4.0, 5.0, 6.3, 8.0)
_DECADES = (0.1, 1.0, 10.0, 100.0, 1_000.0, 10_000.0)
_LATE_MS = [round(decade * step, 3) for decade in _DECADES for step in _STEPS] + [100_000.0]
#: Milliseconds at which one bin ends and the next begins; the first and the last bin are open.
EDGES_MS = (*(-edge for edge in reversed(_LATE_MS)), 0.0, *_LATE_MS)
BINS = len(EDGES_MS) + 1
#: The first bin that is not negative.
FIRST_LATE = len(_LATE_MS) + 1


def counted(late_ms: NDArray[np.float64]) -> NDArray[np.int64]:
    """Count latencies by bin: a bin holds its lower edge, and not its upper one."""
    counts: NDArray[np.int64] = np.bincount(np.searchsorted(EDGES_MS, late_ms, side="right"), minlength=BINS)
    return counts


def label(place: int) -> str:
    """Name a bin."""
    if place == 0:
        return f"below {edge_text(EDGES_MS[0])}"
    if place == BINS - 1:
        return f"{edge_text(EDGES_MS[-1])} or more"
    return f"{edge_text(EDGES_MS[place - 1])} to {edge_text(EDGES_MS[place])}"


def edge_text(edge_ms: float) -> str:
    """Write an edge with its unit."""
    return f"{edge_ms / 1000:g} s" if abs(edge_ms) >= 1000 else f"{edge_ms:g} ms"
