"""How many faults there were, and how many of them were named."""

from __future__ import annotations

from collections import Counter

import attrs

Interval = tuple[str, str, str, int, int]
"""venue, symbol, kind, from, to."""


@attrs.define
class Score:
    """What was to be found, what was found of it, and what was named besides."""

    points: Counter[str] = attrs.Factory(Counter)
    expected: int = 0
    found: int = 0
    false_alarms: int = 0
    #: What went wrong, for whoever has to look.
    wrong: list[str] = attrs.Factory(list)

    def add(self, expected: set[Interval], named: set[Interval], where: str) -> None:
        """Count one round."""
        self.expected += len(expected)
        self.found += len(expected & named)
        self.false_alarms += len(named - expected)
        self.wrong += [f"{where}: not named: {one}" for one in sorted(expected - named)]
        self.wrong += [f"{where}: false alarm: {one}" for one in sorted(named - expected)]
