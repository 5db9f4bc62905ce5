"""What harvest must reach, as ratios within one run; absolute figures move with the machine, ratios hold."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from collections.abc import Sequence


@attrs.frozen
class Ratio:
    """One measure with what it must reach. ``lower_is_better`` where it is no ratio but a size or a time."""

    name: str
    value: float
    floor: float
    goal: float
    lower_is_better: bool = False

    @property
    def verdict(self) -> str:
        """``goal``, ``floor`` or ``below``."""
        sign = -1 if self.lower_is_better else 1
        if sign * self.value >= sign * self.goal:
            return "goal"
        return "floor" if sign * self.value >= sign * self.floor else "below"

    def to_json(self) -> dict[str, object]:
        """Return what machines read."""
        return {"name": self.name, "value": round(self.value, 3), "floor": self.floor, "goal": self.goal}


def of_medians(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Return how many times as fast ours is, from rates of interleaved rounds."""
    return median(ours) / median(theirs)
