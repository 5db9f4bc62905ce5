"""The messages of a block, decoded, each to the series of its symbol: trades by the run, all others one by one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from harvest.errors import MalformedMessageError
from harvest.market import CHANNEL, CONTROL, DIFF, TRADE, DiffRun
from harvest.pipeline.events import Malformed
from harvest.pipeline.records import Frames
from harvest.venues.blocks import payloads
from harvest.venues.protocol import Acknowledgement, Refusal, ShutdownNotice

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from harvest.market import IdSpace, Trade, TradeRun
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
        block = record.frames
        heard = self._metrics.heard.setdefault(record.connection, {})
        if isinstance(block, list):
            if len(block) == 1:
                # At live rates nearly every message comes alone.
                message = self._decode(block[0], record)
                return 0 if message is None else self._take_one(message, record, heard, channels)
            return self._take_many(self._one_by_one(record), record, heard, channels)
        runs = self._venue.decode_runs(block)
        if runs is None:
            return self._take_many(self._decoded(block, record), record, heard, channels)
        taken, left = self._take_runs(runs, record, heard)
        if left:
            others = (one for one in self._decoded(block, record) if one.symbol in left)
            taken += self._take_many(others, record, heard, channels)
        return taken

    def _decoded(self, block: bytes, record: Frames) -> Iterable[Any]:
        messages = self._venue.decode_lines(block)
        return self._one_by_one(record) if messages is None else messages

    def _take_many(
        self, messages: Iterable[Any], record: Frames, heard: dict[str, int], channels: Channels
    ) -> int:
        shapes = self._shapes
        #: Trades that wait for all of their block, or for what is none.
        runs: dict[str, list[Trade]] = {}
        data_messages = 0
        kind: type | None = None
        shape = 0
        for message in messages:
            if type(message) is not kind:
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
            data_messages += self._take_one(message, record, heard, channels)
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

    def _take_runs(
        self, runs: Sequence[TradeRun | DiffRun], record: Frames, heard: dict[str, int]
    ) -> tuple[int, set[str]]:
        """Take messages in columns; returns how many were taken, and the symbols of those that are to be taken one by one."""
        seq, recv_ns, mono_ns = record.seq, record.recv_ns, record.mono_ns
        taken, left = 0, set()
        for run in runs:
            if isinstance(run, DiffRun):
                book = self._recorded.books.get(run.symbol)
                is_taken = book is not None and book.take_run(run, seq, recv_ns, mono_ns)
            else:
                trades = self._recorded.trades.get(run.symbol)
                is_taken = (
                    trades is not None
                    and run.id_space == self.id_space
                    and trades.take_run(run, seq, recv_ns, mono_ns)
                )
            if is_taken:
                taken += run.size
                heard[run.symbol] = mono_ns
            else:
                left.add(run.symbol)
        return taken, left

    def _take_one(self, message: Any, record: Frames, heard: dict[str, int], channels: Channels) -> int:
        """Take one message of any kind; returns 1 if it holds market data, else 0."""
        kind = type(message)
        # Its ``shape`` says which it is; a cast would cost what an isinstance does.
        shape = self._shapes[kind] if kind in self._shapes else self._shape_of(message)
        recorded = self._recorded
        if shape == TRADE:
            trades = recorded.trades.get(message.symbol) or recorded.add_trades(message.symbol)
            if trades is None:
                return 0
            trades.take_one(message, record.seq, record.recv_ns, record.mono_ns)
        elif shape == DIFF:
            book = recorded.books.get(message.symbol) or recorded.add_book(message.symbol)
            if book is None:
                return 0
            book.take(message, record.seq, record.recv_ns, record.mono_ns)
        elif shape == CHANNEL:
            if not channels.take(message, record.connection, record.seq, record.recv_ns, record.mono_ns):
                return 0
        else:
            if shape == CONTROL:
                self._take_control(message)
            else:
                self._metrics.other_events[f"{message.id_space} trade"] += 1
            return 0
        heard[message.symbol] = record.mono_ns
        return 1

    def take_malformed(self, error: MalformedMessageError, record: Frames | Body) -> None:
        """Let a message that could not be decoded be kept."""
        self._metrics.malformed += 1
        source = record.connection if isinstance(record, Frames) else "rest"
        self._events.append(Malformed(source, record.recv_ns, error.why, error.raw))

    def _one_by_one(self, record: Frames) -> Iterator[Any]:
        for payload in payloads(record.frames):
            message = self._decode(payload, record)
            if message is not None:
                yield message

    def _decode(self, payload: bytes, record: Frames) -> Any:
        """Decode a message; None where it is malformed, and kept."""
        try:
            return self._venue.decode(payload)
        except MalformedMessageError as error:
            self.take_malformed(error, record)
            return None

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
