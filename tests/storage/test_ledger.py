"""The ledger: accounts of files, appended durably, read whatever a crash has torn, and made anew from the files alone."""

from __future__ import annotations

import errno
import os
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harvest.storage import ledger
from harvest.storage.account import Account, Gap, Span, entry_of, entry_of_file
from harvest.storage.files import DataDirectory
from harvest.storage.filesystem import Filesystem
from harvest.storage.kinds import UNKNOWN
from harvest.storage.parquet import Provenance, encode
from tests.storage.rows import DAY, one_of_each, sealed_trades

RUN = "20261122T000000Zabcd"
PROVENANCE = Provenance("binance-usdm", RUN)
FACTS = {
    "kind": "prices",
    "venue": "binance-usdm",
    "symbol": "BTCUSDT",
    "date": "2026-11-22",
    "run": RUN,
    "first_seq": "1",
    "last_seq": "9",
}


def publish(root, sealed):
    """Publish sealed rows as a run does; returns their entry."""
    encoded = encode(sealed, PROVENANCE)
    directory = DataDirectory(root)
    directory.publish(directory.path_of(sealed, venue="binance-usdm", run=RUN), encoded.data)
    return entry_of_file(encoded.data)


def entry(first_seq=1, symbol="BTCUSDT", day=DAY):
    return entry_of_file(
        encode(sealed_trades(symbol=symbol, day=day, first_seq=first_seq), PROVENANCE).data, duplicates=4
    )


def test_entries_come_back_in_the_order_in_which_they_were_appended(tmp_path):
    first, second, other = entry(1), entry(7), entry(1, "牛来USDT", DAY + 1)
    ledger.append(tmp_path, [first, other])
    ledger.append(tmp_path, [second])
    contents = ledger.read(tmp_path)
    assert contents.entries == [other, first, second]
    assert contents.problems == []
    assert contents.entries[1].duplicates == 4
    page = ledger.page_path(tmp_path, "binance-usdm", "BTCUSDT", first.date)
    assert ledger.read_page(page).entries == [first, second]


def test_an_empty_or_absent_ledger_has_no_entries(tmp_path):
    assert ledger.read(tmp_path).entries == []
    ledger.append(tmp_path, [])
    assert ledger.read(tmp_path) == ledger.Contents([], [])


@pytest.mark.parametrize("left", [1, 40, -1])
def test_a_torn_last_line_is_passed_over_and_named_and_the_next_entry_stays_whole(tmp_path, left):
    ledger.append(tmp_path, [entry(1)])
    (page,) = ledger.pages(tmp_path)
    whole = page.read_bytes()
    page.write_bytes(whole + whole[:left])
    torn = ledger.read(tmp_path)
    assert torn.entries == [entry(1)]
    assert len(torn.problems) == 1
    ledger.append(tmp_path, [entry(9)])
    healed = ledger.read(tmp_path)
    assert healed.entries[-1] == entry(9)
    # All of the line but its end is an entry.
    assert len(healed.entries) == (3 if left == -1 else 2)


def test_a_line_that_was_torn_is_completed_by_an_append_of_the_same(tmp_path):
    ledger.append(tmp_path, [entry(1), entry(5)])
    (page,) = ledger.pages(tmp_path)
    whole = page.read_bytes()
    for left in range(len(whole) + 1):
        page.write_bytes(whole[:left])
        ledger.append(tmp_path, [entry(1), entry(5)])
        assert page.read_bytes() == whole, left
    first = whole.index(b"\n") + 1
    for left in range(first, len(whole) + 1):
        page.write_bytes(whole[:left])
        ledger.append(tmp_path, [entry(5)])
        assert page.read_bytes() == whole, left


class Failing(Filesystem):
    """A disk that is full after so many bytes."""

    def __init__(self, room):
        self.room = room

    def write(self, descriptor, data):
        if not self.room:
            raise OSError(errno.ENOSPC, "full")
        written = os.write(descriptor, data[: self.room])
        self.room -= written
        return written


@pytest.mark.parametrize("room", [0, 1, 100])
def test_an_append_that_fails_can_be_done_again(tmp_path, room):
    ledger.append(tmp_path, [entry(1)])
    with pytest.raises(OSError, match="full"):
        ledger.append(tmp_path, [entry(5)], filesystem=Failing(room))
    ledger.append(tmp_path, [entry(5)])
    # Not even a torn line is left of it.
    assert ledger.read(tmp_path) == ledger.Contents([entry(1), entry(5)], [])


def test_a_rebuilt_ledger_is_what_the_writer_appended_but_for_duplicates(tmp_path):
    appended = [publish(tmp_path, sealed) for sealed in one_of_each()]
    ledger.append(tmp_path, appended)
    kept = sorted(ledger.read(tmp_path).entries, key=lambda one: one.kind)
    (page,) = ledger.pages(tmp_path)
    page.write_bytes(b"nonsense\n")
    rebuilt = ledger.rebuild(tmp_path)
    assert sorted(rebuilt.entries, key=lambda one: one.kind) == kept
    assert ledger.read(tmp_path) == rebuilt
    assert rebuilt.problems == []


def test_rebuilding_removes_what_no_file_speaks_of_and_names_what_cannot_be_read(tmp_path):
    publish(tmp_path, sealed_trades())
    ledger.append(tmp_path, [entry(1, "GONEUSDT")])
    broken = next(tmp_path.glob("prices/*/*/*")) / f"{RUN}-50-60.parquet"
    broken.write_bytes(b"PAR1")
    rebuilt = ledger.rebuild(tmp_path)
    assert [one.symbol for one in rebuilt.entries] == ["BTCUSDT"]
    assert len(rebuilt.problems) == 1
    assert str(broken) in rebuilt.problems[0]
    assert ledger.read(tmp_path).entries == rebuilt.entries


def test_the_accounts_of_all_kinds(tmp_path):
    entries = {sealed.kind.name: publish(tmp_path, sealed) for sealed in one_of_each()}
    # One row of the three came over REST, or all over the stream, as the hand-made rows have it.
    assert entries["prices"].ws == (Span(7, 9, 1000, 1002),)
    assert (entries["prices"].rows, entries["prices"].first_seq, entries["prices"].last_seq) == (3, 10, 12)
    # The snapshot has the id 3, which the first diff follows.
    assert entries["depth"].rest == (Span(3, 3, 1000, 1000),)
    assert entries["orderbook"].in_sync[0].from_id == 4
    assert entries["orderbook"].suspect == (Span(5, 5, 1000, 1000),)
    assert entries["breaks"].missing[0] == Gap("trade", 5, 6, 10, 20, "gap")
    assert entries["breaks"].missing[1].from_id is None
    assert entries["cvd"].rows == 3
    assert entries["prices"].file_name == f"{RUN}-10-12.parquet"


def rows_of(ids, sources=None):
    count = len(ids)
    return {
        "recv_ns": np.arange(count) + 100,
        "trade_id": np.array(ids, np.int64),
        "source": np.array(sources or ["ws"] * count, object),
    }


def test_ids_over_the_stream_and_over_rest_are_apart():
    found = entry_of(FACTS, rows_of([1, 2, 5, 3, 4, 9], ["ws", "ws", "ws", "rest", "rest", "ws"]))
    assert found.ws == (Span(1, 2, 100, 101), Span(5, 5, 102, 102), Span(9, 9, 105, 105))
    assert found.rest == (Span(3, 4, 103, 104),)


@settings(deadline=None)
@given(st.lists(st.integers(0, 40), unique=True, min_size=1), st.lists(st.integers(1, 40), max_size=4))
def test_spans_hold_exactly_the_ids_in_whatever_order_and_parts_they_come(ids, cuts):
    account = Account("prices", FACTS)
    for start, end in zip([0, *sorted(cuts)], [*sorted(cuts), len(ids)], strict=True):
        account.add(rows_of(ids[start:end]))
    spans = account.close().ws
    assert [at for span in spans for at in range(span.from_id, span.to_id + 1)] == sorted(ids)
    assert all(after.from_id > before.to_id + 1 for before, after in pairwise(spans))


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 5)), min_size=1, max_size=30), st.booleans())
def test_the_chain_of_depth_is_cut_where_a_link_is_missing_and_nowhere_else(steps, is_spot):
    first, last, prev, at = [], [], [], 100
    holes = 0
    for skipped, size in steps:
        holes += bool(skipped and first)
        start = at + skipped
        first.append(start + 1)
        prev.append(UNKNOWN if is_spot else start)
        at = start + size
        last.append(at)
    count = len(first)
    account = Account("depth", FACTS | {"kind": "depth"})
    for part in (slice(0, count // 2), slice(count // 2, None)):
        account.add(
            {
                "recv_ns": np.arange(count)[part],
                "source": np.array(["ws"] * count, object)[part],
                "is_snapshot": np.zeros(count, np.bool_)[part],
                "first_update_id": np.array(first)[part],
                "last_update_id": np.array(last)[part],
                "prev_update_id": np.array(prev)[part],
            }
        )
    spans = account.close().ws
    assert len(spans) == holes + 1
    assert (spans[0].from_id, spans[-1].to_id) == (first[0] - 1, last[-1])


def test_an_entry_can_be_made_of_the_encoded_file_alone():
    encoded = encode(sealed_trades(), PROVENANCE)
    assert entry_of_file(pa.py_buffer(encoded.data.to_pybytes())) == entry_of_file(encoded.data)
    with pytest.raises(pa.ArrowException):
        entry_of_file(pa.py_buffer(b"nothing"))
