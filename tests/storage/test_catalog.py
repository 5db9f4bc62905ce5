from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from harvest.storage.catalog import Catalog, Damage, scan
from harvest.storage.files import DataDirectory
from harvest.storage.parquet import Provenance, encode
from tests.storage.rows import DAY, sealed_sums, sealed_trades

if TYPE_CHECKING:
    from pathlib import Path

    from harvest.market import IdSpace
    from harvest.storage.tables import Sealed

FIRST, SECOND = "20261122T000000Z00ff", "20261122T010000Z00aa"
VENUE = "binance-usdm"


def store(
    root: Path,
    sealed: Sealed,
    *,
    run: str = FIRST,
    venue: str = VENUE,
    trade_ids: IdSpace | None = "aggregate",
) -> Path:
    directory = DataDirectory(root)
    path = directory.path_of(sealed, venue=venue, run=run)
    directory.publish(path, encode(sealed, Provenance(venue, run, trade_ids=trade_ids)).data)
    return path


def test_an_empty_or_missing_directory_begins_at_one(tmp_path: Path) -> None:
    for root in (tmp_path, tmp_path / "missing"):
        catalog = scan(root, VENUE)
        assert catalog.next_seq == 1
        assert catalog.runs == catalog.damage == catalog.symbols("prices") == []
        assert catalog.files("prices", "BTCUSDT", DAY) == []
        assert catalog.id_space("BTCUSDT") is None
        assert catalog.last_trade_id("BTCUSDT") is None
        assert catalog.last_cvd("BTCUSDT", DAY) is None


def test_seq_goes_on_after_the_last_of_any_venue_and_kind(tmp_path: Path) -> None:
    store(tmp_path, sealed_trades(3, first_seq=5))
    store(tmp_path, sealed_sums([1.0], first_seq=90))
    store(tmp_path, sealed_trades(2, first_seq=100), venue="simulated-binance-spot")
    assert scan(tmp_path, VENUE).next_seq == 102


def test_files_of_a_directory_come_in_the_order_of_their_rows(tmp_path: Path) -> None:
    late = store(tmp_path, sealed_trades(1, first_seq=100), run=SECOND)
    early = [store(tmp_path, sealed_trades(3, first_seq=seq)) for seq in (20, 9, 3)]
    store(tmp_path, sealed_trades(3, first_seq=200, day=DAY + 1))
    store(tmp_path, sealed_trades(3, first_seq=300, symbol="../x"))
    store(tmp_path, sealed_trades(1, first_seq=1), venue="binance-spot")
    catalog = scan(tmp_path, VENUE)
    files = catalog.files("prices", "BTCUSDT", DAY)
    assert [file.path for file in files] == [*reversed(early), late]
    assert (files[0].run, files[0].first_seq, files[0].last_seq) == (FIRST, 3, 5)
    assert catalog.days("prices", "BTCUSDT") == [DAY, DAY + 1]
    assert catalog.symbols("prices") == ["../x", "BTCUSDT"]
    assert catalog.runs == [FIRST, SECOND]
    assert catalog.damage == []


def test_what_is_hidden_or_private_is_passed_over(tmp_path: Path) -> None:
    path = store(tmp_path, sealed_trades(3))
    path.with_name(f".{path.name}.tmp").write_text("torn")
    (tmp_path / ".DS_Store").touch()
    (tmp_path / "_quarantine").mkdir()
    (tmp_path / "_quarantine" / "20261122.jsonl").touch()
    catalog = scan(tmp_path, VENUE)
    assert catalog.next_seq == 4
    assert catalog.damage == []


def test_foreign_names_are_reported_and_do_no_harm(tmp_path: Path) -> None:
    path = store(tmp_path, sealed_trades(3))
    foreign = {
        tmp_path / "notes.txt": "not a directory",
        tmp_path / "prices" / "venue": "not a directory venue=…",
        path.parent / "copy of file.parquet": "harvest gives no such name",
        path.parent.with_name("date=tomorrow"): "'tomorrow' is not a date",
        path.parent.with_name("date=2026-02-30"): "'2026-02-30' is not a date",
        path.parent.parent.with_name("symbol=a.b"): "'a.b' is not an encoded symbol",
    }
    for place in foreign:
        if place.suffix in (".txt", ".parquet"):
            place.touch()
        else:
            place.mkdir()
    catalog = scan(tmp_path, VENUE)
    assert {damage.path: damage.why for damage in catalog.damage} == foreign
    assert catalog.next_seq == 4


def test_the_running_sum_is_that_of_the_last_row_by_seq(tmp_path: Path) -> None:
    store(tmp_path, sealed_sums([7.0, 8.5], first_seq=50), run=SECOND)
    store(tmp_path, sealed_sums([1.0, 2.0, -3.0], first_seq=9))
    store(tmp_path, sealed_sums([9.0], first_seq=70, day=DAY + 1))
    catalog = scan(tmp_path, VENUE)
    assert catalog.last_cvd("BTCUSDT", DAY) == 8.5
    assert catalog.last_cvd("BTCUSDT", DAY + 1) == 9.0
    assert catalog.last_cvd("BTCUSDT", DAY + 2) is None
    assert catalog.last_cvd("ETHUSDT", DAY) is None


def test_trade_ids_and_their_space_come_from_the_newest_files(tmp_path: Path) -> None:
    store(tmp_path, sealed_trades(3, first_seq=1, first_id=10), trade_ids="raw")
    store(tmp_path, sealed_trades(3, first_seq=10, first_id=20, day=DAY + 1), trade_ids="raw")
    store(tmp_path, sealed_trades(1, first_seq=20, first_id=15, day=DAY + 1), trade_ids=None)
    store(tmp_path, sealed_trades(1, symbol="ETHUSDT", first_id=999))
    catalog = scan(tmp_path, VENUE)
    assert catalog.last_trade_id("BTCUSDT") == 22, "the last file holds nothing but an id that came late"
    assert catalog.id_space("BTCUSDT") == "raw"
    assert catalog.id_space("ETHUSDT") == "aggregate"


@pytest.mark.parametrize("content", [b"", b"PAR1", b"PAR1" + bytes(100) + b"PAR1", b"\xff" * 5000])
def test_damaged_files_are_reported_and_passed_over(tmp_path: Path, content: bytes) -> None:
    store(tmp_path, sealed_trades(3, first_seq=1, first_id=10))
    store(tmp_path, sealed_sums([2.0], first_seq=1))
    trades = store(tmp_path, sealed_trades(3, first_seq=10, first_id=20))
    sums = store(tmp_path, sealed_sums([5.0], first_seq=10))
    for path in (trades, sums):
        path.write_bytes(content)
    catalog = scan(tmp_path, VENUE)
    assert catalog.next_seq == 13, "a name counts, whatever the file holds"
    assert catalog.last_trade_id("BTCUSDT") == 12
    assert catalog.last_cvd("BTCUSDT", DAY) == 2.0
    assert [damage.path for damage in catalog.damage] == [trades, sums]
    assert all(damage.why.startswith("cannot be read: ") for damage in catalog.damage)


def test_a_parquet_file_of_somebody_else_is_damage_not_a_crash(tmp_path: Path) -> None:
    sums = store(tmp_path, sealed_sums([5.0], first_seq=10))
    trades = store(tmp_path, sealed_trades(3))
    for path in (sums, trades):
        path.unlink()
        pq.write_table(pa.table({"other": [1]}), path)
    catalog = scan(tmp_path, VENUE)
    assert catalog.last_cvd("BTCUSDT", DAY) is None
    assert [damage.path for damage in catalog.damage] == [sums]
    assert catalog.id_space("BTCUSDT") is None
    assert catalog.last_trade_id("BTCUSDT") is None


def test_a_file_that_vanished_since_the_scan_is_damage_not_a_crash(tmp_path: Path) -> None:
    path = store(tmp_path, sealed_sums([5.0]))
    catalog = scan(tmp_path, VENUE)
    path.unlink()
    assert catalog.last_cvd("BTCUSDT", DAY) is None
    assert catalog.damage[0].path == path


def test_a_directory_that_cannot_be_listed_is_damage_not_a_crash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = store(tmp_path, sealed_trades(3))
    store(tmp_path, sealed_trades(2, first_seq=7, symbol="ETHUSDT"))

    def scandir(directory: str) -> object:
        if directory == str(path.parent):
            raise PermissionError(13, "Permission denied")
        return real(directory)

    real = os.scandir
    monkeypatch.setattr("harvest.storage.catalog.os.scandir", scandir)
    catalog = scan(tmp_path, VENUE)
    assert catalog.damage == [Damage(path.parent, "cannot be listed: Permission denied")]
    assert catalog.next_seq == 9


def test_a_catalog_says_what_it_is_of(tmp_path: Path) -> None:
    catalog = scan(tmp_path, VENUE)
    assert isinstance(catalog, Catalog)
    assert (catalog.root, catalog.venue) == (tmp_path, VENUE)
