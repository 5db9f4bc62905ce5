"""Checkpoints: a machine that goes on from one gives exactly the rows that the other would have given."""

from __future__ import annotations

import gzip
import random
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harvest.book.book import Book
from harvest.book.flow import OrderFlow, OrderFlowState
from harvest.book.ladder import Ladder
from harvest.book.sequence import DepthChain, TradeSequence, TradeSequenceState
from harvest.metrics import FeedStats
from harvest.pipeline.audits import BookAudits
from harvest.pipeline.book_rows import BookRows
from harvest.pipeline.checkpoint import (
    AuditState,
    BookState,
    CheckpointError,
    SymbolState,
    TradesState,
    encode_state,
)
from harvest.pipeline.events import Audited
from harvest.pipeline.machine import Pipeline
from harvest.pipeline.orderbook import BookSeries
from harvest.pipeline.recordings import read
from harvest.pipeline.records import AuditBegun, AuditBody, Checkpoint, Closed, Frames, Opened, SnapshotBody
from harvest.pipeline.trades import TradeSeries
from tests.pipeline.test_shared_recordings import RECORDINGS
from tests.pipeline.troubled import SYMBOLS, Troubled, machine, rows_of
from tests.pipeline.wire import Harness, diff, snapshot, trade

if TYPE_CHECKING:
    from collections.abc import Iterable

    from harvest.pipeline.records import Record

#: Where each attribute of what makes up a symbol's state is kept; a state's field, or why it need not be.
GIVEN = "given to whoever makes it"
TABLES = "tables: the next row looks them up anew"
ATTRIBUTES: dict[type, dict[str, tuple[type, str] | str]] = {
    TradeSeries: {
        "sequence": (TradesState, "sequence"),
        "_interruption": (TradesState, "interruption"),
        "living": (TradesState, "living"),
        "_doubtful": (TradesState, "doubtful"),
        "stats": (TradesState, "last_recv_ns"),
        **dict.fromkeys(("symbol", "_patience_ns", "_tables", "_breaks", "_events"), GIVEN),
        **dict.fromkeys(("_table", "_day_from_us", "_day_until_us"), TABLES),
    },
    TradeSequence: {
        "next_id": (TradeSequenceState, "next_id"),
        "_first_id": (TradeSequenceState, "first_id"),
        "_holes": (TradeSequenceState, "holes"),
    },
    BookSeries: {
        "book": (BookState, "bids"),
        "_chain": (BookState, "last_update_id"),
        "_snapshot_id": (BookState, "snapshot_id"),
        "book_id": (BookState, "book_id"),
        "reach": (BookState, "reach"),
        "audits": (BookState, "audit"),
        "_pending": (BookState, "pending"),
        "_has_book": (BookState, "has_book"),
        "_awaits_bridge": (BookState, "awaits_bridge"),
        "_interruption": (BookState, "interruption"),
        "living": (BookState, "living"),
        "_held": (BookState, "held"),
        "_book_days": (BookState, "book_days"),
        "_snapshot_day": (BookState, "snapshot_day"),
        "stats": (BookState, "in_sync"),
        "_rows": TABLES,
        **dict.fromkeys(("symbol", "_rule", "_top_levels", "_breaks", "_events", "_patience_ns"), GIVEN),
    },
    BookRows: {
        **dict.fromkeys(("_symbol", "_orderbook_kind", "_pack_orderbook", "_levels", "_tables"), GIVEN),
        **dict.fromkeys(("day", "_depth", "_orderbook", "_ofi"), TABLES),
    },
    BookAudits: {
        "pending": "said by there being an AuditState",
        "_diffs": (AuditState, "diffs"),
        "_snapshot": (AuditState, "snapshot"),
        "_event_us": (AuditState, "event_us"),
        **dict.fromkeys(("_book", "_rule", "_tables", "_metrics", "_events"), GIVEN),
    },
    DepthChain: {
        "last_update_id": (BookState, "last_update_id"),
        "_is_usdm": GIVEN,
        "gap": "of use right after the diff that found it",
    },
    Book: {
        "_ladder": (BookState, "bids"),
        "_flow": (BookState, "flow"),
        "_bulk": "another form of the two",
        "_to_pass": "how soon that form is tried again, which decides no row",
    },
    Ladder: {"_bids": (BookState, "bids"), "_asks": (BookState, "asks")},
    OrderFlow: {
        "_known": (OrderFlowState, "known"),
        **dict.fromkeys(("_bid_px", "_bid_qty", "_ask_px", "_ask_qty"), (OrderFlowState, "tops")),
        "_window": (OrderFlowState, "window"),
        **dict.fromkeys(("_sum", "_squares"), "follows from the window"),
    },
    FeedStats: {
        "last_recv_ns": (BookState, "last_recv_ns"),
        "in_sync": (BookState, "in_sync"),
        **dict.fromkeys(("symbol", "feed"), GIVEN),
        **dict.fromkeys(
            (
                "last_mono_ns",
                "quiet_mono_ns",
                "added_ns",
                "added_mono_ns",
                "halted",
                "stored",
                "duplicates",
                "gaps",
                "missing_ids",
                "late",
                "resyncs",
                "suspect_rows",
                "crossed",
            ),
            "a measure, which decides no row",
        ),
    },
    Pipeline: {
        "_messages": (SymbolState, "id_space"),
        "_trades": (SymbolState, "trades"),
        "_books": (SymbolState, "book"),
        "_recorded": "a symbol is recorded from its restoration on",
        "channels": "of these a recovery makes no rows (docs/durability.md)",
        "_cumulative": "follows from the files of prices",
        "_events": "empty between two records",
        **dict.fromkeys(
            (
                "venue",
                "metrics",
                "tables",
                "_levels",
                "_orderbook_kind",
                "_max_pending_diffs",
                "_patience_ns",
                "_breaks",
            ),
            GIVEN,
        ),
    },
}


#: Seeds, for what they make is too large to be drawn.
chaoses = st.integers(0, 2**32).map(random.Random)


def living_objects() -> list[Any]:
    """Make one of each class whose attributes are the state."""
    harness = Harness()
    harness.each([trade(1), diff(1, 10, 0)])
    trades, book = harness.pipeline._trades["BTCUSDT"], harness.pipeline._books["BTCUSDT"]
    every = [
        trades,
        trades.sequence,
        book,
        book.audits,
        book._rows,
        book._chain,
        book.book,
        book.book.ladder,
        book.book.flow,
        book.stats,
    ]
    return [*every, harness.pipeline]


def test_a_checkpoint_knows_every_attribute_that_the_state_is_made_of():
    objects = living_objects()
    assert {type(one) for one in objects} == set(ATTRIBUTES)
    for one in objects:
        slots = getattr(type(one), "__slots__", ())
        names = {name for name in (*getattr(one, "__dict__", ()), *slots) if name not in ("__weakref__",)}
        assert names == set(ATTRIBUTES[type(one)]), type(one)
    kept = {place for of in ATTRIBUTES.values() for place in of.values() if isinstance(place, tuple)} | {
        (BookState, "asks")
    }
    for state in (TradesState, TradeSequenceState, BookState, AuditState, OrderFlowState, SymbolState):
        assert {name for owner, name in kept if owner is state} | {"last_recv_ns"} >= set(
            state.__struct_fields__
        )


def continued(records: Iterable[Record], cuts: dict[str, int], *, spot: bool) -> None:
    """Let one machine take all records, and another each symbol from its cut on; what follows must be equal."""
    whole, other = machine(spot=spot), machine(spot=spot, symbols=())
    for record in records:
        for symbol, cut in cuts.items():
            if cut == record.seq:
                other.restore(symbol, whole.checkpoint(symbol))
        whole.feed(record)
        other.feed(record)
    rows = []
    for pipeline in (whole, other):
        pipeline.end(10**6, 10**18)
        pipeline.tables.seal_all()
        rows.append(rows_of(pipeline.tables.take_sealed()))
    expected = {
        key: after for key, of in rows[0].items() if (after := [row for row in of if row[0] >= cuts[key[1]]])
    }
    assert rows[1] == expected


@settings(max_examples=40, deadline=None)
@given(chaoses, st.booleans(), st.data())
def test_a_machine_goes_on_exactly_from_anywhere(chaos: random.Random, spot: bool, data: st.DataObject):
    records = Troubled(chaos, data.draw(st.integers(1, 60)), spot=spot).records
    cuts = {symbol: data.draw(st.integers(1, len(records))) for symbol in SYMBOLS}
    continued(records, cuts, spot=spot)


@pytest.mark.parametrize("spot", [False, True])
def test_a_machine_goes_on_exactly_at_every_record_of_a_long_run(spot: bool):
    records = Troubled(random.Random(7), 150, spot=spot).records
    for cut in range(1, len(records), 41):
        continued(records, dict.fromkeys(SYMBOLS, cut), spot=spot)


def test_troubles_are_there_that_a_checkpoint_must_carry():
    seen = set()
    for seed in range(12):
        whole = machine()
        for record in Troubled(random.Random(seed), 80).records:
            whole.feed(record)
            for symbol in SYMBOLS:
                trades, book = whole._trades[symbol], whole._books[symbol]
                seen |= {("doubtful", bool(trades._doubtful)), ("held", bool(book._held))}
                seen |= {("pending", bool(book._pending)), ("bridge", book._awaits_bridge)}
                seen |= {("sync", book.in_sync), ("holes", len(trades.sequence.missing()) > 1)}
                audits = book.audits
                seen |= {("audit", audits.pending), ("audit waits", audits._snapshot is not None)}
                seen |= {("days", len(book._book_days) > 1), ("living", trades.living > 1)}
    names = ("doubtful", "held", "pending", "bridge", "sync", "holes", "days", "living")
    names += ("audit", "audit waits")
    assert seen == {(name, there) for name in names for there in (False, True)}


@pytest.mark.skipif(not RECORDINGS.exists(), reason="the shared recordings are not beside this checkout")
def test_a_machine_goes_on_exactly_over_a_recorded_midnight():
    records: list[Record] = []
    # One book of thousands of levels, a full window of order flow, and both sides of midnight.
    for day in ("20240718", "20240719"):
        with gzip.open(RECORDINGS / f"usdm__btcusdt_{day}.gz") as file:
            lines = list(read(file))
        for line in lines[:400] if day == "20240719" else [*lines[:1500], *lines[-400:]]:
            made = len(records) + 1, line.recv_ns, line.recv_ns
            if line.is_snapshot:
                records.append(SnapshotBody(*made, "BTCUSDT", line.frame))
            else:
                records.append(Frames(*made, "recorded", [line.frame]))
    for cut in (2, 400, 1500, 1700, 1900, 2100):
        continued(records, {"BTCUSDT": cut}, spot=False)


def test_a_held_diff_and_a_doubtful_gap_go_on_with_the_time_they_have_left():
    records: list[Record] = [
        Opened(1 + number, 0, 0, f"{feed}-{name}", feed, ("BTCUSDT",))
        for number, (feed, name) in enumerate((f, n) for f in ("trade", "orderbook") for n in "ab")
    ]
    frames = [trade(1), diff(1, 10, 0), trade(5), diff(25, 30, 20), trade(3), trade(6), diff(35, 40, 30)]
    for number, frame in enumerate(frames, 5):
        records.append(Frames(number, number * 60 * 10**6, number, "a", [frame]))
    records.insert(
        6, SnapshotBody(0, 10**8, 0, "BTCUSDT", snapshot(10, [(100.0, 1.0)], [(101.0, 1.0)], at_ms=1))
    )
    records.append(Closed(0, 10**9, 0, "orderbook-a", "orderbook", ("BTCUSDT",), "disconnect"))
    for seq, record in enumerate(records, 1):
        record.seq = seq
    for cut in range(1, len(records) + 1):
        continued(records, {"BTCUSDT": cut}, spot=False)


def test_an_audit_goes_on_with_its_diffs_and_with_what_the_book_began_with():
    bids, asks = [(100.0, 1.0), (99.0, 1.0)], [(101.0, 1.0)]
    at = 1, 1, 1
    records: list[Record] = [
        Frames(*at, "a", [diff(1, 10, 0)]),
        SnapshotBody(*at, "BTCUSDT", snapshot(10, bids, asks, at_ms=1)),
        Frames(*at, "a", [diff(11, 20, 10)]),
        AuditBegun(*at, "BTCUSDT"),
        Frames(*at, "a", [diff(21, 30, 20, bids=[(100.0, 2.0)])]),
        # It is older than the book, and has a level that the book lacks, and one that it could not know.
        AuditBody(*at, "BTCUSDT", snapshot(20, [*bids, (99.5, 3.0), (98.0, 5.0)], asks, at_ms=1)),
    ]
    for seq, record in enumerate(records, 1):
        record.seq = seq
    for cut in range(1, len(records) + 1):
        continued(records, {"BTCUSDT": cut}, spot=False)
    whole = machine()
    assert [one for record in records for one in whole.feed(record).events if isinstance(one, Audited)] == [
        Audited("BTCUSDT", 30, 4, 1, 3.0, False)
    ]


def test_a_checkpoint_in_the_records_changes_nothing():
    records = Troubled(random.Random(3), 80).records
    rows = []
    for taken in (records, [record for record in records if not isinstance(record, Checkpoint)]):
        pipeline = machine()
        for record in taken:
            pipeline.feed(record)
        pipeline.tables.seal_all()
        rows.append(rows_of(pipeline.tables.take_sealed()))
    assert rows[0] == rows[1]


def test_a_state_replaces_whatever_was_there():
    whole = machine(symbols=["BTCUSDT"])
    whole.feed(Frames(1, 1, 1, "a", [trade(5), trade(9), diff(1, 10, 0)]))
    empty = machine(symbols=["BTCUSDT"])
    whole.restore("BTCUSDT", empty.checkpoint("BTCUSDT"))
    assert whole.last_trade_id("BTCUSDT") is None
    assert whole.last_update_id("BTCUSDT") is None


def test_quantities_beyond_64_bits_stay_exact_in_the_window():
    flow, other = OrderFlow(), OrderFlow()
    for qty in (1e90, 3.5, 2e95):
        flow.update([1.0] * 10, [qty] * 10, [2.0] * 10, [1.0] * 10)
    other.restore(flow.state())
    for name in OrderFlow.__slots__:
        assert getattr(other, name) == getattr(flow, name)


@pytest.mark.parametrize("checkpoint", [b"", b"\x00", b"\x92\x01\x93", encode_state(None, None, None)[:-1]])
def test_a_damaged_checkpoint_is_refused_by_name(checkpoint: bytes):
    with pytest.raises(CheckpointError, match="BTCUSDT cannot be used: it is damaged"):
        machine().restore("BTCUSDT", checkpoint)


def test_a_checkpoint_of_a_later_version_is_refused():
    later = b"\x92\x63" + encode_state(None, None, None)[2:]
    with pytest.raises(CheckpointError, match="its version is 99"):
        machine().restore("BTCUSDT", later)


def test_a_refused_checkpoint_leaves_the_machine_as_it_was():
    pipeline = machine(symbols=())
    with pytest.raises(CheckpointError):
        pipeline.restore("BTCUSDT", b"")
    assert pipeline.feed(Frames(1, 1, 1, "a", [trade(1)])).data_messages == 0
