"""Packs what follows from one order book: rows of kinds ``depth``, ``orderbook`` and ``ofi`` of one symbol."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harvest.storage.kinds import DEPTH, OFI, WS
from harvest.storage.tables import NOT_MARKED

if TYPE_CHECKING:
    from harvest.market import Level
    from harvest.storage.kinds import Kind
    from harvest.storage.tables import Table, Tables

_pack_depth = DEPTH.packer.pack
_pack_ofi = OFI.packer.pack
_NAN = float("nan")

DepthRow = tuple[int, int, int, int, int, bool]
"""event_time, trade_time (microseconds), first, last and previous update id, is_snapshot; UNKNOWN where unknown."""

Tops = tuple[list[float], list[float], list[float], list[float]]
"""Bid prices, bid quantities, ask prices, ask quantities, best first."""


class BookRows:
    """The open tables of one symbol's book, those of the date that rows come for now."""

    def __init__(self, symbol: str, orderbook_kind: Kind, levels: int, tables: Tables) -> None:
        self._symbol = symbol
        self._orderbook_kind = orderbook_kind
        self._pack_orderbook = orderbook_kind.packer.pack
        self._levels = levels
        self._tables = tables
        #: The date turned to, None before the first.
        self.day: int | None = None
        self._depth: Table
        self._orderbook: Table
        self._ofi: Table

    def turn_to(self, day: int) -> None:
        """Let the rows that follow go to the tables of ``day``."""
        if day != self.day:
            tables, symbol = self._tables, self._symbol
            self._depth = tables.table(DEPTH, symbol, day)
            self._orderbook = tables.table(self._orderbook_kind, symbol, day)
            self._ofi = tables.table(OFI, symbol, day)
            self.day = day

    def forget_tables(self) -> None:
        """Let go of the open tables: the next row looks them up anew."""
        self.day = None

    def unmark(self) -> None:
        """Let the next rows have a mark of their own: they were received at another time than those before."""
        if self.day is not None:
            self._depth.marked_seq = self._orderbook.marked_seq = self._ofi.marked_seq = NOT_MARKED

    def add_depth(
        self, row: DepthRow, bids: list[Level], asks: list[Level], seq: int, recv_ns: int, source: int
    ) -> None:
        """Pack a ``depth`` row of the date turned to."""
        _add_depth(self._depth, row, bids, asks, seq, recv_ns, source)

    def add_depth_of(
        self,
        day: int,
        row: DepthRow,
        bids: list[Level],
        asks: list[Level],
        seq: int,
        recv_ns: int,
        source: int,
    ) -> None:
        """Pack a ``depth`` row of any date, without turning to it."""
        _add_depth(self._tables.table(DEPTH, self._symbol, day), row, bids, asks, seq, recv_ns, source)

    def add_tops(
        self,
        event_us: int,
        update_id: int,
        tops: Tops,
        flow: tuple[float, float, float, float | None] | None,
        *,
        suspect: bool,
        seq: int,
        recv_ns: int,
    ) -> None:
        """Pack an ``orderbook`` row and, where there is a ``flow``, an ``ofi`` row, of the date turned to."""
        levels, table = self._levels, self._orderbook
        bid_px, bid_qty, ask_px, ask_qty = tops
        if table.marked_seq != seq:
            table.mark(seq, recv_ns, WS)
        table.rows += self._pack_orderbook(
            event_us,
            update_id,
            *bid_px[:levels],
            *bid_qty[:levels],
            *ask_px[:levels],
            *ask_qty[:levels],
            suspect,
        )
        table.count += 1
        if flow is None:
            return
        ofi_1, ofi_5, ofi_10, z = flow
        table = self._ofi
        if table.marked_seq != seq:
            table.mark(seq, recv_ns, WS)
        table.rows += _pack_ofi(event_us, update_id, ofi_1, ofi_5, ofi_10, _NAN if z is None else z, suspect)
        table.count += 1


def _add_depth(
    table: Table, row: DepthRow, bids: list[Level], asks: list[Level], seq: int, recv_ns: int, source: int
) -> None:
    if table.marked_seq != seq or source != WS:
        table.mark(seq, recv_ns, source)
    table.rows += _pack_depth(*row, len(bids), len(asks))
    table.add_levels(bids, asks)
    table.count += 1
    if source != WS:
        # What follows in the same record has another source, and so another mark.
        table.marked_seq = NOT_MARKED
