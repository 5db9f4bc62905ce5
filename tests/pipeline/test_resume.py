"""What a run takes over from the files of those before it."""

from __future__ import annotations

import pytest

from harvest.errors import IdSpaceError
from harvest.pipeline.resume import check_id_space, resume_cvd
from harvest.storage.catalog import scan
from tests.pipeline.ingested import ingest, write_recording
from tests.pipeline.wire import DAY, MIDNIGHT_MS, trade


def recorded(tmp_path):
    frames = [
        trade(1, qty=0.1, at_ms=MIDNIGHT_MS - 2),
        trade(2, qty=0.2, at_ms=MIDNIGHT_MS - 1),
        trade(3, qty=5.0, sold=True, at_ms=MIDNIGHT_MS),
    ]
    root = tmp_path / "data"
    ingest([write_recording(tmp_path / "a", frames)], root)
    return root


def test_sums_are_those_of_the_dates_last_rows_exactly_and_zero_where_there_are_none(tmp_path):
    catalog = scan(recorded(tmp_path), "binance-usdm")
    resume = resume_cvd(catalog)
    assert resume("BTCUSDT", DAY) == 30_000_000
    assert resume("BTCUSDT", DAY + 1) == -500_000_000
    assert resume("BTCUSDT", DAY + 2) == resume("ETHUSDT", DAY) == 0


def test_sums_that_were_read_at_once_need_no_file_later(tmp_path):
    root = recorded(tmp_path)
    resume = resume_cvd(scan(root, "binance-usdm"), ["BTCUSDT", "ETHUSDT"], DAY + 1)
    for path in root.rglob("*.parquet"):
        path.unlink()
    assert resume("BTCUSDT", DAY + 1) == -500_000_000
    assert resume("ETHUSDT", DAY + 1) == 0


def test_venues_know_nothing_of_each_other(tmp_path):
    assert resume_cvd(scan(recorded(tmp_path), "binance-spot"))("BTCUSDT", DAY) == 0


def test_other_trade_ids_than_the_stored_ones_are_refused_by_symbol(tmp_path):
    catalog = scan(recorded(tmp_path), "binance-usdm")
    check_id_space(catalog, ["BTCUSDT", "ETHUSDT"], "raw")
    check_id_space(catalog, ["ETHUSDT"], "aggregate")
    with pytest.raises(IdSpaceError) as caught:
        check_id_space(catalog, ["ETHUSDT", "BTCUSDT"], "aggregate")
    assert (caught.value.stored, caught.value.asked) == ("raw", "aggregate")
    assert "BTCUSDT" in caught.value.path
