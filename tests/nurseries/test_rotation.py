from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs
import structlog
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from harvest.nurseries.rotation import LONGEST_WAIT_NS, ExtremeTraffic, FeedAges, Rotation, is_due
from harvest.nurseries.writer import Unwritten
from harvest.storage.kinds import DEPTH, OFI, PRICES
from harvest.storage.tables import Sealed, Tables
from tests.storage.rows import DAY, MIDNIGHT_US, sealed_sums

if TYPE_CHECKING:
    from harvest.storage.kinds import Kind


@attrs.frozen
class Settings:
    rotate_s: float = 60.0
    extreme_rotate_s: float = 30.0
    extreme_threshold_rows: int = 100
    min_rows_per_file: int = 0


class Taker:
    """Stands for the writer: takes tables while there is room, and notes when."""

    def __init__(self, room: float = float("inf")) -> None:
        self.room = room
        self._opened = trio.Event()
        self.taken: list[tuple[float, Sealed]] = []

    def submit_nowait(self, sealed: Sealed) -> bool:
        if self.room < 1:
            return False
        self.room -= 1
        self.taken.append((trio.current_time(), sealed))
        return True

    async def submit(self, sealed: Sealed) -> None:
        await trio.lowlevel.checkpoint()
        while not self.submit_nowait(sealed):
            await self.wait_for_room()

    async def wait_for_room(self) -> None:
        await trio.lowlevel.checkpoint()
        if self.room < 1:
            await self._opened.wait()

    def open(self, room: float) -> None:
        self.room = room
        self._opened.set()
        self._opened = trio.Event()

    @property
    def rows(self) -> list[tuple[float, str, int]]:
        return [(at, sealed.kind.name, sealed.count) for at, sealed in self.taken]


class Bench:
    def __init__(
        self,
        *,
        max_rows: int = 10_000,
        room: float = float("inf"),
        max_open_bytes: float = float("inf"),
        **settings: Any,
    ) -> None:
        self.tables = Tables(max_rows=max_rows)
        self.taker = Taker(room)
        self.seq = 0
        self.ages = FeedAges(45.2, 12.125, 2)
        self.rotation = Rotation(
            tables=self.tables,
            writer=self.taker,  # type: ignore[arg-type]
            settings=Settings(**settings),  # type: ignore[arg-type]
            symbols=lambda: ("BTCUSDT",),
            stamps=lambda _symbol: self.ages,
            max_open_bytes=max_open_bytes,
        )

    def add(self, count: int, *, symbol: str = "BTCUSDT", day: int = DAY, kind: Kind = PRICES) -> None:
        table = self.tables.table(kind, symbol, day)
        zeros = (0,) * (len(kind.dtype.names or ()) - 1)
        for _ in range(count):
            self.seq += 1
            table.mark(self.seq, 1, 0)
            table.rows += kind.packer.pack(MIDNIGHT_US, *zeros)
            table.count += 1

    def events(self, logs: list[Any], tag: str) -> list[str]:
        return [line["event"] for line in logs if line["tag"] == tag]


def traffic(**settings: Any) -> ExtremeTraffic:
    return ExtremeTraffic(**{"threshold_rows": 100, "rotate_s": 60.0, "extreme_rotate_s": 30.0, **settings})


def test_extreme_traffic_begins_at_the_threshold() -> None:
    extreme = traffic()
    assert not extreme.observe(99)
    assert (extreme.active, extreme.interval_s) == (False, 60.0)
    assert extreme.observe(100)
    assert (extreme.active, extreme.interval_s) == (True, 30.0)
    assert not extreme.observe(5000), "it has begun already"


def test_extreme_traffic_ends_after_two_calm_rotations_running() -> None:
    extreme = traffic()
    extreme.observe(100)
    # 34 rows in 30 s are 68 in 60 s, below 70; 35 are not.
    assert [extreme.rotated(rows) for rows in (34, 35, 34, 34)] == [False, False, False, True]
    assert extreme.interval_s == 60.0


def test_calm_rotations_before_extreme_traffic_do_not_count() -> None:
    extreme = traffic()
    assert not extreme.rotated(0)
    assert not extreme.rotated(0)
    extreme.observe(100)
    assert not extreme.rotated(0)
    assert extreme.rotated(0)
    extreme.observe(100)
    assert not extreme.rotated(0), "the count begins anew with each mode"


@given(
    rate=st.floats(0.1, 1000),
    rotate_s=st.floats(10, 600),
    share=st.floats(0.1, 0.9),
    threshold=st.integers(10, 10**6),
)
def test_a_constant_rate_never_makes_it_oscillate(
    rate: float, rotate_s: float, share: float, threshold: int
) -> None:
    extreme = traffic(threshold_rows=threshold, rotate_s=rotate_s, extreme_rotate_s=rotate_s * share)
    changes = 0
    for _ in range(12):
        rows = int(rate * extreme.interval_s)
        changes += extreme.observe(rows)
        changes += extreme.rotated(rows)
    assert changes <= 1


async def test_buffers_are_sealed_at_exact_intervals(autojump_clock: trio.testing.MockClock) -> None:
    bench = Bench()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bench.rotation.run)
        begun = trio.current_time()
        await trio.sleep(0.25)
        for _ in range(4):
            bench.add(3)
            bench.add(2, kind=DEPTH)
            await trio.sleep(59.5)
            bench.add(1)
            await trio.sleep(0.5)
        nursery.cancel_scope.cancel()
    assert [(at - begun, kind, count) for at, kind, count in bench.taker.rows] == [
        (at, kind, count) for at in (60, 120, 180, 240) for kind, count in (("prices", 4), ("depth", 2))
    ]


async def test_buffers_that_are_full_reach_the_writer_within_a_second(
    autojump_clock: trio.testing.MockClock,
) -> None:
    bench = Bench(max_rows=10)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bench.rotation.run)
        begun = trio.current_time()
        await trio.sleep(20.5)
        bench.add(25)
        await trio.sleep(10)
        nursery.cancel_scope.cancel()
    assert [(at - begun, count) for at, _, count in bench.taker.rows] == [(21, 10), (21, 10)]


async def test_each_rotation_writes_a_line_a_symbol_of_what_was_buffered(
    autojump_clock: trio.testing.MockClock,
) -> None:
    bench = Bench()
    with structlog.testing.capture_logs() as logs:
        bench.add(150)
        bench.add(1, day=DAY + 1)
        bench.add(80, kind=OFI)
        bench.add(7, symbol="ETHUSDT")
        bench.rotation.rotate()
        bench.ages = FeedAges(None, None, 0)
        bench.rotation.rotate()
    assert bench.events(logs, "ROTATE") == [
        "BTCUSDT: trade_delta=45.2s, ob_delta=12.1s, buffers={'prices': 151, 'ofi': 80}, "
        "reconnect_count=2, mode=NORMAL",
        "ETHUSDT: trade_delta=45.2s, ob_delta=12.1s, buffers={'prices': 7}, reconnect_count=2, mode=NORMAL",
        "BTCUSDT: trade_delta=never, ob_delta=never, buffers={'prices': 0, 'ofi': 0}, reconnect_count=0, mode=NORMAL",
        # ETHUSDT is none of the symbols that are recorded: without rows there is nothing to say of it.
    ]
    assert logs[0]["symbol"] == "BTCUSDT"
    assert logs[0]["buffers"] == {"prices": 151, "ofi": 80}
    assert logs[0]["mode"] == "NORMAL"


async def test_a_symbol_that_never_brought_anything_has_its_line_too() -> None:
    bench = Bench()
    bench.ages = FeedAges(None, None, 5)
    with structlog.testing.capture_logs() as logs:
        bench.rotation.rotate()
    assert bench.events(logs, "ROTATE") == [
        "BTCUSDT: trade_delta=never, ob_delta=never, buffers={}, reconnect_count=5, mode=NORMAL"
    ]


async def test_entering_extreme_traffic_takes_effect_at_once(autojump_clock: trio.testing.MockClock) -> None:
    bench = Bench()
    with structlog.testing.capture_logs() as logs:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(bench.rotation.run)
            begun = trio.current_time()
            await trio.sleep(44.5)
            bench.add(120)
            await trio.sleep(10)
            bench.add(40)
            await trio.sleep(60)
            nursery.cancel_scope.cancel()
    # Seen at 45 s, when 30 s had long passed; then every 30 s.
    assert [(at - begun, count) for at, _, count in bench.taker.rows] == [(45, 120), (75, 40)]
    assert bench.events(logs, "EXTREME_TRAFFIC") == ["enter: max_prices_buffer=120, rotating every 30s"]
    modes = [line["mode"] for line in logs if line["tag"] == "ROTATE"]
    assert modes == ["EXTREME"] * 3


async def test_entering_early_in_an_interval_rotates_when_the_short_one_ends(
    autojump_clock: trio.testing.MockClock,
) -> None:
    bench = Bench()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bench.rotation.run)
        begun = trio.current_time()
        bench.add(100)
        await trio.sleep(31)
        nursery.cancel_scope.cancel()
    assert [(at - begun, count) for at, _, count in bench.taker.rows] == [(30, 100)]


async def test_leaving_extreme_traffic_returns_to_the_normal_interval(
    autojump_clock: trio.testing.MockClock,
) -> None:
    bench = Bench()
    with structlog.testing.capture_logs() as logs:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(bench.rotation.run)
            begun = trio.current_time()
            bench.add(100)
            for _ in range(4):
                await trio.sleep(30.5)
                bench.add(10)
            await trio.sleep(40)
            nursery.cancel_scope.cancel()
    assert [at - begun for at, _, _ in bench.taker.rows] == [30, 60, 90, 150]
    assert bench.events(logs, "EXTREME_TRAFFIC") == [
        "enter: max_prices_buffer=100, rotating every 30s",
        "exit: max_prices_buffer=10, rotating every 60s",
    ]


async def test_rows_that_were_sealed_early_count_for_the_threshold(
    autojump_clock: trio.testing.MockClock,
) -> None:
    bench = Bench(max_rows=60)
    with structlog.testing.capture_logs() as logs:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(bench.rotation.run)
            for _ in range(3):
                bench.add(50)
                await trio.sleep(2)
            nursery.cancel_scope.cancel()
    assert bench.events(logs, "EXTREME_TRAFFIC") == ["enter: max_prices_buffer=100, rotating every 30s"]


async def test_only_the_trades_of_one_symbol_count_for_the_threshold(
    autojump_clock: trio.testing.MockClock,
) -> None:
    bench = Bench()
    bench.add(99, symbol="A")
    bench.add(99, symbol="B")
    bench.add(500, kind=OFI)
    with trio.move_on_after(61):
        await bench.rotation.run()
    assert not bench.rotation.extreme.active
    assert len(bench.taker.taken) == 3


async def test_what_the_writer_refuses_goes_first_as_soon_as_there_is_room(
    autojump_clock: trio.testing.MockClock,
) -> None:
    bench = Bench(room=1)
    with structlog.testing.capture_logs() as logs:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(bench.rotation.run)
            begun = trio.current_time()
            bench.add(1)
            bench.add(2, symbol="ETHUSDT")
            bench.add(3, kind=OFI)
            await trio.sleep(60.125)
            assert len(bench.taker.taken) == 1
            assert bench.rotation.overflow_bytes > 0
            assert [(rows.kind, rows.symbol) for rows in bench.rotation.unwritten()] == [
                ("prices", "ETHUSDT"),
                ("ofi", "BTCUSDT"),
            ]
            bench.taker.open(1)
            bench.add(4)
            await trio.sleep(65)
            bench.taker.open(10)
            await trio.sleep(2)
            nursery.cancel_scope.cancel()
    assert [(at - begun, count) for at, _, count in bench.taker.rows] == [
        (60, 1),
        (60.125, 2),
        (125.125, 3),
        (125.125, 4),
    ]
    assert bench.rotation.overflow_bytes == 0
    overflow = [line for line in logs if line["tag"] == "ROTATE" and "mode" not in line]
    assert [line["event"] for line in overflow] == [
        "the writer does not keep up: 1 sealed buffers wait in memory for its queue",
        "the writer has caught up",
    ]


async def test_more_tables_than_the_queue_holds_are_no_news_if_it_drains_soon(
    autojump_clock: trio.testing.MockClock,
) -> None:
    bench = Bench(room=1)
    with structlog.testing.capture_logs() as logs:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(bench.rotation.run)
            for symbol in range(20):
                bench.add(1, symbol=str(symbol))
            await trio.sleep(60.1)
            for _ in range(19):
                bench.taker.open(1)
                await trio.sleep(0.25)
            nursery.cancel_scope.cancel()
    assert len(bench.taker.taken) == 20
    assert not [line for line in logs if "mode" not in line]


async def test_draining_gives_everything_to_the_writer_and_waits_for_room(
    autojump_clock: trio.testing.MockClock,
) -> None:
    bench = Bench(room=1)
    bench.add(1)
    bench.add(2, symbol="ETHUSDT")
    bench.rotation.rotate()
    bench.add(3)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bench.rotation.drain)
        await trio.sleep(5)
        assert [rows.rows for rows in bench.rotation.unwritten()] == [2, 3]
        bench.taker.open(10)
    assert [count for _, _, count in bench.taker.rows] == [1, 2, 3]
    assert bench.rotation.unwritten() == []
    assert not any(table.count for table in bench.tables)


async def test_a_cancelled_drain_names_what_it_still_holds(autojump_clock: trio.testing.MockClock) -> None:
    bench = Bench(room=0)
    bench.add(3)
    with trio.move_on_after(10):
        await bench.rotation.drain()
    assert bench.rotation.unwritten() == [Unwritten("prices", "BTCUSDT", 3, 1, 3)]


async def test_rows_derived_at_the_seal_go_the_same_way() -> None:
    bench = Bench()
    derived = sealed_sums([1.0])
    bench.tables = Tables(max_rows=100, derive=lambda sealed: [derived] if sealed.kind is PRICES else [])
    bench.rotation._tables = bench.tables
    bench.add(1)
    bench.rotation.rotate()
    assert [sealed.kind.name for _, sealed in bench.taker.taken] == ["prices", "cvd"]


async def test_a_loop_that_stood_still_rotates_once_not_many_times(
    mock_clock: trio.testing.MockClock,
) -> None:
    bench = Bench()
    with structlog.testing.capture_logs() as logs:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(bench.rotation.run)
            await trio.testing.wait_all_tasks_blocked()
            mock_clock.jump(600)
            await trio.testing.wait_all_tasks_blocked()
            assert len(bench.events(logs, "ROTATE")) == 1
            mock_clock.jump(59)
            await trio.testing.wait_all_tasks_blocked()
            assert len(bench.events(logs, "ROTATE")) == 1
            mock_clock.jump(1)
            await trio.testing.wait_all_tasks_blocked()
            assert len(bench.events(logs, "ROTATE")) == 2
            nursery.cancel_scope.cancel()


def test_a_small_buffer_waits_until_it_is_large_enough_an_hour_old_or_its_date_is_over() -> None:
    tables = Tables(max_rows=10**9)
    table = tables.table(PRICES, "BTCUSDT", DAY)
    now_ns = MIDNIGHT_US * 1000 + 7
    assert not is_due(table, now_ns, 0)
    for number in range(3):
        table.mark(number + 1, now_ns + number, 0)
        table.rows += PRICES.packer.pack(MIDNIGHT_US, MIDNIGHT_US, number, 1.0, 1.0, 0, 255)
        table.count += 1
    assert is_due(table, now_ns, 0)
    assert is_due(table, now_ns, 3)
    assert not is_due(table, now_ns + LONGEST_WAIT_NS - 1, 4)
    assert is_due(table, now_ns + LONGEST_WAIT_NS, 4)
    assert is_due(table, (DAY + 1) * 86_400 * 10**9, 4)


async def test_buffers_that_take_too_much_memory_are_sealed_before_their_time(
    autojump_clock: trio.testing.MockClock,
) -> None:
    bench = Bench(max_open_bytes=10_000)
    with structlog.testing.capture_logs() as logs:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(bench.rotation.run)
            await trio.sleep(1.5)
            bench.add(50)
            await trio.sleep(10)
            assert bench.taker.rows == []
            bench.add(200)
            await trio.sleep(1)
            assert [(kind, count) for _, kind, count in bench.taker.rows] == [("prices", 250)]
            assert bench.rotation.early == 1
            nursery.cancel_scope.cancel()
    (event,) = bench.events(logs, "OVERLOAD")
    assert "sealed before their time (1 times so far)" in event
