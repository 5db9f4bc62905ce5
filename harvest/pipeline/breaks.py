"""Breaks as rows: a known interval without coverage is never a silence."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harvest.pipeline.events import BreakFound
from harvest.storage.kinds import BREAKS, FEEDS, REASONS, UNKNOWN, WS
from harvest.storage.tables import DAY_US

if TYPE_CHECKING:
    from harvest.market import StreamBreak
    from harvest.metrics import Metrics
    from harvest.pipeline.events import Event
    from harvest.storage.tables import Tables

_FEED_CODES = {name: code for code, name in enumerate(FEEDS)}
_REASON_CODES = {name: code for code, name in enumerate(REASONS)}


def _or_unknown(value: int | None) -> int:
    return UNKNOWN if value is None else value


class BreakRows:
    """Packs breaks into the tables, in the date of the receive time at their end."""

    def __init__(self, tables: Tables, metrics: Metrics, events: list[Event]) -> None:
        self._tables = tables
        self._metrics = metrics
        self._events = events

    def add(self, found: StreamBreak, seq: int) -> None:
        """Store ``found``, seen in the record ``seq``, and tell the caller."""
        table = self._tables.table(BREAKS, found.symbol, found.to_ns // 1000 // DAY_US)
        # Each has a time of its own, also where one record shows several.
        table.mark(seq, found.to_ns, WS)
        table.rows += BREAKS.packer.pack(
            _FEED_CODES[found.feed],
            _REASON_CODES[found.reason],
            _or_unknown(found.from_id),
            _or_unknown(found.to_id),
            _or_unknown(found.from_ns),
            found.to_ns,
        )
        table.count += 1
        self._metrics.rows["breaks", found.symbol] += 1
        self._events.append(BreakFound(found.symbol, found.feed, found.reason, found.from_id, found.to_id))
