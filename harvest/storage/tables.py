"""Column buffers: rows of one kind, symbol and date wait here, packed, until they are sealed for the writer.

Nothing here awaits or locks: all rows are packed by the thread that runs the pipeline. A buffer is only ever sealed
between two records, so that the rows of one record for one directory are always in one file.
"""

from __future__ import annotations

from array import array
from functools import lru_cache
from struct import Struct
from typing import TYPE_CHECKING, TypeAlias

import attrs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from harvest.market import Level
    from harvest.storage.kinds import Kind

DAY_US = 86_400_000_000
#: ``marked_seq`` of a table whose next row needs a mark.
NOT_MARKED = -1


Levels: TypeAlias = "tuple[array[float], array[float], array[float], array[float]]"


@lru_cache(1024)
def _packer(count: int) -> Callable[..., bytes]:
    """Give what packs so many numbers at once, which takes half as long as one after the other."""
    return Struct(f"{count}d").pack


def _size_bytes(levels: Levels | None) -> int:
    return 0 if levels is None else sum(len(column) * 8 for column in levels)


@attrs.frozen(eq=False)
class Sealed:
    """Rows that nobody touches any more: packed bytes, and what is equal for whole blocks.

    ``marks`` holds four integers a block: first row, seq, recv_ns, source. ``levels`` are those of all rows one after the
    other (kinds whose columns are lists of levels): bid prices, bid quantities, ask prices, ask quantities. ``rows`` that follow from others may be a function that makes
    them: in whatever thread writes them, so that the loop need not.
    """

    kind: Kind
    symbol: str
    #: Days since 1970-01-01, UTC.
    day: int
    count: int
    first_seq: int
    last_seq: int
    rows: bytes | bytearray | Callable[[], bytes]
    marks: array[int]
    levels: Levels | None = None

    def packed(self) -> bytes | bytearray:
        """Return the rows, made now if need be."""
        return self.rows() if callable(self.rows) else self.rows

    @property
    def size_bytes(self) -> int:
        """Memory that the rows take, in bytes."""
        return self.count * self.kind.packer.size + len(self.marks) * 8 + _size_bytes(self.levels)


class Table:
    """The open buffer of one kind, symbol and date.

    The pipeline packs rows itself (``table.rows += pack(…); table.count += 1``), after one ``mark`` a block:
    whether the current block is marked is ``table.marked_seq == seq``.
    """

    __slots__ = ("count", "day", "kind", "levels", "marked_seq", "marks", "rows", "symbol", "tables")

    def __init__(self, tables: Tables, kind: Kind, symbol: str, day: int) -> None:
        self.tables = tables
        self.kind = kind
        self.symbol = symbol
        self.day = day
        self._clear()

    def _clear(self) -> None:
        self.rows = bytearray()
        self.marks = array("q")
        self.count = 0
        self.marked_seq = NOT_MARKED
        self.levels: Levels | None = None
        if self.kind.extra:
            self.levels = array("d"), array("d"), array("d"), array("d")

    def mark(self, seq: int, recv_ns: int, source: int) -> None:
        """Say that the rows that follow belong to the record ``seq``; seals first if the buffer is full."""
        if self.count >= self.tables.max_rows and self.marks[-3] != seq:
            self.tables.seal(self)
        self.marks.extend((self.count, seq, recv_ns, source))
        self.marked_seq = seq

    def add_levels(self, bids: Sequence[Level], asks: Sequence[Level]) -> None:
        """Add the levels of the next row, whose packed part tells how many they are."""
        assert self.levels is not None, "a kind with levels"
        bid_px, bid_qty, ask_px, ask_qty = self.levels
        if bids:
            pack = _packer(len(bids))
            prices, quantities = zip(*bids, strict=False)
            bid_px.frombytes(pack(*prices))
            bid_qty.frombytes(pack(*quantities))
        if asks:
            pack = _packer(len(asks))
            prices, quantities = zip(*asks, strict=False)
            ask_px.frombytes(pack(*prices))
            ask_qty.frombytes(pack(*quantities))

    def seal(self) -> Sealed:
        """Hand the rows over and begin anew. The table must not be empty."""
        marks = self.marks
        sealed = Sealed(
            self.kind,
            self.symbol,
            self.day,
            self.count,
            marks[1],
            marks[-3],
            self.rows,
            marks,
            self.levels,
        )
        self._clear()
        return sealed

    @property
    def size_bytes(self) -> int:
        """Memory that the rows take, in bytes."""
        return len(self.rows) + len(self.marks) * 8 + _size_bytes(self.levels)


class Tables:
    """All open buffers, and the sealed ones that nobody has taken yet."""

    def __init__(self, *, max_rows: int, derive: Callable[[Sealed], Iterable[Sealed]] | None = None) -> None:
        self.max_rows = max_rows
        #: Rows that follow from others (``cvd`` from ``prices``) are made when those are sealed.
        self._derive = derive
        self._open: dict[tuple[str, str, int], Table] = {}
        self._ready: list[Sealed] = []

    def table(self, kind: Kind, symbol: str, day: int) -> Table:
        """Return the open buffer of ``kind``, ``symbol`` and ``day``, made on first use."""
        key = (kind.name, symbol, day)
        table = self._open.get(key)
        if table is None:
            table = self._open[key] = Table(self, kind, symbol, day)
        return table

    def seal(self, table: Table) -> None:
        """Seal one table that holds rows."""
        sealed = table.seal()
        self._ready.append(sealed)
        if self._derive is not None:
            self._ready.extend(self._derive(sealed))

    def add_sealed(self, derived: Iterable[Sealed]) -> None:
        """Let rows be taken that were derived later than those they follow from were sealed."""
        self._ready.extend(derived)

    def seal_all(self) -> None:
        """Seal every table that holds rows; call it between two records."""
        for table in self._open.values():
            if table.count:
                self.seal(table)

    def take_sealed(self) -> list[Sealed]:
        """Return what was sealed since the last call, oldest first."""
        ready, self._ready = self._ready, []
        return ready

    def forget_before(self, day: int) -> None:
        """Drop the empty tables of dates before ``day``, so that months of running do not gather them."""
        for key in [key for key, table in self._open.items() if key[2] < day and not table.count]:
            del self._open[key]

    @property
    def first_seq(self) -> int | None:
        """The first record that rows which wait here are of, sealed or not; None if none wait."""
        opened = (table.marks[1] for table in self if table.count)
        return min((*opened, *(sealed.first_seq for sealed in self._ready)), default=None)

    def __iter__(self) -> Iterator[Table]:
        return iter(self._open.values())

    @property
    def size_bytes(self) -> int:
        """Memory of all rows that wait here, sealed or not, in bytes."""
        return sum(table.size_bytes for table in self) + sum(sealed.size_bytes for sealed in self._ready)
