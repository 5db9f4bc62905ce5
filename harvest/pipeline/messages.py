"""The messages of a block, decoded, each to the series of its symbol: trades by the run, all others one by one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from harvest.errors import MalformedMessageError
from harvest.market import CHANNEL, CONTROL, DIFF, TRADE
from harvest.pipeline.events import Malformed
from harvest.pipeline.records import Frames
from harvest.venues.blocks import payloads
from harvest.venues.protocol import Acknowledgement, Refusal, ShutdownNotice

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from harvest.market import IdSpace, Trade
    from harvest.metrics import Metrics
    from harvest.pipeline.channels import Channels
    from harvest.pipeline.events import Event
    from harvest.pipeline.recorded import RecordedSymbols
    from harvest.pipeline.records import Body
    from harvest.venues.protocol import Control, Venue

_FOREIGN_TRADE = -1


class Messages:
    """Takes the records that hold messages; what it has to tell goes to ``events``."""

    def __init__(
        self,
        venue: Venue,
        recorded: RecordedSymbols,
        metrics: Metrics,
        events: list[Event],
        id_space: IdSpace | None,
    ) -> None:
        #: Which trade ids are recorded; the first trade decides where nobody has.
        self.id_space: IdSpace | None = id_space
        self._venue = venue
        self._recorded = recorded
        self._metrics = metrics
        self._events = events
        self._shapes: dict[type, int] = {}

    def take(self, record: Frames, channels: Channels) -> int:
        """Take the messages of a block, for each symbol in their order; returns how many hold market data."""
        seq, recv_ns, mono_ns = record.seq, record.recv_ns, record.mono_ns
        books, recorded, shapes = self._recorded.books, self._recorded, self._shapes
        heard = self._metrics.heard.setdefault(record.connection, {})
        #: Trades that wait for all of their block, or for what is none.
        runs: dict[str, list[Trade]] = {}
        data_messages = 0
        kind: type | None = None
        shape = 0
        for message in self._decoded(record):
            if type(message) is not kind:
                # Its ``shape`` says which it is; a cast would cost what an isinstance does.
                kind = type(message)
                shape = shapes[kind] if kind in shapes else self._shape_of(message)
            if shape == TRADE:
                run = runs.get(message.symbol)
                if run is None:
                    runs[message.symbol] = [message]
                else:
                    run.append(message)
                continue
            if runs:
                data_messages += self._take_trades(runs, record, heard)
                runs.clear()
            if shape == DIFF:
                book = books.get(message.symbol) or recorded.add_book(message.symbol)
                if book is not None:
                    data_messages += 1
                    heard[message.symbol] = mono_ns
                    book.take(message, seq, recv_ns, mono_ns)
            elif shape == CHANNEL:
                if channels.take(message, record.connection, seq, recv_ns, mono_ns):
                    data_messages += 1
                    heard[message.symbol] = mono_ns
            elif shape == CONTROL:
                self._take_control(message)
            else:
                self._metrics.other_events[f"{message.id_space} trade"] += 1
        return data_messages + self._take_trades(runs, record, heard)

    def _take_trades(self, runs: dict[str, list[Trade]], record: Frames, heard: dict[str, int]) -> int:
        known, count = self._recorded.trades, 0
        for symbol, run in runs.items():
            series = known.get(symbol) or self._recorded.add_trades(symbol, len(run))
            if series is not None:
                count += len(run)
                heard[symbol] = record.mono_ns
                series.take(run, record.seq, record.recv_ns, record.mono_ns)
        return count

    def take_malformed(self, error: MalformedMessageError, record: Frames | Body) -> None:
        """Let a message that could not be decoded be kept."""
        self._metrics.malformed += 1
        source = record.connection if isinstance(record, Frames) else "rest"
        self._events.append(Malformed(source, record.recv_ns, error.why, error.raw))

    def _decoded(self, record: Frames) -> Iterable[Any]:
        block = record.frames
        if isinstance(block, list):
            return self._decoded_one_by_one(record)
        messages = self._venue.decode_lines(block)
        return self._decoded_one_by_one(record) if messages is None else messages

    def _decoded_one_by_one(self, record: Frames) -> Iterator[Any]:
        decode = self._venue.decode
        for payload in payloads(record.frames):
            try:
                message = decode(payload)
            except MalformedMessageError as error:
                self.take_malformed(error, record)
            else:
                yield message

    def _shape_of(self, message: Any) -> int:
        """Return the shape of all messages of one kind; of trades whose ids are not those that are recorded, another one."""
        shape: int = message.shape
        if shape == TRADE:
            if self.id_space is None:
                self.id_space = message.id_space
            if message.id_space != self.id_space:
                shape = _FOREIGN_TRADE
        self._shapes[type(message)] = shape
        return shape

    def _take_control(self, message: Control) -> None:
        if isinstance(message, Acknowledgement | Refusal | ShutdownNotice):
            self._events.append(message)
        else:
            # An OtherEvent, or what a decoder gives in its place for speed.
            counter = self._metrics.other_events if message.known else self._metrics.unknown_events
            counter[message.name] += 1
