"""The state machine of a run that has died: its symbols go on from checkpoints, and its end is taken for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harvest.pipeline.checkpoint import decode_state, restore_book, restore_trades
from harvest.pipeline.machine import Pipeline

if TYPE_CHECKING:
    from harvest.pipeline.orderbook import BookSeries
    from harvest.pipeline.trades import TradeSeries


class RestoredPipeline(Pipeline):
    """A ``Pipeline`` that goes on where others were. Give it no symbols: each is recorded from its checkpoint on."""

    def restore(self, symbol: str, checkpoint: bytes) -> None:
        """Let ``symbol`` go on from what another machine had come to, whatever it was here.

        Both machines must have the same venue, levels, bound of pending diffs, and patience.

        Raises:
            CheckpointError: another version of harvest made it, in another form, or it is damaged.
        """
        state = decode_state(symbol, checkpoint)
        self._recorded.include(symbol)
        self._messages.id_space = self.id_space or state.id_space
        # What was there must not shine through where the state has nothing.
        self._trades.pop(symbol, None)
        self._books.pop(symbol, None)
        if state.trades is not None and (trades := self._recorded.add_trades(symbol)) is not None:
            restore_trades(trades, state.trades)
        if state.book is not None and (book := self._recorded.add_book(symbol)) is not None:
            restore_book(book, state.book)

    def release(self, symbol: str) -> None:
        """Record ``symbol`` no more: another machine goes on with it from here."""
        self._recorded.exclude(symbol)
        self._trades.pop(symbol, None)
        self._books.pop(symbol, None)

    @property
    def is_idle(self) -> bool:
        """Whether no record can make a row any more, as long as no symbol comes."""
        return self._recorded.is_empty

    def begins_alone(self, symbol: str) -> bool:
        """Tell whether nobody has said yet what trades of ``symbol`` earlier runs stored."""
        series = self._trades.get(symbol)
        return series is not None and series.sequence.begins_alone

    def end(self, seq: int, recv_ns: int) -> None:
        """Take the end of a run that could not say so itself: nobody is left to fill what is doubtful or held."""
        every: list[TradeSeries | BookSeries] = [*self._trades.values(), *self._books.values()]
        for series in every:
            series.living = 0
            series.settle(seq, recv_ns)
        self._events.clear()
