"""The live table: drawn into text, with a clock of our own."""

from __future__ import annotations

import io
import re
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import trio
from rich.console import Console

from harvest.metrics import ConnectionStats, FeedStats, Metrics
from harvest.nurseries.display import MAX_ROWS, RATE_WINDOW_S, REFRESH_S, Display, Rates

if TYPE_CHECKING:
    from harvest.market import Feed

HEALTH = SimpleNamespace(trade_timeout_s=150.0, orderbook_timeout_s=180.0)
BLUE, RED, YELLOW, GREEN = "34", "31", "33", "32"


class Bench:
    """A display over metrics that are made by hand; ``now_s`` is its clock."""

    def __init__(self, *symbols: str) -> None:
        self.now_s = 1000.0
        self.metrics = Metrics()
        self.waiting: dict[str, dict[str, int]] = {}
        self.lines = ["mode NORMAL, rotating every 60s", "in memory: 1.5 MiB   free disk: 12.3 GiB"]
        status: Any = SimpleNamespace(
            metrics=self.metrics, buffered_rows=lambda: self.waiting, lines=lambda: self.lines
        )
        self.console = Console(file=io.StringIO(), force_terminal=True, width=200, height=100)
        health: Any = HEALTH
        self.display = Display(
            self.console,
            title="harvest binance-usdm  run 20261128",
            status=status,
            health=health,
            clock_ns=lambda: round(self.now_s * 1e9),
        )
        for symbol in symbols:
            self.add("trade", symbol)
            self.add("orderbook", symbol)

    def add(self, feed: Feed, symbol: str, *, age_s: float | None = 0.0, **facts: Any) -> FeedStats:
        stats = self.metrics.feed(feed, symbol)
        stats.last_mono_ns = None if age_s is None else round((self.now_s - age_s) * 1e9)
        stats.in_sync = feed == "orderbook"
        for name, value in facts.items():
            setattr(stats, name, value)
        return stats

    def connect(self, name: str, feed: Feed, *symbols: str, **facts: Any) -> None:
        self.metrics.connections[name] = ConnectionStats(name, feed, symbols, **facts)

    def text(self, *, width: int = 200, styles: bool = False) -> str:
        console = Console(record=True, width=width, height=100, file=io.StringIO(), force_terminal=True)
        console.print(self.display.render())
        return console.export_text(styles=styles)

    def row(self, symbol: str, feed: str, *, styles: bool = False) -> str:
        (row,) = [
            line
            for line in self.text(styles=styles).splitlines()
            if symbol in line and re.search(rf"[\s│]{feed}[\s│]", re.sub(r"\x1b\[[0-9;]*m", "", line))
        ]
        return row

    def cells(self, symbol: str, feed: str) -> list[str]:
        return [cell.strip() for cell in self.row(symbol, feed).strip("│").split("│")]


def test_a_row_says_everything_of_a_feed():
    bench = Bench("BTCUSDT")
    bench.add("trade", "BTCUSDT", age_s=1.25, stored=12345, gaps=2, missing_ids=7, duplicates=3)
    bench.connect("trade-1", "trade", "BTCUSDT", state="receiving", reconnects=4)
    bench.waiting = {"BTCUSDT": {"prices": 321, "cvd": 321, "depth": 40, "orderbook": 30, "ofi": 29}}
    assert bench.cells("BTCUSDT", "trades") == [
        *("BTCUSDT", "trades", "0.0", "1.2s", "12,345", "321", "2", "7", "3", "4", "receiving"),
    ]
    assert bench.cells("BTCUSDT", "book")[5] == "99"


def test_title_and_the_lines_of_the_status_are_there():
    bench = Bench("BTCUSDT", "牛来USDT")
    text = bench.text()
    assert "harvest binance-usdm  run 20261128" in text
    assert "rotating every 60s" in text
    assert "free disk: 12.3 GiB" in text
    assert "牛来USDT" in text


def test_a_feed_that_never_came_has_no_age_and_no_book_is_suspect_before_its_first_diff():
    bench = Bench()
    bench.add("orderbook", "BTCUSDT", age_s=None, in_sync=False)
    cells = bench.cells("BTCUSDT", "book")
    assert cells[3] == "–"
    assert "suspect" not in cells[-1]


@pytest.mark.parametrize(
    ("resyncs", "words"), [(0, "suspect: no snapshot yet"), (3, "suspect: resynchronising")]
)
def test_a_book_that_is_not_in_sync_says_so_instead_of_the_state(resyncs, words):
    bench = Bench()
    bench.connect("orderbook-1", "orderbook", "BTCUSDT", state="receiving")
    bench.add("orderbook", "BTCUSDT", stored=10, in_sync=False, resyncs=resyncs)
    assert bench.cells("BTCUSDT", "book")[-1] == words
    assert f"\x1b[{YELLOW}m{words}" in bench.row("BTCUSDT", "book", styles=True)


@pytest.mark.parametrize(
    ("age_s", "colour"), [(10.0, None), (74.0, None), (76.0, YELLOW), (149.0, YELLOW), (151.0, RED)]
)
def test_an_age_is_coloured_from_half_its_own_limit_on(age_s, colour):
    bench = Bench()
    bench.add("trade", "BTCUSDT", age_s=age_s)
    row = bench.row("BTCUSDT", "trades", styles=True)
    codes = re.findall(rf"\x1b\[(\d+)m{age_s:.1f}s", row)
    assert codes == ([] if colour is None else [colour])


def test_the_state_of_several_sockets_tells_of_each_that_differs():
    bench = Bench("BTCUSDT")
    bench.connect("trade-1a", "trade", "BTCUSDT", state="receiving", reconnects=1)
    bench.connect("trade-1b", "trade", "BTCUSDT", state="receiving", reconnects=2)
    assert bench.cells("BTCUSDT", "trades")[-2:] == ["3", "receiving"]
    bench.metrics.connections["trade-1b"].state = "waiting (disconnect)"
    assert bench.cells("BTCUSDT", "trades")[-1] == "receiving, waiting (disconnect)"
    bench.metrics.connections["trade-1a"].state = "waiting (disconnect)"
    assert bench.cells("BTCUSDT", "trades")[-1] == "waiting (disconnect)"
    # A connection of the other feed, or of another symbol, is none of it.
    bench.connect("orderbook-1", "orderbook", "BTCUSDT", state="open")
    bench.connect("trade-2", "trade", "ETHUSDT", state="open")
    assert bench.cells("BTCUSDT", "trades")[-1] == "waiting (disconnect)"
    assert bench.cells("BTCUSDT", "book")[-1] == "open"


def test_symbols_are_drawn_as_they_are_whatever_they_look_like_to_a_markup():
    bench = Bench("[red]BTC[/red]")
    assert "[red]BTC[/red]" in bench.text()


def test_a_hundred_feeds_are_cut_with_a_count_and_those_with_trouble_come_first():
    bench = Bench(*[f"S{number:02}USDT" for number in range(50)])
    bench.add("trade", "S49USDT", gaps=1)
    bench.add("orderbook", "S48USDT", age_s=None)
    bench.add("trade", "S47USDT", age_s=100.0)
    bench.add("orderbook", "S46USDT", stored=5, in_sync=False)
    text = bench.text()
    assert len(re.findall(r"S\d\dUSDT", text)) == MAX_ROWS
    rows = [line for line in text.splitlines() if re.search(r"S\d\dUSDT", line)]
    assert [re.search(r"S\d\dUSDT", row)[0] for row in rows[:5]] == [
        *("S46USDT", "S47USDT", "S48USDT", "S49USDT", "S00USDT"),
    ]
    assert f"… and {100 - MAX_ROWS} more feeds without trouble" in text


def test_what_is_cut_is_never_called_without_trouble_where_it_has_some():
    bench = Bench(*[f"S{number:02}USDT" for number in range(30)])
    for stats in bench.metrics.feeds.values():
        stats.gaps = 1
    assert f"… and {60 - MAX_ROWS} more feeds, {60 - MAX_ROWS} of them with trouble" in bench.text()
    for stats in list(bench.metrics.feeds.values())[:15]:
        stats.gaps = 0
    assert f"… and {60 - MAX_ROWS} more feeds, 5 of them with trouble" in bench.text()


def test_exactly_a_screenful_is_not_cut():
    bench = Bench(*[f"S{number:02}USDT" for number in range(MAX_ROWS // 2)])
    text = bench.text()
    assert len(re.findall(r"S\d\dUSDT", text)) == MAX_ROWS
    assert "more feeds" not in text


@pytest.mark.parametrize("width", [20, 40, 80, 300])
def test_it_can_be_drawn_at_any_width(width):
    bench = Bench("BTCUSDT", "牛来USDT")
    bench.connect("trade-1", "trade", "BTCUSDT", state="waiting (disconnect)")
    assert max(map(len, bench.text(width=width).splitlines())) <= width


def test_without_any_feed_there_is_a_table_still():
    assert "symbol" in Bench().text()


def test_rates_are_over_the_window_and_not_over_the_run():
    metrics = Metrics()
    stats = metrics.feed("trade", "BTCUSDT")
    now_s = 0.0
    rates = Rates(metrics, lambda: round(now_s * 1e9))
    assert rates.per_second(stats) == 0.0
    rates.sample()
    assert rates.per_second(stats) == 0.0
    for _ in range(100):
        now_s += REFRESH_S
        stats.stored += 50
        rates.sample()
    assert rates.per_second(stats) == pytest.approx(50 / REFRESH_S)
    for _ in range(round(RATE_WINDOW_S / REFRESH_S)):
        now_s += REFRESH_S
        rates.sample()
    assert rates.per_second(stats) == 0.0


def test_a_feed_that_comes_later_has_a_rate_from_its_first_message_on():
    metrics = Metrics()
    now_s = 0.0
    rates = Rates(metrics, lambda: round(now_s * 1e9))
    rates.sample()
    now_s = 2.0
    stats = metrics.feed("orderbook", "NEWUSDT")
    stats.stored = 10
    rates.sample()
    assert rates.per_second(stats) == pytest.approx(5.0)
    assert rates.per_second(FeedStats("OTHER", "trade")) == 0.0


async def test_it_redraws_twice_a_second_and_leaves_the_terminal_as_it_was_when_cancelled(autojump_clock):
    bench = Bench("BTCUSDT")
    stats = bench.metrics.feed("trade", "BTCUSDT")
    drawn: list[float] = []
    render = bench.display.render

    def count() -> Any:
        drawn.append(trio.current_time())
        bench.now_s += REFRESH_S
        stats.stored += 10
        return render()

    bench.display.render = count  # type: ignore[method-assign]
    with trio.move_on_after(3.0 + REFRESH_S / 2):
        await bench.display.run()
    assert drawn == [number * REFRESH_S for number in range(7)]
    output = bench.console.file.getvalue()  # type: ignore[attr-defined]
    assert "BTCUSDT" in output
    assert "20.0" in output
    # The cursor, hidden while it draws, is back.
    assert output.rindex("\x1b[?25h") > output.rindex("\x1b[?25l")
