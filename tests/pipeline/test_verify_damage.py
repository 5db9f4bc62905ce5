"""Damage: each sort that a disk, a copy or a hand can do to files is found, and named by ids where rows are concerned."""

from __future__ import annotations

import random
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bench.stored_faults import rewrite
from harvest.storage.layout import date_text
from tests.pipeline.stored import (
    RUN_1,
    RUN_2,
    Market,
    Run,
    damage,
    files,
    gaps,
    record,
    recorded,
    series,
    verified,
)
from tests.pipeline.wire import DAY, MIDNIGHT_MS, diff, trade

KINDS = ("prices", "depth", "orderbook", "ofi", "cvd")
every_kind = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    root = tmp_path_factory.mktemp("clean")
    recorded(root)
    return root


@pytest.fixture
def root(clean, tmp_path):
    return shutil.copytree(clean, tmp_path / "data")


def whats(report, kind=None):
    return {one.what for one in report.damage if kind in (None, one.kind)}


@every_kind
@pytest.mark.parametrize("left", [0, 3, 0.5, -1])
def test_a_truncated_file_is_unreadable(root, kind, left):
    path = files(root, kind)[0]
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * left) if left == 0.5 else left])
    report = verified(root)
    assert report.exit_code == 3
    named = [one for one in report.damage if one.what == "unreadable"]
    assert [one.path for one in named] == [path.relative_to(root).as_posix()]


@every_kind
def test_a_flipped_bit_in_a_page_that_has_a_checksum_is_found(root, kind):
    path = files(root, kind)[0]
    facts, table = pq.read_metadata(path).metadata, pq.read_table(path, partitioning=None)
    schema = pq.read_schema(path).remove_metadata()
    with pq.ParquetWriter(path, schema, store_schema=False, write_page_checksum=True) as writer:
        writer.write_table(table.cast(schema))
        writer.add_key_value_metadata({key.decode(): value.decode() for key, value in facts.items()})
    assert verified(root).complete
    sound = path.read_bytes()
    group = pq.read_metadata(path).row_group(0)
    chaos = random.Random(kind)
    for column in range(group.num_columns):
        chunk = group.column(column)
        # The page's data, behind its header.
        end = chunk.data_page_offset + chunk.total_compressed_size
        if chunk.dictionary_page_offset is not None:
            end = chunk.dictionary_page_offset + chunk.total_compressed_size
        spoilt = bytearray(sound)
        spoilt[end - chaos.randrange(1, 4)] ^= 1 << chaos.randrange(8)
        path.write_bytes(spoilt)
        report = verified(root)
        assert report.exit_code == 3, group.column(column).path_in_schema
        assert "unreadable" in whats(report, kind)


@every_kind
@pytest.mark.parametrize(
    "facts",
    [
        *({"rows": "7"}, {"first_seq": "0"}, {"last_seq": "99999"}, {"first_id": "1"}, {"last_id": "99"}),
        *({"last_recv_ns": "5"}, {"first_time": "2024-07-18T00:00:00.000000Z"}, {"kind": "trades"}),
        *({"symbol": "ETHUSDT"}, {"run": RUN_2}, {"date": "2024-07-17"}, {"venue": "binance-spot"}),
        *({"simulated": "true"}, {"schema": "99"}),
    ],
    ids=lambda facts: next(iter(facts)),
)
def test_metadata_that_are_not_those_of_the_rows_are_found(root, kind, facts):
    path = files(root, kind)[0]
    rewrite(path, pq.read_table(path, partitioning=None), **facts)
    report = verified(root)
    assert report.exit_code == 3
    assert [(one.what, one.path) for one in report.damage] == [
        ("metadata", path.relative_to(root).as_posix())
    ]
    assert next(iter(facts)) in report.damage[0].detail


@every_kind
def test_a_file_in_another_date_is_found(root, kind):
    path = files(root, kind)[0]
    there = path.parent.with_name(f"date={date_text(DAY + 4)}")
    there.mkdir()
    path.rename(there / path.name)
    report = verified(root)
    assert report.exit_code == 3
    assert "metadata" in whats(report, kind)
    # The trade time of a sum is in its trade alone.
    assert ("date" if kind != "cvd" else "surplus") in whats(report, kind)


@every_kind
def test_a_file_twice_under_another_runs_name_is_found(root, kind):
    path = files(root, kind)[0]
    shutil.copy(path, path.with_name(path.name.replace(RUN_1, RUN_2)))
    report = verified(root)
    assert report.exit_code == 3
    assert {"metadata", "overlap"} <= whats(report, kind)
    if kind in ("prices", "depth"):
        (rows,) = [one.rows for one in report.damage if (one.what, one.kind) == ("duplicate", kind)]
        assert series(report, kind).duplicates == rows
        ids = pq.read_table(path, partitioning=None)
        assert rows == len(ids) - (kind == "depth")


@every_kind
@pytest.mark.parametrize("name", ["copy of a file.parquet", f"{RUN_1}-1-2 (1).parquet"])
def test_a_parquet_file_that_readers_would_take_for_data_is_damage(root, kind, name):
    path = files(root, kind)[0]
    shutil.copy(path, path.with_name(name))
    report = verified(root)
    assert report.exit_code == 3
    assert whats(report) == {"foreign"}


@every_kind
def test_a_file_with_other_columns_is_found(root, kind):
    path = files(root, kind)[0]
    table = pq.read_table(path, partitioning=None)
    pq.write_table(table.append_column("more", pa.nulls(len(table), pa.int64())), path)
    assert "schema" in whats(verified(root), kind)


def changed(path, column, row, value):
    table = pq.read_table(path, partitioning=None)
    values = table[column].to_pylist()
    values[row] = value if not callable(value) else value(values[row])
    place = table.schema.get_field_index(column)
    field = table.schema.field(column)
    rewrite(path, table.set_column(place, field, pa.array(values, field.type)))
    return table


@pytest.mark.parametrize(
    ("kind", "column", "value"),
    [
        ("orderbook", "bid_px_0", lambda px: px - 0.5),
        ("orderbook", "ask_qty_1", lambda qty: np.nextafter(qty, 9)),
        ("orderbook", "suspect", True),
        ("orderbook", "recv_ns", lambda ns: ns + 1),
        ("ofi", "ofi_1", lambda ofi: ofi + 1),
        ("ofi", "ofi_10", lambda ofi: np.nextafter(ofi, 9)),
        ("ofi", "ofi_z", 0.5),
        ("cvd", "delta", lambda delta: -delta),
        ("cvd", "cvd", lambda total: np.nextafter(total, 99)),
    ],
)
def test_a_changed_number_in_what_follows_from_other_rows_is_named_by_its_id(root, kind, column, value):
    path = files(root, kind)[0]
    table = changed(path, column, 9, value)
    row_id = table["trade_id" if kind == "cvd" else "update_id"][9].as_py()
    report = verified(root)
    named = [one for one in report.damage if one.what == "differs"]
    assert [(one.kind, one.from_id, one.to_id, one.rows) for one in named] == [(kind, row_id, row_id, 1)]
    assert column in named[0].detail


def test_a_changed_quantity_of_a_trade_shows_in_the_sum(root):
    path = files(root, "prices")[0]
    table = changed(path, "qty", 9, lambda qty: qty + 1)
    row_id = table["trade_id"][9].as_py()
    assert damage(verified(root)) == [("differs", "cvd", row_id, row_id)]


@pytest.mark.parametrize("column", ["bid_qty", "ask_px"])
def test_a_changed_level_of_a_diff_shows_in_the_book(root, column):
    path = files(root, "depth")[1]
    # The row before is the date's first book, which is no diff.
    table = changed(path, column, 0, lambda levels: [levels[0] + 0.25, *levels[1:]])
    assert table["source"][0].as_py() == "book"
    assert ("differs", "depth") in {(one.what, one.kind) for one in verified(root).damage}
    recorded_again = files(root, "depth")[0]
    changed(recorded_again, column, 5, lambda levels: [*levels[:-1], levels[-1] + 0.25])
    assert verified(root).exit_code == 3


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0])
def test_a_level_that_is_none_is_found(root, value):
    table = changed(files(root, "depth")[0], "ask_qty", 9, lambda levels: [value, *levels[1:]])
    found = [one for one in verified(root).damage if one.what == "value"]
    row_id = table["last_update_id"][9].as_py()
    assert [(one.kind, one.from_id, one.to_id) for one in found] == [("depth", row_id, row_id)]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0])
def test_a_quantity_that_is_none_is_found(root, value):
    table = changed(files(root, "prices")[0], "qty", 4, value)
    found = [one for one in verified(root).damage if one.what == "value"]
    row_id = table["trade_id"][4].as_py()
    assert [(one.kind, one.from_id, one.to_id) for one in found] == [("prices", row_id, row_id)]


@every_kind
def test_a_lost_file_is_found(root, kind):
    files(root, kind)[-1].unlink()
    report = verified(root)
    assert report.exit_code == 3
    if kind in ("prices", "depth"):
        # What followed from it is there without it.
        lost = "cvd" if kind == "prices" else "orderbook"
        assert whats(report, lost) == {"surplus"}
    else:
        assert whats(report) == {"absent"}


def test_a_date_that_does_not_begin_with_the_whole_book_is_found(root):
    path = files(root, "depth")[1]
    rewrite(path, pq.read_table(path, partitioning=None).slice(1))
    assert ("absent", "depth") in {(one.what, one.kind) for one in verified(root).damage}


def test_crossed_books_are_found_though_they_follow_from_depth(tmp_path):
    run, market = Run(tmp_path), Market()
    record(run, market, 2)
    run.body(market.book())
    last = market.update_id
    run.frames(diff(last + 1, last + 2, last, bids=[(103.0, 1.0)], at_ms=market.at_ms))
    run.frames(diff(last + 3, last + 4, last + 2, bids=[(103.0, 0.0)], at_ms=market.at_ms))
    run.publish()
    assert damage(verified(tmp_path)) == [("crossed", "orderbook", last + 2, last + 2)]


def test_trades_that_two_runs_stored_are_duplicates_with_their_ids(tmp_path):
    first = Run(tmp_path)
    for number in range(10, 20):
        first.frames(trade(number, at_ms=MIDNIGHT_MS - 5000))
    first.publish()
    second = Run(tmp_path, RUN_2)
    for number in range(17, 25):
        second.frames(trade(number, at_ms=MIDNIGHT_MS - 4000))
    second.publish()
    report = verified(tmp_path)
    assert ("duplicate", "prices", 17, 19) in damage(report)
    assert series(report, "prices").duplicates == 3
    assert gaps(report, "prices") == []
    assert report.exit_code == 3


def test_after_rows_were_lost_the_book_is_judged_again_from_the_next_date_on(tmp_path):
    recorded(tmp_path, ticks=400)
    path = files(tmp_path, "depth")[0]
    table = pq.read_table(path, partitioning=None)
    rewrite(path, pa.concat_tables([table.slice(0, 10), table.slice(11)]))
    report = verified(tmp_path)
    assert [why for _, _, why in gaps(report, "depth")] == ["unexplained"]
    # The rows that followed from it are still there.
    lost = table["last_update_id"][10].as_py()
    assert damage(report) == [("surplus", kind, lost, lost) for kind in ("orderbook", "ofi")]
    assert any("cannot be judged" in line for line in report.warnings)
    other = files(tmp_path, "orderbook")[1]
    row = changed(other, "ask_qty_1", 5, lambda qty: qty + 1)["update_id"][5].as_py()
    assert ("differs", "orderbook", row, row) in damage(verified(tmp_path))


def test_a_lost_sum_is_one_finding_though_the_sums_after_it_hold_it(root):
    path = files(root, "cvd")[1]
    table = pq.read_table(path, partitioning=None)
    rewrite(path, pa.concat_tables([table.slice(0, 5), table.slice(6)]))
    row_id = table["trade_id"][5].as_py()
    assert damage(verified(root)) == [("absent", "cvd", row_id, row_id)]


def test_findings_of_one_sort_are_bounded(tmp_path):
    run = Run(tmp_path)
    for number in range(2500):
        run.frames(trade(number + 1))
    run.publish()
    (path,) = files(tmp_path, "cvd")
    table = pq.read_table(path, partitioning=None)
    flipped = np.where(np.arange(2500) % 2, 1, -1) * table["delta"].to_numpy()
    place = table.schema.get_field_index("delta")
    rewrite(path, table.set_column(place, table.schema.field("delta"), pa.array(flipped)))
    report = verified(tmp_path)
    assert len(report.damage) == 1001
    assert "250 more" in report.damage[-1].detail
