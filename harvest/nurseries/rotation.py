"""Rotation: seals the column buffers by the clock, and moves what is sealed to the writer."""

from __future__ import annotations

import time
from collections import Counter, deque
from typing import TYPE_CHECKING, NamedTuple

import trio

from harvest.log import get_logger
from harvest.nurseries.writer import Unwritten

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from harvest.nurseries.writer import Writer
    from harvest.settings import RotationSettings
    from harvest.storage.tables import Sealed, Table, Tables

#: How often full buffers are moved to the writer, and the threshold is looked at, between two rotations.
WAKE_S = 1.0
#: A rotation of many symbols is more than the writer's queue holds; that is worth a line when it takes so long.
LATE_S = 10.0
#: Extreme traffic ends when the rows of a normal interval would stay below this part of the threshold,
CALM_SHARE = 0.7
#: at so many rotations running. (At the threshold itself, the mode would go to and fro.)
CALM_ROTATIONS = 2


#: A buffer of few rows waits no longer than this for more.
LONGEST_WAIT_NS = 3_600 * 10**9
_DAY_NS = 86_400 * 10**9


def is_due(table: Table, now_ns: int, min_rows: int) -> bool:
    """Tell whether a buffer is to be sealed: if it has ``min_rows``, an hour has passed since its first row, or its date is over."""
    if not table.count:
        return False
    first_recv_ns = table.marks[2]
    return (
        table.count >= min_rows or now_ns - first_recv_ns >= LONGEST_WAIT_NS or table.day < now_ns // _DAY_NS
    )


class ExtremeTraffic:
    """Decides when to rotate at the shorter interval. Pure: it knows rows, not clocks."""

    def __init__(self, *, threshold_rows: int, rotate_s: float, extreme_rotate_s: float) -> None:
        self._threshold_rows = threshold_rows
        self._rotate_s = rotate_s
        self._extreme_rotate_s = extreme_rotate_s
        self._calm_rotations = 0
        self.active = False

    @property
    def interval_s(self) -> float:
        """Seconds from one rotation to the next."""
        return self._extreme_rotate_s if self.active else self._rotate_s

    def observe(self, max_prices_rows: int) -> bool:
        """Look at the fullest ``prices`` buffer, at any time; returns True if extreme traffic begins by it."""
        if self.active or max_prices_rows < self._threshold_rows:
            return False
        self.active = True
        self._calm_rotations = 0
        return True

    def rotated(self, max_prices_rows: int) -> bool:
        """Look at what the fullest ``prices`` buffer held at a rotation; returns True if extreme traffic ends by it."""
        if not self.active:
            return False
        in_normal_interval = max_prices_rows * self._rotate_s / self._extreme_rotate_s
        is_calm = in_normal_interval < CALM_SHARE * self._threshold_rows
        self._calm_rotations = self._calm_rotations + 1 if is_calm else 0
        if self._calm_rotations < CALM_ROTATIONS:
            return False
        self.active = False
        return True


class FeedAges(NamedTuple):
    """What the line of a rotation says of a symbol besides its buffers. Ages are in seconds, None if never."""

    trade_age_s: float | None
    orderbook_age_s: float | None
    reconnects: int


class Rotation:
    """Seals ``tables`` every ``rotate_s`` seconds, or ``extreme_rotate_s`` in extreme traffic.

    It runs between two records, as every task does: the pipeline never awaits. ``stamps(symbol)`` gives what the line
    of each rotation tells; there is one for each of ``symbols()`` and of those that have buffers. What the writer
    refuses waits here, and goes first next time; it is bounded by whoever bounds the buffers (see ``overflow_bytes``). Open
    buffers of more than ``max_open_bytes`` are sealed within a second.
    """

    def __init__(
        self,
        *,
        tables: Tables,
        writer: Writer,
        settings: RotationSettings,
        symbols: Callable[[], Iterable[str]],
        stamps: Callable[[str], FeedAges],
        max_open_bytes: float = float("inf"),
    ) -> None:
        self.extreme = ExtremeTraffic(
            threshold_rows=settings.extreme_threshold_rows,
            rotate_s=settings.rotate_s,
            extreme_rotate_s=settings.extreme_rotate_s,
        )
        #: Above 0 only where a journal holds what waits (the settings see to it).
        self._min_rows = settings.min_rows_per_file
        self._tables = tables
        self._writer = writer
        self._symbols = symbols
        self._stamps = stamps
        self._max_open_bytes = max_open_bytes
        #: Rotations that came before their time, for the buffers took too much memory.
        self.early = 0
        self._overflow: deque[Sealed] = deque()
        self._overflow_since: float | None = None
        self._overflow_is_late = False
        #: Rows of ``prices`` that were sealed since the last rotation, because their buffer was full; by symbol.
        self._sealed_early: Counter[str] = Counter()
        self._log = get_logger("ROTATE")
        self._extreme_log = get_logger("EXTREME_TRAFFIC")
        self._overload_log = get_logger("OVERLOAD")

    async def run(self) -> None:
        """Rotate until cancelled; the buffers keep what was not sealed by then (see ``drain``)."""
        rotated_at = trio.current_time()
        while True:
            due_at = rotated_at + self.extreme.interval_s
            await self._move_until(min(due_at, trio.current_time() + WAKE_S))
            self._move()
            self._judge_overflow()
            self._relieve()
            most = self._max_prices_rows()
            if self.extreme.observe(most):
                self._extreme_log.warning(
                    f"enter: max_prices_buffer={most}, rotating every {self.extreme.interval_s:g}s",
                    max_prices_buffer=most,
                    interval_s=self.extreme.interval_s,
                )
            now = trio.current_time()
            if now >= rotated_at + self.extreme.interval_s:
                self.rotate()
                rotated_at = now

    def _relieve(self) -> None:
        """Seal every buffer before its time if they take too much memory: a file is many times smaller."""
        size = self._tables.size_bytes
        if size <= self._max_open_bytes:
            return
        self.early += 1
        self._overload_log.warning(
            f"the open buffers hold {size / 2**20:,.0f} MiB: sealed before their time ({self.early:,} times so far)",
            bytes=size,
        )
        self._tables.seal_all()
        self._move()

    def rotate(self) -> None:
        """Seal every buffer that is due, which all are unless small ones may wait, and move it to the writer, now."""
        most = self._max_prices_rows()
        self._log_buffers()
        now_ns = time.time_ns()
        for table in self._tables:
            if is_due(table, now_ns, self._min_rows):
                self._tables.seal(table)
        self._move()
        self._sealed_early.clear()
        if self.extreme.rotated(most):
            self._extreme_log.warning(
                f"exit: max_prices_buffer={most}, rotating every {self.extreme.interval_s:g}s",
                max_prices_buffer=most,
                interval_s=self.extreme.interval_s,
            )

    async def drain(self) -> None:
        """Seal every buffer and give all of it to the writer, waiting for room; call it when the intake has ended.

        Cancelled, it has lost nothing: ``unwritten`` names what is still here.
        """
        self._tables.seal_all()
        self._overflow.extend(self._tables.take_sealed())
        while self._overflow:
            await self._writer.submit(self._overflow[0])
            self._overflow.popleft()

    @property
    def overflow_bytes(self) -> int:
        """Memory of the tables that the writer has refused so far."""
        return sum(sealed.size_bytes for sealed in self._overflow)

    def unwritten(self) -> list[Unwritten]:
        """Name the sealed tables that the writer has not taken."""
        return [Unwritten.of(sealed) for sealed in self._overflow]

    async def _move_until(self, at: float) -> None:
        """Move what waits as the writer gets room, until the clock says ``at``."""
        with trio.move_on_at(at):
            while self._overflow:
                await self._writer.wait_for_room()
                self._move()
            await trio.sleep_forever()

    def _move(self) -> None:
        """Move what is sealed to the writer, oldest first, as far as it takes it."""
        sealed = self._tables.take_sealed()
        for table in sealed:
            if table.kind.name == "prices":
                self._sealed_early[table.symbol] += table.count
        self._overflow.extend(sealed)
        while self._overflow and self._writer.submit_nowait(self._overflow[0]):
            self._overflow.popleft()

    def _judge_overflow(self) -> None:
        now = trio.current_time()
        if not self._overflow:
            if self._overflow_is_late:
                self._log.info("the writer has caught up")
            self._overflow_since, self._overflow_is_late = None, False
        elif self._overflow_since is None:
            self._overflow_since = now
        elif not self._overflow_is_late and now - self._overflow_since >= LATE_S:
            self._overflow_is_late = True
            self._log.warning(
                f"the writer does not keep up: {len(self._overflow)} sealed buffers wait in memory for its queue",
                waiting_tables=len(self._overflow),
                waiting_bytes=self.overflow_bytes,
            )

    def _max_prices_rows(self) -> int:
        """Return the rows that the busiest symbol's trades made since the last rotation."""
        rows = Counter(self._sealed_early)
        for table in self._tables:
            if table.kind.name == "prices":
                rows[table.symbol] += table.count
        return max(rows.values(), default=0)

    def _log_buffers(self) -> None:
        buffers: dict[str, dict[str, int]] = {symbol: {} for symbol in self._symbols()}
        for table in self._tables:
            if not table.count and table.symbol not in buffers:
                continue
            of_symbol = buffers.setdefault(table.symbol, {})
            of_symbol[table.kind.name] = of_symbol.get(table.kind.name, 0) + table.count
        mode = "EXTREME" if self.extreme.active else "NORMAL"
        for symbol, of_symbol in buffers.items():
            ages = self._stamps(symbol)
            self._log.info(
                f"{symbol}: trade_delta={_age(ages.trade_age_s)}, ob_delta={_age(ages.orderbook_age_s)}, "
                f"buffers={of_symbol}, reconnect_count={ages.reconnects}, mode={mode}",
                symbol=symbol,
                trade_delta_s=ages.trade_age_s,
                ob_delta_s=ages.orderbook_age_s,
                buffers=of_symbol,
                reconnect_count=ages.reconnects,
                mode=mode,
            )


def _age(age_s: float | None) -> str:
    return "never" if age_s is None else f"{age_s:.1f}s"
