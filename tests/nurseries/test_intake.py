"""The intake before a real pipeline: what becomes a record, in which order, and what is let go and accounted for."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import structlog
from hypothesis import given, settings
from hypothesis import strategies as st

from harvest.nurseries.intake import BLOCKS_PER_MEASURE, Intake
from harvest.pipeline.records import (
    Closed,
    Frames,
    Opened,
    Overload,
    SnapshotBody,
    TradesBody,
    Unserved,
)
from harvest.storage.quarantine import Quarantine
from harvest.venues.protocol import Acknowledgement, Refusal, ShutdownNotice
from tests.pipeline.wire import Harness, diff, snapshot, trade

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from harvest.pipeline.events import Outcome
    from harvest.pipeline.records import Record

LIMIT = 1000
SYMBOLS = ("BTCUSDT", "ETHUSDT")
UNRECORDED = b'{"stream":"btcusdt@kline_1m","data":{"e":"kline"}}'


class Bench:
    """An intake, all its records, and what it asked for; ``buffered`` says how full memory is."""

    def __init__(self, root: Path, next_seq: int = 1) -> None:
        self.harness = Harness(symbols=SYMBOLS)
        self.venue = self.harness.pipeline.venue
        self.metrics = self.harness.metrics
        self.records: list[Record] = []
        self.snapshots: list[str] = []
        self.gaps: list[tuple[str, int, int]] = []
        self.buffered = 0
        self.measured = 0
        self.quarantine = Quarantine(root, "run")
        self.intake = Intake(
            self,
            next_seq=next_seq,
            quarantine=self.quarantine,
            max_buffered_bytes=LIMIT,
            buffered_bytes=self._measure,
            want_snapshot=self.snapshots.append,
            want_trades=lambda *gap: self.gaps.append(gap),
        )
        self._now_ns = self.harness.recv_ns

    def feed(self, record: Record) -> Outcome:
        """Stand between the intake and the pipeline."""
        self.records.append(record)
        return self.harness.pipeline.feed(record)

    def _measure(self) -> int:
        self.measured += 1
        return self.buffered

    def give(self, connection: Opened, *frames: bytes) -> Outcome:
        """Let a block arrive."""
        self._now_ns += 10**6
        return self.intake.frames(connection, list(frames), self._now_ns, self._now_ns)

    def idle_until_measured(self, connection: Opened, frame: bytes = UNRECORDED) -> None:
        """Let blocks arrive until the memory is measured again."""
        measured = self.measured
        while self.measured == measured:
            self.give(connection, frame)

    def of(self, kind: type) -> list[Any]:
        return [record for record in self.records if isinstance(record, kind)]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


@pytest.fixture
def lines() -> Iterator[list[Any]]:
    with structlog.testing.capture_logs() as captured:
        yield captured


def test_every_kind_of_record_takes_the_next_number_whatever_connection_it_is_of(tmp_path):
    bench = Bench(tmp_path, next_seq=4711)
    intake = bench.intake
    trades = intake.opened("trade-1", "trade", SYMBOLS)
    books = intake.opened("orderbook-1", "orderbook", SYMBOLS)
    bench.give(trades, trade(1))
    bench.give(books, diff(11, 12, 10))
    intake.snapshot("BTCUSDT", snapshot(12, [(1.0, 1.0)], [(2.0, 1.0)]))
    intake.fetched_trades("BTCUSDT", 2, 3, b"[]")
    intake.unserved("BTCUSDT", 2, 3, "not_served")
    intake.closed(trades, "stall")
    intake.closed(books, "shutdown")
    kinds = [type(record) for record in bench.records]
    assert kinds == [Opened, Opened, Frames, Frames, SnapshotBody, TradesBody, Unserved, Closed, Closed]
    assert [record.seq for record in bench.records] == list(range(4711, 4720))
    assert intake.next_seq == 4720
    assert [record.reason for record in bench.of(Closed)] == ["stall", "shutdown"]


def test_the_records_of_a_connection_name_it_as_it_was_opened(bench):
    first = bench.intake.opened("trade-1", "trade", ("BTCUSDT",))
    second = bench.intake.opened("trade-1.2", "trade", ("BTCUSDT",))
    bench.give(second, trade(1))
    bench.intake.closed(first, "handover")
    assert bench.of(Frames)[0].connection == "trade-1.2"
    (closed,) = bench.of(Closed)
    assert (closed.connection, closed.feed, closed.symbols) == ("trade-1", "trade", ("BTCUSDT",))


def test_the_outcome_tells_data_from_answers(bench):
    connection = bench.intake.opened("trade-1", "trade", SYMBOLS)
    outcome = bench.give(connection, b'{"result":null,"id":1}', trade(1), b"broken", trade(1))
    # A duplicate is data as well: the stream lives.
    assert outcome.data_messages == 2
    assert Acknowledgement(1) in outcome.events
    assert bench.give(connection, b'{"result":null,"id":2}').data_messages == 0


def test_a_book_that_wants_a_snapshot_and_a_gap_of_trades_are_passed_on_at_once(bench, lines):
    trades = bench.intake.opened("trade-1", "trade", SYMBOLS)
    books = bench.intake.opened("orderbook-1", "orderbook", SYMBOLS)
    bench.give(books, diff(11, 12, 10), diff(5, 6, 4, symbol="ETHUSDT"))
    assert bench.snapshots == ["BTCUSDT", "ETHUSDT"]
    bench.give(books, diff(30, 31, 25))
    assert bench.snapshots == ["BTCUSDT", "ETHUSDT", "BTCUSDT"]
    bench.give(trades, trade(1), trade(5))
    assert bench.gaps == [("BTCUSDT", 2, 4)]
    assert [(line["tag"], line["log_level"], line["event"]) for line in lines] == [
        ("ORDERBOOK", "warning", "BTCUSDT orderbook break (gap): ids 12 to 25"),
        ("TRADE", "warning", "BTCUSDT trade break (gap): ids 2 to 4"),
    ]


def test_what_a_body_asks_for_is_passed_on_too(bench):
    books = bench.intake.opened("orderbook-1", "orderbook", SYMBOLS)
    bench.give(books, diff(11, 12, 10))
    bench.intake.snapshot("BTCUSDT", snapshot(5, [(1.0, 1.0)], [(2.0, 1.0)]))
    bench.intake.snapshot("BTCUSDT", b"<html>not a snapshot</html>")
    assert bench.snapshots == ["BTCUSDT"] * 3
    assert bench.quarantine.seen == 1
    bench.quarantine.flush()
    assert json.loads(bench.quarantine.path.read_text())["connection"] == "rest"


def test_what_is_malformed_goes_to_the_quarantine_with_its_connection_and_time(bench):
    connection = bench.intake.opened("trade-1", "trade", SYMBOLS)
    bench.give(connection, trade(1), b'{"e":"trade","t":"x"}', b"\xff\xfe", trade(2))
    bench.quarantine.flush()
    kept = [json.loads(line) for line in bench.quarantine.path.read_text("utf-8").splitlines()]
    assert [one["connection"] for one in kept] == ["trade-1"] * 2
    assert {one["recv_ns"] for one in kept} == {bench.of(Frames)[0].recv_ns}
    assert kept[0]["text"] == '{"e":"trade","t":"x"}'
    assert kept[1]["base64"] == "//4="
    assert bench.metrics.malformed == 2
    assert bench.harness.column("prices", "trade_id") == [1, 2]


def test_the_memory_is_measured_once_in_so_many_blocks(bench):
    connection = bench.intake.opened("trade-1", "trade", SYMBOLS)
    for number in range(BLOCKS_PER_MEASURE * 3):
        bench.give(connection, trade(number + 1))
    assert bench.measured == 3


def test_beyond_the_limit_frames_are_counted_and_let_go_and_the_loss_is_a_record_before_the_next_frames(
    bench, lines
):
    connection = bench.intake.opened("trade-1", "trade", SYMBOLS)
    bench.give(connection, trade(1))
    bench.buffered = LIMIT + 1
    bench.idle_until_measured(connection)
    (line,) = lines
    assert (line["tag"], line["log_level"]) == ("OVERLOAD", "error")
    assert "frames are let go and recorded as lost" in line["event"]
    # The block that measured was the first to go.
    first_lost_ns, before = bench._now_ns, len(bench.records)
    assert bench.give(connection, trade(2), trade(3)).data_messages == 2
    assert bench.give(connection, trade(4)).data_messages == 1
    assert len(bench.records) == before
    assert bench.metrics.overload_frames == 1 + 3
    bench.buffered = LIMIT
    while bench.of(Overload) == []:
        bench.give(connection, trade(5))
    assert lines[1]["event"] == "the disk has caught up; recording goes on"
    (overload,) = bench.of(Overload)
    assert overload.from_ns == first_lost_ns
    assert overload.lost_frames == bench.metrics.overload_frames
    assert (overload.connection, overload.symbols) == ("trade-1", SYMBOLS)
    after = bench.records[bench.records.index(overload) + 1]
    assert isinstance(after, Frames)
    assert overload.recv_ns == after.recv_ns
    bench.give(connection, trade(6))
    assert len(bench.of(Overload)) == 1
    assert [record.seq for record in bench.records] == list(range(1, len(bench.records) + 1))
    assert bench.harness.column("breaks", "reason") == ["overload"]
    assert bench.gaps == [("BTCUSDT", 2, 4)]


def test_in_an_overload_answers_and_notices_are_heard_and_data_is_said_to_have_gone_by_unread(bench, lines):
    connection = bench.intake.opened("trade-1", "trade", SYMBOLS)
    bench.buffered = LIMIT + 1
    bench.idle_until_measured(connection)
    refusal = b'{"error":{"code":2,"msg":"no"},"id":2}'
    notice = b'{"stream":"!serverShutdown","data":{"e":"serverShutdown","E":1}}'
    lost = bench.metrics.overload_frames
    outcome = bench.give(connection, b'{"result":null,"id":1}', refusal, trade(2), notice)
    assert outcome.events == [Acknowledgement(1), Refusal(2, 2, "no"), ShutdownNotice()]
    assert (outcome.data_messages, outcome.unread) == (1, True)
    assert bench.metrics.overload_frames == lost + 1
    outcome = bench.give(connection, b'{"result":null,"id":1}')
    assert (outcome.data_messages, outcome.unread) == (0, False)


def test_exactly_at_the_limit_nothing_is_lost(bench, lines):
    connection = bench.intake.opened("trade-1", "trade", SYMBOLS)
    bench.buffered = LIMIT
    for number in range(3 * BLOCKS_PER_MEASURE):
        bench.give(connection, trade(number + 1))
    assert bench.metrics.overload_frames == 0
    assert lines == []


def test_a_lasting_overload_is_said_once_and_a_second_one_again(bench, lines):
    connection = bench.intake.opened("trade-1", "trade", SYMBOLS)
    for _ in range(2):
        bench.buffered = LIMIT + 1
        for _ in range(5):
            bench.idle_until_measured(connection)
        bench.buffered = 0
        bench.idle_until_measured(connection)
    assert [line["log_level"] for line in lines] == ["error", "warning"] * 2
    assert len(bench.of(Overload)) == 2


def test_the_losses_of_each_connection_are_recorded_apart(bench, lines):
    trades = bench.intake.opened("trade-1", "trade", ("BTCUSDT",))
    books = bench.intake.opened("orderbook-1", "orderbook", ("BTCUSDT",))
    idle = bench.intake.opened("trade-2", "trade", ("ETHUSDT",))
    bench.buffered = LIMIT + 1
    bench.idle_until_measured(trades)
    bench.give(books, diff(1, 2, 0), diff(3, 4, 2))
    bench.buffered = 0
    bench.idle_until_measured(trades)
    bench.give(books, diff(5, 6, 4))
    bench.give(idle, trade(1, symbol="ETHUSDT"))
    lost = {(record.connection, record.feed): record.lost_frames for record in bench.of(Overload)}
    assert lost == {("trade-1", "trade"): BLOCKS_PER_MEASURE - 1, ("orderbook-1", "orderbook"): 2}


@pytest.mark.parametrize("reason", ["stall", "disconnect", "handover", "shutdown"])
def test_a_connection_that_ends_in_an_overload_has_its_loss_recorded_before_its_end(reason, bench, lines):
    connection = bench.intake.opened("trade-1", "trade", SYMBOLS)
    bench.give(connection, trade(1))
    bench.buffered = LIMIT + 1
    bench.idle_until_measured(connection)
    bench.give(connection, trade(2))
    bench.intake.closed(connection, reason)
    overload, closed = bench.records[-2:]
    assert isinstance(overload, Overload)
    assert isinstance(closed, Closed)
    assert overload.lost_frames == bench.metrics.overload_frames == 2
    assert overload.seq + 1 == closed.seq
    # It is recorded once, whatever comes under the same name.
    again = bench.intake.opened("trade-1", "trade", SYMBOLS)
    bench.buffered = 0
    bench.idle_until_measured(again)
    bench.give(again, trade(3))
    assert sum(record.lost_frames for record in bench.of(Overload)) == bench.metrics.overload_frames


def test_bodies_are_kept_in_an_overload_too(bench, lines):
    books = bench.intake.opened("orderbook-1", "orderbook", SYMBOLS)
    bench.give(books, diff(11, 12, 10))
    bench.buffered = LIMIT + 1
    bench.idle_until_measured(books)
    bench.intake.snapshot("BTCUSDT", snapshot(12, [(1.0, 1.0)], [(2.0, 1.0)]))
    assert isinstance(bench.records[-1], SnapshotBody)
    assert bench.metrics.feed("orderbook", "BTCUSDT").in_sync


def test_a_bug_of_the_pipeline_is_raised_and_not_swallowed(bench, monkeypatch):
    connection = bench.intake.opened("trade-1", "trade", SYMBOLS)

    def break_down(_frame: bytes) -> None:
        raise ZeroDivisionError("a decoder's bug")

    monkeypatch.setattr(bench.harness.pipeline, "feed", break_down)
    with pytest.raises(ZeroDivisionError):
        bench.give(connection, trade(1))


CONNECTIONS = ("trade-1", "trade-2", "orderbook-1")


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("block"), st.sampled_from(CONNECTIONS), st.integers(1, 5)),
            st.tuples(st.just("fill"), st.sampled_from([0, LIMIT, LIMIT + 1]), st.just(0)),
            st.tuples(st.just("reopen"), st.sampled_from(CONNECTIONS), st.just(0)),
        ),
        max_size=200,
    )
)
def test_frames_in_are_frames_recorded_and_frames_recorded_as_lost(tmp_path_factory, steps):
    bench = Bench(tmp_path_factory.getbasetemp())
    opened = {name: bench.intake.opened(name, name.partition("-")[0], SYMBOLS) for name in CONNECTIONS}
    received = 0
    with structlog.testing.capture_logs():
        for what, argument, count in steps:
            if what == "block":
                # So many that a change of the memory is seen within a few steps.
                for _ in range(30):
                    bench.give(opened[argument], *[trade(1)] * count)
                    received += count
            elif what == "fill":
                bench.buffered = argument
            else:
                bench.intake.closed(opened[argument], "disconnect")
                opened[argument] = bench.intake.opened(argument, opened[argument].feed, SYMBOLS)
        for connection in opened.values():
            bench.intake.closed(connection, "shutdown")
    kept = sum(len(record.frames) for record in bench.of(Frames))
    lost = sum(record.lost_frames for record in bench.of(Overload))
    assert lost == bench.metrics.overload_frames
    assert kept + lost == received
    assert [record.seq for record in bench.records] == list(range(1, len(bench.records) + 1))
