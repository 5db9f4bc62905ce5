"""The state machine: what becomes of each record, and that rows are a function of the records alone."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harvest.pipeline.events import Malformed, SnapshotWanted
from harvest.pipeline.records import Closed, Frames, Opened, Overload, SnapshotBody
from harvest.venues.protocol import Acknowledgement, Refusal, ShutdownNotice
from tests.pipeline.wire import MIDNIGHT_MS, T0_MS, Harness, diff, snapshot, trade

KINDS = ("prices", "depth", "orderbook", "ofi", "cvd", "breaks")


def test_events_that_are_not_recorded_are_counted_by_name_known_ones_apart():
    harness = Harness()
    outcome = harness.frames(
        b'{"stream":"btcusdt@bookTicker","data":{"e":"bookTicker","u":1,"s":"BTCUSDT","b":"1","B":"1","a":"2","A":"1",'
        b'"E":1,"T":1}}',
        b'{"stream":"btcusdt@markPrice","data":{"e":"markPriceUpdate","s":"BTCUSDT","E":1,"p":"1.0","i":"1.0",'
        b'"P":"1.0","r":"0.1","T":1}}',
        b'{"stream":"btcusdt@novelty","data":{"e":"novelty","s":"BTCUSDT"}}',
        b'{"stream":"btcusdt@novelty","data":{"e":"novelty","s":"BTCUSDT"}}',
    )
    assert outcome.data_messages == 0
    assert outcome.events == []
    assert harness.metrics.other_events == {"bookTicker": 1, "markPriceUpdate": 1}
    assert harness.metrics.unknown_events == {"novelty": 2}
    assert not any(harness.rows(kind) for kind in KINDS)


def test_symbols_that_were_not_asked_for_are_counted_and_not_recorded():
    harness = Harness()
    outcome = harness.frames(
        trade(1, symbol="DOGEUSDT"), diff(1, 2, 0, symbol="DOGEUSDT"), trade(1), trade(2, symbol="DOGEUSDT")
    )
    harness.body(snapshot(5), symbol="DOGEUSDT")
    assert outcome.data_messages == 1
    assert harness.metrics.unknown_symbols == {"DOGEUSDT": 4}
    assert not any(harness.rows(kind, "DOGEUSDT") for kind in KINDS)


@pytest.mark.parametrize("symbol", ["", "X" * 300, "a" * 201])
def test_symbol_that_can_name_no_directory_is_counted_where_every_symbol_is_taken(symbol):
    harness = Harness(symbols=None)
    harness.frames(trade(1, symbol=symbol), trade(1, symbol="牛来USDT"), trade(1, symbol="../x"))
    assert harness.metrics.unknown_symbols == {symbol: 1}
    assert harness.column("prices", "trade_id", symbol="牛来USDT") == [1]
    assert harness.column("prices", "trade_id", symbol="../x") == [1]


def test_answers_and_notices_are_passed_on_in_their_order():
    outcome = Harness().frames(
        b'{"result":null,"id":1}',
        trade(1),
        b'{"error":{"code":2,"msg":"no"},"id":3}',
        b'{"stream":"!serverShutdown","data":{"e":"serverShutdown","E":1}}',
    )
    assert outcome.events == [Acknowledgement(1), Refusal(3, 2, "no"), ShutdownNotice()]
    assert outcome.data_messages == 1


@pytest.mark.parametrize(
    "broken",
    [
        b"",
        b"hello",
        b"[1,2]",
        b'{"stream":"btcusdt@trade","data":{"e":"trade"',
        trade(1).replace(b'"100.0"', b'"NaN"'),
        trade(1).replace(b'"100.0"', b'"Infinity"'),
        trade(1).replace(b'"1.0"', b'"-1.0"'),
        trade(2**63),
        trade(-1),
        diff(1, 2, 0, [(1.0, -1.0)]),
        b"\xff\xfe",
        b"[" * 100_000,
    ],
    ids=range(12),
)
def test_malformed_message_is_counted_and_handed_on_and_the_rest_of_its_block_is_taken(broken):
    harness = Harness()
    outcome = harness.frames(trade(1), broken, trade(2), connection="trade-7")
    (event,) = outcome.events
    assert isinstance(event, Malformed)
    assert (event.connection, event.recv_ns, event.raw) == ("trade-7", harness.recv_ns, broken)
    assert event.why
    assert harness.metrics.malformed == 1
    assert harness.column("prices", "trade_id") == [1, 2]


def test_malformed_snapshot_is_handed_on_and_another_is_wanted():
    harness = Harness()
    harness.frames(diff(1, 5, 0))
    outcome = harness.body(b"<html>502 Bad Gateway</html>")
    malformed, wanted = outcome.events
    assert (malformed.connection, malformed.raw) == ("rest", b"<html>502 Bad Gateway</html>")
    assert wanted == SnapshotWanted("BTCUSDT", "malformed")
    assert [row["is_snapshot"] for row in harness.rows("depth")] == [False]


def test_trade_ids_of_the_other_space_are_left_out_and_counted():
    harness = Harness("binance-spot")
    first = harness.frames(trade(1, kind=None), trade(900, event="aggTrade"), trade(2, kind=None))
    second = harness.frames(trade(901, event="aggTrade"))
    assert (first.data_messages, second.data_messages) == (2, 0)
    assert harness.pipeline.id_space == "raw"
    assert harness.column("prices", "trade_id") == [1, 2]
    assert harness.rows("breaks") == []
    assert harness.metrics.other_events == {"aggregate trade": 2}


def test_data_messages_count_what_the_venue_brought_duplicates_too():
    harness = Harness()
    assert harness.frames(trade(1), trade(1), diff(1, 2, 0), diff(1, 2, 0)).data_messages == 4


def test_book_is_there_for_the_symbols_that_were_asked_for_and_no_other():
    harness = Harness()
    assert harness.pipeline.book("BTCUSDT").symbol == "BTCUSDT"
    assert harness.pipeline.book("ETHUSDT") is None


def test_quantities_beyond_all_reason_end_nothing():
    harness = Harness()
    harness.frames(diff(1, 5, 0))
    harness.body(snapshot(5, [(99.0, 1.0)], [(101.0, 1.0)], at_ms=T0_MS))
    last = 5
    for number in range(320):
        harness.frames(
            trade(number, qty=1e100, price=1e100, sold=number % 2 == 0),
            diff(last + 1, last + 2, last, [(99.0, 1e100 if number % 2 else 1.0)]),
        )
        last += 2
        if number % 100 == 0:
            harness.pipeline.tables.seal_all()
    assert len(harness.rows("cvd")) == len(harness.rows("orderbook")) == 320


# Rows are a function of the records.


def scripted(chaos, count):
    """Make a script of records for two symbols: what comes, is lost, repeats, breaks off, and crosses midnight."""
    script, ids, updates = [], {"A": 10, "B": 500}, {"A": 1000, "B": 7000}
    for number in range(count):
        frames, at_ms = [], MIDNIGHT_MS + (number - count // 2) * 10
        for _ in range(chaos.randrange(1, 6)):
            symbol = chaos.choice("AB")
            what = chaos.random()
            if what < 0.5:
                ids[symbol] += chaos.choice([1, 1, 1, 1, 0, -2, 3])
                kind = chaos.choice(["MARKET", "MARKET", "ADL"])
                qty = chaos.randrange(1, 10**6) / 1000
                frames.append(
                    trade(
                        ids[symbol], symbol=symbol, qty=qty, sold=chaos.random() < 0.5, at_ms=at_ms, kind=kind
                    )
                )
            elif what < 0.95:
                prev = updates[symbol]
                last = prev + chaos.choice([2, 2, 2, 2, 5, -1])
                levels = [(99.0 - chaos.randrange(5), chaos.choice([0.0, 1.0, 2.5]))]
                asks = [(101.0 + chaos.randrange(5), chaos.choice([0.0, 1.0, 2.5]))]
                named = prev if chaos.random() < 0.9 else prev + 1
                frames.append(diff(last - 1, last, named, levels, asks, symbol=symbol, at_ms=at_ms))
                updates[symbol] = max(last, prev)
            else:
                frames.append(chaos.choice([b"{", b'{"result":null,"id":1}', trade(1, symbol="ZZZ")]))
        script.append(("frames", frames))
        if chaos.random() < 0.2:
            symbol = chaos.choice("AB")
            body = snapshot(updates[symbol], [(98.0, 4.0)], [(102.0, 4.0)], at_ms=at_ms)
            script.append(("body", (symbol, body)))
        if chaos.random() < 0.1:
            script.append(
                (chaos.choice(["closed", "overload", "opened"]), chaos.choice(["trade", "orderbook"]))
            )
    return script


def feed(script, split=None, *, seal=None, max_rows=10**6):
    """Feed the script to a new pipeline; blocks are split as ``split`` says, at the same receive time."""
    harness = Harness(symbols=["A", "B"], max_rows=max_rows)
    for number, (what, content) in enumerate(script):
        recv_ns = MIDNIGHT_MS * 10**6 + number * 10**7
        parts = split(content) if split and what == "frames" else [content]
        for part in parts:
            harness.seq += 1
            head = (harness.seq, recv_ns, harness.seq)
            records = {
                "frames": lambda head=head, part=part: Frames(*head, "trade-1", part),
                "body": lambda head=head, part=part: SnapshotBody(*head, *part),
                "closed": lambda head=head, part=part: Closed(*head, "c", part, ("A", "B"), "stall"),
                "overload": lambda head=head, part=part: Overload(*head, "c", part, ("A",), 1, 2),
                "opened": lambda head=head, part=part: Opened(*head, "c", part, ("A", "B")),
            }
            harness.pipeline.feed(records[what]())
            if seal and seal.random() < 0.2:
                harness.rows("prices")
    return harness


def tables(harness, *, without=()):
    return {
        (kind, symbol): [
            {name: value for name, value in row.items() if name not in without}
            for row in sorted(harness.rows(kind, symbol), key=lambda row: row["seq"])
        ]
        for kind in KINDS
        for symbol in "AB"
    }


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 2**32).map(random.Random), st.integers(2, 40))
def test_the_same_records_give_the_same_rows_however_they_are_sealed_and_only_seq_knows_the_blocks(
    chaos, count
):
    script = scripted(chaos, count)
    once = tables(feed(script))
    assert tables(feed(script)) == once
    assert tables(feed(script, seal=chaos, max_rows=2)) == once

    def split_anywhere(frames):
        cut = chaos.randrange(len(frames) + 1)
        return [part for part in (frames[:cut], frames[cut:]) if part]

    plain = tables(feed(script), without=("seq",))
    assert tables(feed(script, split_anywhere), without=("seq",)) == plain
    assert tables(feed(script, lambda frames: [[frame] for frame in frames]), without=("seq",)) == plain
