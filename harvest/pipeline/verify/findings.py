"""What a verification finds: missing intervals, damage, and what is worth a warning."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from pathlib import Path

#: Why ids are missing that no row of ``breaks`` speaks of, within one run.
UNEXPLAINED = "unexplained"
#: Why ids are missing between the rows of two runs.
DOWNTIME = "downtime"
#: Findings of one sort and kind that are kept one by one; what exceeds that is counted.
MAX_KEPT = 1_000


class Missing(msgspec.Struct, frozen=True):
    """An interval of ids that are not stored, and why.

    The ids mean what ``breaks`` means by them: trades: both inclusive; depth on spot: both exclusive; depth on USD-M: the
    last stored id, and the predecessor that the next diff names. Times are our receive times around it, None where unknown.
    """

    from_id: int
    to_id: int
    from_ns: int | None
    to_ns: int | None
    why: str

    @property
    def explained(self) -> bool:
        """Whether it is known why."""
        return self.why != UNEXPLAINED


class Uncovered(msgspec.Struct, frozen=True):
    """A time in which no row could come of a kind whose rows do not tell what came before; ``from_ns`` None where unknown."""

    from_ns: int | None
    to_ns: int
    why: str


class Damage(msgspec.Struct, frozen=True):
    """Something that is not as it was written, or never should have been written so.

    ``what`` is one word: ``unreadable``, ``foreign``, ``schema``, ``metadata``, ``overlap``, ``order``, ``date``, ``value``,
    ``duplicate``, ``absent`` (a row that must be there is not), ``surplus`` (a row that must not be there is), ``differs`` (a
    row is not what follows from others), ``crossed``. ``path`` is relative to the data directory. The ids are the first and
    last that are concerned, both inclusive.
    """

    what: str
    detail: str
    path: str | None = None
    venue: str | None = None
    symbol: str | None = None
    kind: str | None = None
    from_id: int | None = None
    to_id: int | None = None
    rows: int | None = None


class Findings:
    """Gathers the damage and the warnings of one series (``venue``, ``symbol``), within bounds."""

    def __init__(self, root: Path, venue: str | None = None, symbol: str | None = None) -> None:
        self.damage: list[Damage] = []
        self.warnings: list[str] = []
        self._root = root
        self._venue, self._symbol = venue, symbol
        self._counts: Counter[tuple[str, str | None]] = Counter()

    def damaged(
        self,
        what: str,
        detail: str,
        *,
        path: Path | None = None,
        kind: str | None = None,
        ids: tuple[int, int] | None = None,
        rows: int | None = None,
    ) -> None:
        """Record damage; ``ids`` are the first and last concerned."""
        self._counts[what, kind] += 1
        if self._counts[what, kind] > MAX_KEPT:
            return
        from_id, to_id = ids if ids is not None else (None, None)
        where = None if path is None else path.relative_to(self._root).as_posix()
        self.damage.append(Damage(what, detail, where, self._venue, self._symbol, kind, from_id, to_id, rows))

    def warn(self, text: str, *, sort: str) -> None:
        """Record something that is no damage, once for each text; ``sort`` is what its number is bounded by."""
        self._counts["warning", sort] += 1
        if self._counts["warning", sort] <= MAX_KEPT:
            self.warnings.append(text)

    def close(self) -> None:
        """Say how much was counted alone."""
        for (what, kind), count in self._counts.items():
            left = count - MAX_KEPT
            if left > 0 and what == "warning":
                self.warnings.append(f"… and {left:,} more warnings of this sort ({kind})")
            elif left > 0:
                detail = f"… and {left:,} more findings of this sort"
                self.damage.append(Damage(what, detail, None, self._venue, self._symbol, kind))
