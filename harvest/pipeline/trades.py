"""The trades of one instrument: each id once, in the date of its trade time, every gap a row."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from harvest.book.sequence import TradeSequence, TradeVerdict
from harvest.market import UNKNOWN_TIME, StreamBreak
from harvest.pipeline.events import TradesWanted
from harvest.pipeline.times import MICROSECONDS_FROM
from harvest.storage.kinds import PRICES, REST, TRADE_TYPES, UNKNOWN, WS
from harvest.storage.tables import DAY_US

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harvest.market import Trade, TradeRun
    from harvest.metrics import FeedStats, Metrics
    from harvest.pipeline.breaks import BreakRows
    from harvest.pipeline.events import Event
    from harvest.storage.tables import Table, Tables


#: Trades from which on they are looked at together.
RUN = 4
_pack = PRICES.packer.pack
_NO_TYPE = 255
_TYPE_CODES: dict[str | None, int] = {name: code for code, name in enumerate(TRADE_TYPES)} | {None: _NO_TYPE}
_OTHER_TYPE = TRADE_TYPES.index("OTHER")


def _type_code(trade_type: str | None) -> int:
    return _TYPE_CODES.get(trade_type, _OTHER_TYPE)


def _scale(time: int) -> int:
    """Return what makes microseconds of times in the unit of one."""
    return 1000 if time < MICROSECONDS_FROM else 1


class TradeSeries:
    """Rows of kind ``prices`` of one symbol; ``cvd`` follows from them when they are sealed."""

    def __init__(
        self,
        symbol: str,
        *,
        tables: Tables,
        metrics: Metrics,
        breaks: BreakRows,
        events: list[Event],
        patience_ns: int,
    ) -> None:
        self.symbol = symbol
        self.stats: FeedStats = metrics.feed("trade", symbol)
        self.sequence = TradeSequence()
        self._interruption: tuple[str, int | None] | None = None
        #: Connections that bring these trades now. Where there is another, it may bring what this one lacks.
        self.living = 0
        self._patience_ns = patience_ns
        #: Gaps that another connection may still fill: the break as found, and when it is to be believed.
        self._doubtful: deque[tuple[StreamBreak, int]] = deque()
        self._tables = tables
        self._breaks = breaks
        self._events = events
        self._table: Table | None = None
        self._day_from_us = 1
        self._day_until_us = 0

    def interrupt(self, reason: str) -> None:
        """Note why ids may be missing from here on: a connection ended, or an overload."""
        last_id = self.sequence.next_id
        # The first cause stands until something is received again.
        if self._interruption is None or self._interruption[1] != last_id:
            self._interruption = (reason, last_id)

    def forget_tables(self) -> None:
        """Let go of the open table: the next row looks it up anew."""
        self._table = None
        self._day_from_us, self._day_until_us = 1, 0

    def take(self, trades: list[Trade], seq: int, recv_ns: int, mono_ns: int) -> None:
        """Pack the trades of the record ``seq``, in their order, except those whose ids are stored already."""
        taken, count = 0, len(trades)
        while taken < count:
            if count - taken >= RUN:
                if self._doubtful:
                    self.settle(seq, recv_ns)
                taken += self._take_run(trades[taken:] if taken else trades, seq, recv_ns, mono_ns)
            # One that ends a run, or of too few to be one.
            if taken < count:
                self.take_one(trades[taken], seq, recv_ns, mono_ns)
                taken += 1

    def _take_run(self, trades: list[Trade], seq: int, recv_ns: int, mono_ns: int) -> int:
        """Pack trades as long as one follows the other within the open date; returns how many did."""
        if self._table is None:
            return 0
        # As the venue gives times: in the unit of the first. Where another one comes, it is outside of these bounds.
        scale = _scale(trades[0].trade_time)
        begin, end = self._day_from_us // scale, self._day_until_us // scale
        is_typed = trades[0].id_space == "raw"
        type_code = _NO_TYPE
        next_id = self.sequence.next_id
        packed: list[bytes] = []
        append = packed.append
        for trade in trades:
            trade_id, trade_time, event_time = trade.trade_id, trade.trade_time, trade.event_time
            if trade_id != next_id or not begin <= trade_time <= event_time < end:
                break
            if is_typed:
                type_code = _type_code(trade.trade_type)
            next_id = trade_id + 1
            append(
                _pack(
                    event_time * scale,
                    trade_time * scale,
                    trade_id,
                    trade.price,
                    trade.qty,
                    trade.aggressor_sold,
                    type_code,
                )
            )
        if not packed:
            return 0
        self.sequence.next_id = next_id
        self._add(b"".join(packed), len(packed), seq, recv_ns, mono_ns)
        return len(packed)

    def _add(self, rows: bytes, count: int, seq: int, recv_ns: int, mono_ns: int) -> None:
        """Add rows of the open date."""
        table = self._table
        assert table is not None
        if table.marked_seq != seq:
            table.mark(seq, recv_ns, WS)
        table.rows += rows
        table.count += count
        stats = self.stats
        stats.last_mono_ns, stats.last_recv_ns = mono_ns, recv_ns
        stats.stored += count

    def take_run(self, run: TradeRun, seq: int, recv_ns: int, mono_ns: int) -> bool:
        """Pack the trades of a run all at once; False, and nothing is taken, where they are to be taken one by one.

        Its rows become ours.
        """
        stored = self._stored_of(run)
        if stored is None:
            return False
        stats, rows = self.stats, run.rows[stored:]
        stats.last_mono_ns = mono_ns
        stats.duplicates += stored
        if len(rows):
            scale = _scale(int(rows["trade_time"][0]))
            if scale != 1:
                rows["event_time"] *= scale
                rows["trade_time"] *= scale
            rows["code"] = _type_code(run.trade_type)
            self.sequence.next_id = int(rows["trade_id"][-1]) + 1
            # A row of a run has the layout of a packed one.
            self._add(rows.tobytes(), len(rows), seq, recv_ns, mono_ns)
        return True

    def _stored_of(self, run: TradeRun) -> int | None:
        """Return how many trades at the beginning of a run are stored already, all others going on from there within the open date.

        None where it is otherwise.
        """
        ids = np.ascontiguousarray(run.rows["trade_id"])
        next_id = self.sequence.next_id
        if self._table is None or self._doubtful or next_id is None or (ids[1:] - ids[:-1] != 1).any():
            return None
        first, stored = int(ids[0]), min(next_id - int(ids[0]), len(ids))
        if stored < 0 or (stored and self.sequence.misses_any(first, first + stored - 1)):
            return None
        if stored < len(ids):
            event_time, trade_time = run.rows["event_time"][stored:], run.rows["trade_time"][stored:]
            scale = _scale(int(trade_time[0]))
            begin, end = self._day_from_us // scale, self._day_until_us // scale
            if trade_time.min() < begin or event_time.max() >= end or (trade_time > event_time).any():
                return None
            # On the two dates where the units meet, one by one: each time there is in the unit that its size says.
            if not _scale(begin) == scale == _scale(end - 1):
                return None
        return stored

    def take_one(self, trade: Trade, seq: int, recv_ns: int, mono_ns: int) -> None:
        """Pack one trade of the record ``seq``, whatever its date, unless its id is stored already."""
        if self._doubtful:
            self.settle(seq, recv_ns)
        trade_id = trade.trade_id
        if trade_id == self.sequence.next_id:
            self.sequence.next_id = trade_id + 1
        elif not self._accept_irregular(trade_id, seq, recv_ns):
            self.stats.last_mono_ns = mono_ns
            return
        self._store(trade, seq, recv_ns, mono_ns, WS)

    def resume(self, last_id: int) -> None:
        """Go on after the greatest id that earlier runs stored; what is missing up to the first new one is downtime."""
        self.sequence.resume(last_id)
        self.interrupt("downtime")

    def resume_late(self, last_id: int, seq: int, recv_ns: int, *, wants_missing: bool) -> None:
        """Do the same after ids have come: what is missing before the first of them is a break by now."""
        first_id = self.sequence.first_id
        if first_id is None:
            self.resume(last_id)
            return
        self.sequence.resume(last_id)
        for low, high in self.sequence.missing_between(last_id + 1, first_id - 1):
            self.stats.missing_ids += high - low + 1
            self._record(StreamBreak(self.symbol, "trade", "downtime", low, high, None, recv_ns), seq)
            if not wants_missing:
                self._events.pop()

    def reopen(self, gaps: Sequence[tuple[int, int]]) -> None:
        """Ask for what earlier runs have left out, and recorded: (from, to), both inclusive, ascending; call it once resumed."""
        self.sequence.reopen(gaps)
        for low, high in gaps:
            self.stats.missing_ids += high - low + 1
            self._events.append(TradesWanted(self.symbol, low, high))

    def take_fetched(self, trades: Sequence[Trade], from_id: int, to_id: int, seq: int, recv_ns: int) -> int:
        """Pack fetched trades that are missing between ``from_id`` and ``to_id``, both inclusive; returns how many."""
        before = self.stats.stored
        for trade in trades:
            if from_id <= trade.trade_id <= to_id and self.sequence.is_missing(trade.trade_id):
                self.sequence.accept(trade.trade_id)
                self.stats.missing_ids -= 1
                self._store(trade, seq, recv_ns, None, REST)
        return self.stats.stored - before

    def give_up(self, from_id: int, to_id: int, reason: str, seq: int, recv_ns: int) -> None:
        """Record what is still missing between ``from_id`` and ``to_id``, both inclusive, as beyond reach."""
        for low, high in self.sequence.missing_between(from_id, to_id):
            found = StreamBreak(self.symbol, "trade", reason, low, high, None, recv_ns)
            self._breaks.add(found, seq)

    def _store(self, trade: Trade, seq: int, recv_ns: int, mono_ns: int | None, source: int) -> None:
        event_us, trade_us = trade.event_time, trade.trade_time
        if event_us == UNKNOWN_TIME:
            event_us = UNKNOWN
        elif event_us < MICROSECONDS_FROM:
            event_us *= 1000
        if trade_us < MICROSECONDS_FROM:
            trade_us *= 1000
        table = self._table
        if table is None or not self._day_from_us <= trade_us < self._day_until_us:
            table = self._roll(trade_us)
        if table.marked_seq != seq:
            table.mark(seq, recv_ns, source)
            if mono_ns is not None:
                self.stats.last_mono_ns, self.stats.last_recv_ns = mono_ns, recv_ns
        table.rows += _pack(
            event_us,
            trade_us,
            trade.trade_id,
            trade.price,
            trade.qty,
            trade.aggressor_sold,
            _type_code(trade.trade_type),
        )
        table.count += 1
        self.stats.stored += 1

    def _roll(self, trade_us: int) -> Table:
        day = trade_us // DAY_US
        self._day_from_us, self._day_until_us = day * DAY_US, (day + 1) * DAY_US
        self._table = self._tables.table(PRICES, self.symbol, day)
        return self._table

    def _accept_irregular(self, trade_id: int, seq: int, recv_ns: int) -> bool:
        """Judge an id that does not follow its predecessor; returns whether it is to be stored."""
        stats = self.stats
        expected = self.sequence.next_id
        verdict = self.sequence.accept(trade_id)
        if verdict is TradeVerdict.DUPLICATE:
            stats.duplicates += 1
            return False
        if verdict is TradeVerdict.LATE:
            stats.late += 1
            stats.missing_ids -= 1
        elif verdict is TradeVerdict.GAP and expected is not None:
            # An interruption explains a gap only if nothing was received since.
            reason = "gap"
            if self._interruption is not None and self._interruption[1] == expected:
                reason = self._interruption[0]
            stats.missing_ids += trade_id - expected
            found = StreamBreak(
                self.symbol, "trade", reason, expected, trade_id - 1, stats.last_recv_ns, recv_ns
            )
            if self.living > 1:
                self._doubtful.append((found, recv_ns + self._patience_ns))
            else:
                self._record(found, seq)
        return True

    def settle(self, seq: int, recv_ns: int) -> None:
        """Record the doubtful gaps that nobody has filled in time, as far as they are still there."""
        doubtful = self._doubtful
        while doubtful and (self.living < 2 or recv_ns >= doubtful[0][1]):
            found, _ = doubtful.popleft()
            assert found.from_id is not None
            assert found.to_id is not None
            for low, high in self.sequence.missing_between(found.from_id, found.to_id):
                self._record(msgspec.structs.replace(found, from_id=low, to_id=high), seq)

    def _record(self, found: StreamBreak, seq: int) -> None:
        assert found.from_id is not None
        assert found.to_id is not None
        self.stats.gaps += 1
        self._breaks.add(found, seq)
        self._events.append(TradesWanted(self.symbol, found.from_id, found.to_id))
