"""Every record goes into the journal and comes out the same."""

from __future__ import annotations

from typing import get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harvest.market import CHANNELS
from harvest.pipeline.journal_records import KINDS, decode_record, encode_record
from harvest.pipeline.records import ChannelBody, Checkpoint, Frames, Record, SnapshotBody
from harvest.storage.journal import Entry, JournalError
from harvest.storage.journal.entries import FIRST_KIND, LAST_KIND, LOST
from tests.pipeline.wire import Harness, diff, trade

INTEGERS = st.integers(0, 2**63 - 1)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
FIELDS = {
    "seq": INTEGERS,
    "recv_ns": INTEGERS,
    "mono_ns": INTEGERS,
    "connection": TEXTS,
    "frames": st.lists(st.binary(max_size=100), max_size=20) | st.binary(max_size=1000),
    "symbol": TEXTS,
    "symbols": st.lists(TEXTS, max_size=5).map(tuple),
    "body": st.binary(max_size=300),
    "state": st.binary(max_size=300),
    "feed": st.sampled_from(["trade", "orderbook", *CHANNELS]),
    "reason": TEXTS,
    "from_id": INTEGERS,
    "to_id": INTEGERS,
    "from_ns": INTEGERS,
    "lost_frames": INTEGERS,
    "round": INTEGERS,
    "of": INTEGERS,
    "failed": INTEGERS,
    "added": st.dictionaries(TEXTS, st.none() | INTEGERS, max_size=5),
    "removed": st.lists(TEXTS, max_size=5).map(tuple),
    "last_trade_ids": st.dictionaries(TEXTS, INTEGERS, max_size=5),
    "wants_missing": st.booleans(),
    "open_gaps": st.dictionaries(TEXTS, st.lists(st.tuples(INTEGERS, INTEGERS), max_size=3), max_size=3),
}
#: What REST is asked for belongs to no feed of trades or books.
CHANNEL_FIELDS = FIELDS | {"feed": st.sampled_from(CHANNELS)}


def fields_of(kind):
    known = CHANNEL_FIELDS if kind is ChannelBody else FIELDS
    return {name: known[name] for name in kind.__struct_fields__}


RECORDS = st.one_of(*(st.builds(kind, **fields_of(kind)) for kind in get_args(Record)))


@given(RECORDS)
def test_every_record_comes_back_as_it_was(record: Record) -> None:
    back = decode_record(Entry(*encode_record(record)))
    assert type(back) is type(record)
    assert back == record


def test_every_kind_of_record_has_a_number_of_its_own_that_is_the_callers_to_give() -> None:
    assert set(KINDS) == set(get_args(Record))
    assert len(set(KINDS.values())) == len(KINDS)
    assert all(FIRST_KIND <= kind <= LAST_KIND for kind in KINDS.values())


def test_the_bytes_of_an_entry_are_those_that_are_on_disks_already() -> None:
    kind, seq, body = encode_record(Frames(7, 8, 9, "trade-1", [b"ab", b""]))
    assert (kind, seq, body) == (16, 7, b"\x95\x07\x08\x09\xa7trade-1\x92\xc4\x02ab\xc4\x00")
    assert encode_record(SnapshotBody(1, 2, 3, "牛", b"{}"))[2] == "\x95\x01\x02\x03".encode("latin1") + (
        b"\xa3\xe7\x89\x9b\xc4\x02{}"
    )
    assert msgspec.msgpack.decode(body) == [7, 8, 9, "trade-1", [b"ab", b""]]


@pytest.mark.parametrize("body", [b"", b"\x90", b"\xc1", b"\x95\x07\x08\x09\xa2\xff\xfe\x90"])
def test_a_body_that_is_no_record_is_an_error_with_its_number(body: bytes) -> None:
    with pytest.raises(JournalError, match="entry 4711 of the journal cannot be understood"):
        decode_record(Entry(KINDS[Frames], 4711, body))


def test_an_entry_of_the_journals_own_is_no_record() -> None:
    with pytest.raises(JournalError, match="kind 1, which is no record"):
        decode_record(Entry(LOST, 3, b""))


def test_a_checkpoint_changes_nothing() -> None:
    harness = Harness()
    harness.frames(trade(1))
    before = harness.column("prices", "trade_id")
    outcome = harness.pipeline.feed(Checkpoint(2, harness.recv_ns, 2, "BTCUSDT", 1, 1, b"state"))
    assert (outcome.data_messages, outcome.events) == (0, [])
    assert harness.column("prices", "trade_id") == before


def test_the_records_of_a_journal_make_the_rows_that_the_records_themselves_make() -> None:
    direct, replayed = Harness(), Harness()
    blocks = [
        [trade(1), trade(2)],
        [diff(1, 2, 0, [(1.0, 1.0)])],
        [b"broken", trade(3)],
    ]
    for number, frames in enumerate(blocks, start=1):
        record = Frames(number, direct.recv_ns + number, number, "trade-1", frames)
        direct.pipeline.feed(record)
        replayed.pipeline.feed(decode_record(Entry(*encode_record(record))))
    for kind in ("prices", "depth"):
        assert direct.rows(kind) == replayed.rows(kind) != []
