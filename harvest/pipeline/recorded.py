"""Which symbols are recorded, their series, and the series of those that are not any more."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harvest.pipeline.records import Closed
from harvest.storage.layout import is_storable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from harvest.market import Feed
    from harvest.metrics import Metrics
    from harvest.pipeline.orderbook import BookSeries
    from harvest.pipeline.records import Opened, Overload, Resumed, Symbols
    from harvest.pipeline.trades import TradeSeries


class RecordedSymbols:
    """The symbols of a pipeline as they are now, None are all that can be stored; and what each has of trades and book.

    The series of a removed symbol is kept aside: one that comes again goes on from its last id as after any gap, and what
    lies between is downtime.
    """

    def __init__(
        self,
        symbols: Iterable[str] | None,
        metrics: Metrics,
        *,
        make_trades: Callable[[str], TradeSeries],
        make_book: Callable[[str], BookSeries],
    ) -> None:
        self.trades: dict[str, TradeSeries] = {}
        self.books: dict[str, BookSeries] = {}
        self._symbols = None if symbols is None else set(symbols)
        self._metrics = metrics
        self._make_trades = make_trades
        self._make_book = make_book
        self._aside: dict[str, tuple[TradeSeries | None, BookSeries | None]] = {}

    def accepts(self, symbol: str, messages: int = 1) -> bool:
        """Tell whether a symbol is recorded; the messages of one that is not are counted."""
        if (symbol in self._symbols) if self._symbols is not None else is_storable(symbol):
            return True
        self._metrics.unknown_symbols[symbol] += messages
        return False

    def include(self, symbol: str) -> None:
        """Let a symbol be recorded."""
        if self._symbols is not None:
            self._symbols.add(symbol)

    def exclude(self, symbol: str) -> None:
        """Let a symbol be recorded no more; its series are the caller's."""
        if self._symbols is not None:
            self._symbols.discard(symbol)

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing that a record could be for."""
        return not (self._symbols is None or self._symbols or self.trades or self.books or self._aside)

    def add_trades(self, symbol: str, messages: int = 1) -> TradeSeries | None:
        """Begin the trades of a symbol, of which so many have come; None if it is not recorded."""
        if not self.accepts(symbol, messages):
            return None
        series = self.trades[symbol] = self._make_trades(symbol)
        return series

    def add_book(self, symbol: str) -> BookSeries | None:
        """Begin the book of a symbol; None if it is not recorded."""
        if not self.accepts(symbol):
            return None
        series = self.books[symbol] = self._make_book(symbol)
        return series

    def resume_trades(self, symbol: str, last_id: int) -> None:
        """Go on after the greatest trade id of ``symbol`` that earlier runs stored."""
        series = self.trades.get(symbol) or self.add_trades(symbol)
        if series is not None:
            series.resume(last_id)

    def resume_late(self, record: Resumed) -> None:
        """Go on after what earlier runs stored, of the symbols that are recorded."""
        for symbol, last_id in record.last_trade_ids.items():
            if (series := self.trades.get(symbol)) is not None:
                series.resume_late(last_id, record.seq, record.recv_ns, wants_missing=record.wants_missing)
        for symbol, gaps in record.open_gaps.items():
            if (series := self.trades.get(symbol)) is not None:
                series.reopen(gaps)

    def trades_of(self, symbol: str) -> TradeSeries | None:
        """Return the trades of a symbol, of one that was removed too: gaps from before its removal may still be closed."""
        return self.trades.get(symbol) or self._aside.get(symbol, (None, None))[0]

    def of_feed(self, feed: Feed) -> Mapping[str, TradeSeries | BookSeries]:
        """Return the series of a feed."""
        return self.trades if feed == "trade" else self.books

    def interrupt(self, record: Closed | Overload) -> None:
        """Note why messages may be missing from here on."""
        reason = record.reason if isinstance(record, Closed) else "overload"
        if reason == "shutdown":
            # What comes after is another run's.
            reason = "downtime"
        every = self.of_feed(record.feed)
        for symbol in record.symbols:
            series = every.get(symbol)
            if series is not None:
                series.interrupt(reason)

    def count_living(self, record: Opened | Closed, change: int) -> None:
        """Count the connections that bring each symbol."""
        every = self.of_feed(record.feed)
        for symbol in record.symbols:
            series = every.get(symbol)
            if series is not None:
                series.living = max(series.living + change, 0)
                series.settle(record.seq, record.recv_ns)

    def change(self, record: Symbols) -> None:
        """Record other symbols from here on."""
        for symbol in record.removed:
            self._remove(symbol, record)
        for symbol, last_trade_id in record.added.items():
            if symbol not in self.trades:
                self._add(symbol, last_trade_id, record)

    def forget_tables(self) -> None:
        """Let go of the open tables: the next row looks them up anew."""
        aside = [series for both in self._aside.values() for series in both if series is not None]
        for series in (*self.trades.values(), *self.books.values(), *aside):
            series.forget_tables()

    def _remove(self, symbol: str, record: Symbols) -> None:
        trades, book = self.trades.pop(symbol, None), self.books.pop(symbol, None)
        self.exclude(symbol)
        self._metrics.set_aside(symbol)
        if trades is None and book is None:
            return
        self._aside[symbol] = trades, book
        if book is not None:
            book.audits.abandon("removed")
        for series in (trades, book):
            if series is not None:
                # Nobody fills its gaps any more.
                series.living = 0
                series.settle(record.seq, record.recv_ns)
                series.forget_tables()

    def _add(self, symbol: str, last_trade_id: int | None, record: Symbols) -> None:
        self.include(symbol)
        self._metrics.begin(symbol, record.recv_ns, record.mono_ns)
        trades, book = self._aside.pop(symbol, (None, None))
        for series in (trades, book):
            if series is not None:
                series.interrupt("downtime")
        if trades is not None:
            self.trades[symbol] = trades
        elif last_trade_id is not None:
            self.resume_trades(symbol, last_trade_id)
        else:
            self.add_trades(symbol)
        if book is not None:
            self.books[symbol] = book
        else:
            self.add_book(symbol)
