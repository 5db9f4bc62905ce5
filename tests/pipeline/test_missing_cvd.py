"""Rows of ``cvd`` that are in no file, derived from the files of ``prices``."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from harvest.pipeline.missing_cvd import UnreadablePricesError, missing_cvd
from harvest.pipeline.recover import complete
from harvest.storage.catalog import scan
from harvest.storage.compaction import Options, compact
from harvest.storage.files import DataDirectory
from harvest.storage.parquet import Provenance
from tests.pipeline.test_recover import RUN, record_into, recover_into, stored_tables
from tests.pipeline.troubled import Key, Troubled

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("seed", range(3))
def test_whichever_files_of_cvd_are_missing_they_come_again_without_a_journal(
    tmp_path: Path, seed: int
) -> None:
    chaos = random.Random(seed)
    record_into(tmp_path, Troubled(chaos, 80).records, chaos)
    expected = stored_tables(tmp_path)
    assert any(kind == "cvd" for kind, _, _ in expected)
    for path in sorted((tmp_path / "cvd").rglob("*.parquet")):
        if chaos.random() < 0.6:
            path.unlink()
    assert stored_tables(tmp_path) != expected
    recover_into(tmp_path, [])
    assert stored_tables(tmp_path) == expected


@pytest.mark.parametrize("seed", range(3))
def test_compacted_files_may_lie_around_what_is_missing(tmp_path: Path, seed: int) -> None:
    chaos = random.Random(seed)
    record_into(tmp_path, Troubled(chaos, 80).records, chaos)
    expected = stored_tables(tmp_path)
    aside = []
    for path in sorted((tmp_path / "prices").rglob("*.parquet")):
        # Some come only after all others were compacted, as from a journal.
        if chaos.random() < 0.3:
            aside.append((path, path.read_bytes()))
            path.unlink()
    for path in sorted((tmp_path / "cvd").rglob("*.parquet")):
        if chaos.random() < 0.5:
            path.unlink()
    assert compact(tmp_path, Options.at(2 * 10**18)).problems == []
    for path, data in aside:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    recover_into(tmp_path, [])
    assert in_order(tmp_path, "cvd") == {key: table for key, table in expected.items() if key[0] == "cvd"}


def in_order(root: Path, kind: str) -> dict[Key, pa.Table]:
    """Read a kind, a table a directory; files may lie around others."""
    catalog = scan(root, "binance-usdm")
    tables = {}
    for symbol in catalog.symbols(kind):
        for day in catalog.days(kind, symbol):
            parts = [pq.ParquetFile(file.path).read() for file in catalog.files(kind, symbol, day)]
            rows = pa.concat_tables(parts)
            tables[kind, symbol, day] = rows.take(
                pc.sort_indices(rows, [("seq", "ascending")])
            ).combine_chunks()
    return tables


def test_nothing_is_missing_where_all_is_there(tmp_path: Path) -> None:
    record_into(tmp_path, Troubled(random.Random(1), 40).records, random.Random(1))
    catalog = scan(tmp_path, "binance-usdm")
    days = [(symbol, day) for symbol in catalog.symbols("prices") for day in catalog.days("prices", symbol)]
    assert days
    assert [sealed for symbol, day in days for sealed in missing_cvd(catalog, symbol, day)] == []


def test_prices_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    record_into(tmp_path, Troubled(random.Random(1), 40).records, random.Random(1))
    for path in (tmp_path / "cvd").rglob("*.parquet"):
        path.unlink()
    damaged = sorted((tmp_path / "prices").rglob("*.parquet"))[0]
    damaged.write_bytes(b"PAR1")
    catalog = scan(tmp_path, "binance-usdm")
    symbol = catalog.symbols("prices")[0]
    with pytest.raises(UnreadablePricesError, match=damaged.name):
        list(missing_cvd(catalog, symbol, catalog.days("prices", symbol)[0]))
    report = complete(
        catalog=catalog,
        directory=DataDirectory(tmp_path),
        provenance=Provenance("binance-usdm", RUN),
    )
    assert any(damaged.name in problem and "its cvd is not derived" in problem for problem in report.problems)
