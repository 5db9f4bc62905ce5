"""Packs what follows from one order book: rows of kinds ``depth``, ``orderbook`` and ``ofi`` of one symbol."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from harvest.storage.kinds import DEPTH, OFI, UNKNOWN, WS
from harvest.storage.tables import NOT_MARKED

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from harvest.book.bulk import Followed
    from harvest.market import Level
    from harvest.pipeline.book_runs import PlainRun
    from harvest.storage.kinds import Kind
    from harvest.storage.tables import Table, Tables

    Integers = NDArray[np.int64]

_pack_depth = DEPTH.packer.pack
_pack_ofi = OFI.packer.pack
_NAN = float("nan")

DepthRow = tuple[int, int, int, int, int, bool]
"""event_time, trade_time (microseconds), first, last and previous update id, is_snapshot; UNKNOWN where unknown."""

Tops = tuple[list[float], list[float], list[float], list[float]]
"""Bid prices, bid quantities, ask prices, ask quantities, best first."""


def best_of(tops: Tops, levels: int) -> Tops:
    """Return the best of some levels."""
    bid_px, bid_qty, ask_px, ask_qty = tops
    return bid_px[:levels], bid_qty[:levels], ask_px[:levels], ask_qty[:levels]


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

    def add_run(self, run: PlainRun, followed: Followed, seq: int, recv_ns: int) -> None:
        """Pack diffs and what follows from them, of the date turned to."""
        diffs, event_us = run.diffs, run.event_us
        depth = {
            "event_time": event_us,
            "trade_time": UNKNOWN if run.trade_us is None else run.trade_us,
            "first_update_id": diffs.first_update_id,
            "last_update_id": diffs.last_update_id,
            "prev_update_id": UNKNOWN if diffs.prev_update_id is None else diffs.prev_update_id,
            "n_bids": diffs.bid_counts,
            "n_asks": diffs.ask_counts,
        }
        following = columns_of(followed, event_us, diffs.last_update_id, self._levels)
        for table, columns in (
            (self._depth, depth),
            (self._orderbook, following["orderbook"]),
            (self._ofi, following["ofi"]),
        ):
            if table.marked_seq != seq:
                table.mark(seq, recv_ns, WS)
            table.rows += _packed(table.kind, len(event_us), columns)
            table.count += len(event_us)
        assert self._depth.levels is not None, "a kind with levels"
        added = diffs.bid_px, diffs.bid_qty, diffs.ask_px, diffs.ask_qty
        for levels, more in zip(self._depth.levels, added, strict=True):
            levels.frombytes(more.tobytes())


def columns_of(
    followed: Followed, event_us: Integers, update_ids: Integers, count: int
) -> dict[str, dict[str, NDArray[Any]]]:
    """Return the columns of what follows from diffs, by kind, with ``count`` levels: all but ``suspect``, and what is equal for a block."""
    first = {"event_time": event_us, "update_id": update_ids}
    levels = {
        f"{side}_{what}_{level}": column[:, level]
        for side, columns in (
            ("bid", (followed.bid_px, followed.bid_qty)),
            ("ask", (followed.ask_px, followed.ask_qty)),
        )
        for what, column in zip(("px", "qty"), columns, strict=True)
        for level in range(count)
    }
    flows = dict(zip(("ofi_1", "ofi_5", "ofi_10"), followed.flows.T, strict=True))
    return {"orderbook": first | levels, "ofi": first | flows | {"ofi_z": followed.scores}}


def _packed(kind: Kind, count: int, columns: dict[str, Any]) -> bytes:
    """Pack rows of columns; what is not among them is 0."""
    rows = np.zeros(count, kind.dtype)
    for name, column in columns.items():
        rows[name] = column
    return rows.tobytes()


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
