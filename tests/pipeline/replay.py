"""Books rebuilt from ``depth`` rows by the recipe of ``docs/data.md``, word for word, and their best levels."""

from __future__ import annotations

import collections
import functools
import re
from heapq import nlargest, nsmallest
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "data.md"


def _recipe() -> Callable[[Iterable[dict[str, Any]]], Iterator[tuple[dict[str, Any], dict, dict]]]:
    (code,) = re.findall(r"```python\n(def books\(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)
    names: dict[str, Any] = {"collections": collections}
    exec(code, names)
    return names["books"]


books = _recipe()


def tops(bids: dict[float, float], asks: dict[float, float], levels: int) -> list[tuple[float | None, float]]:
    """Return the best levels of both sides as (price, quantity), None and 0 where there are none, bids first."""
    found: list[tuple[float | None, float]] = []
    for side, best in ((bids, nlargest), (asks, nsmallest)):
        there = [(price, side[price]) for price in best(levels, side)]
        found += [*there, *[(None, 0.0)] * (levels - len(there))]
    return found


def stored_tops(row: dict[str, Any], levels: int) -> list[tuple[float | None, float]]:
    """Return the same of an ``orderbook`` row."""
    return [(row[px], row[qty]) for px, qty in _names(levels)]


@functools.cache
def _names(levels: int) -> list[tuple[str, str]]:
    return [
        (f"{side}_px_{level}", f"{side}_qty_{level}") for side in ("bid", "ask") for level in range(levels)
    ]
