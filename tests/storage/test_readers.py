"""Real readers open a directory of files by one line each, and find the types that docs/data.md promises."""

from __future__ import annotations

import datetime
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.dataset as ds
import pytest

from harvest.storage.files import DataDirectory
from harvest.storage.kinds import LEVELS, TIME
from harvest.storage.parquet import Provenance, encode
from tests.storage.rows import expected_rows, one_of_each, sealed_trades

if TYPE_CHECKING:
    from harvest.storage.kinds import Kind

duckdb = pytest.importorskip("duckdb", reason="the readers are not installed")
pd = pytest.importorskip("pandas", reason="the readers are not installed")
pl = pytest.importorskip("polars", reason="the readers are not installed")

RUN = "20261122T000000Z00ff"
SYMBOLS = ["BTCUSDT", "牛来USDT", "../x", ".", "a%41b", "a=b", "a/b:c", "x y", "CON", "1000", "~t", "#&?+"]
KINDS = [sealed.kind for sealed in one_of_each()]

DUCKDB_TYPES = {
    pa.int64(): "BIGINT",
    pa.float64(): "DOUBLE",
    pa.bool_(): "BOOLEAN",
    pa.string(): "VARCHAR",
    TIME: "TIMESTAMP WITH TIME ZONE",
    LEVELS: "DOUBLE[]",
}
POLARS_TYPES: dict[pa.DataType, Any] = {
    pa.int64(): pl.Int64(),
    pa.float64(): pl.Float64(),
    pa.bool_(): pl.Boolean(),
    pa.string(): pl.String(),
    TIME: pl.Datetime("us", "UTC"),
    LEVELS: pl.List(pl.Float64()),
}
PANDAS_TYPES = {
    pa.int64(): {"int64", "float64"},
    pa.float64(): {"float64"},
    pa.bool_(): {"bool"},
    pa.string(): {"str", "object"},
    TIME: {"datetime64[us, UTC]"},
    LEVELS: {"object"},
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("readers") / "data"
    directory = DataDirectory(root)
    tables = one_of_each() + [sealed_trades(2, symbol=symbol, first_seq=50) for symbol in SYMBOLS[1:]]
    for sealed in tables:
        path = directory.path_of(sealed, venue="binance-usdm", run=RUN)
        directory.publish(path, encode(sealed, Provenance("binance-usdm", RUN, trade_ids="raw")).data)
        # What a crash leaves must not disturb a reader.
        path.with_name(f".{path.name}.tmp").write_bytes(b"torn")
    return root


def expected(kind: Kind) -> list[dict[str, Any]]:
    (sealed,) = (sealed for sealed in one_of_each() if sealed.kind.name == kind.name)
    return expected_rows(sealed)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_duckdb_reads_every_kind_by_one_line(data: Path, kind: Kind) -> None:
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        files = f"{data}/{kind.name}/**/*.parquet"
        relation = connection.sql(f"SELECT * FROM '{files}' WHERE symbol = 'BTCUSDT' ORDER BY seq")
        types = dict(zip(relation.columns, map(str, relation.types), strict=True))
        assert types == {
            **{column.name: DUCKDB_TYPES[column.type] for column in kind.columns},
            "venue": "VARCHAR",
            "symbol": "VARCHAR",
            "date": "DATE",
        }
        rows = [dict(zip(relation.columns, row, strict=True)) for row in relation.fetchall()]
        for row in rows:
            partition = {key: row.pop(key) for key in ("venue", "symbol", "date")}
            assert partition == {
                "venue": "binance-usdm",
                "symbol": "BTCUSDT",
                "date": datetime.date(2026, 11, 22),
            }
        assert rows == expected(kind)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_polars_reads_every_kind_by_one_line(data: Path, kind: Kind) -> None:
    frame = pl.read_parquet(f"{data}/{kind.name}/**/*.parquet", hive_partitioning=True)
    frame = frame.filter(pl.col("symbol") == "BTCUSDT")
    assert dict(frame.schema) == {
        **{column.name: POLARS_TYPES[column.type] for column in kind.columns},
        "venue": pl.String(),
        "symbol": pl.String(),
        "date": pl.Date(),
    }
    assert frame.drop("venue", "symbol", "date").to_dicts() == expected(kind)
    assert frame["date"].to_list() == [datetime.date(2026, 11, 22)] * 3


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_pandas_reads_every_kind_by_one_line(data: Path, kind: Kind) -> None:
    frame = pd.read_parquet(f"{data}/{kind.name}")
    frame = frame[frame["symbol"] == "BTCUSDT"].reset_index(drop=True)
    assert list(frame.columns) == [*(column.name for column in kind.columns), "venue", "symbol", "date"]
    for column in kind.columns:
        assert str(frame.dtypes[column.name]) in PANDAS_TYPES[column.type], column.name
    rows = expected(kind)
    assert frame["seq"].tolist() == [row["seq"] for row in rows]
    assert frame["date"].astype(str).tolist() == ["2026-11-22"] * 3
    for column in kind.columns:
        for found, wanted in zip(frame[column.name], (row[column.name] for row in rows), strict=True):
            if column.type == LEVELS:
                assert list(found) == wanted
            elif wanted is None:
                assert pd.isna(found)
            else:
                assert found == wanted


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_arrow_reads_the_very_schema(data: Path, kind: Kind) -> None:
    dataset = ds.dataset(data / kind.name, partitioning="hive")
    table = dataset.to_table(filter=ds.field("symbol") == "BTCUSDT")
    assert table.schema.remove_metadata().names[: len(kind.columns)] == kind.schema.names
    assert table.select(kind.schema.names).schema.remove_metadata().equals(kind.schema)
    assert table.select(kind.schema.names).to_pylist() == expected(kind)


def test_every_symbol_reads_back_as_the_venue_wrote_it(data: Path) -> None:
    files = f"{data}/prices/**/*.parquet"
    with duckdb.connect() as connection:
        found = connection.sql(f"SELECT DISTINCT symbol FROM '{files}'").fetchall()
    assert sorted(symbol for (symbol,) in found) == sorted(SYMBOLS)
    assert sorted(pd.read_parquet(data / "prices")["symbol"].astype(str).unique()) == sorted(SYMBOLS)


@pytest.mark.skipif(pl.__version__ < "2", reason="polars leaves partitions encoded before version 2")
def test_every_symbol_reads_back_in_polars_as_well(data: Path) -> None:
    frame = pl.read_parquet(f"{data}/prices/**/*.parquet", hive_partitioning=True)
    assert sorted(frame["symbol"].unique()) == sorted(SYMBOLS)


@pytest.mark.parametrize("reader", ["duckdb.sql", "pl.scan_parquet", "pd.read_parquet"])
def test_the_lines_of_the_page_work_as_they_stand(
    data: Path, reader: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "data.md").read_text(encoding="utf-8")
    (line,) = re.findall(rf"^{re.escape(reader)}\(.*$", page, re.MULTILINE)
    monkeypatch.chdir(data.parent)
    result = eval(line, {"duckdb": duckdb, "pl": pl, "pd": pd})
    frame = result.collect() if reader == "pl.scan_parquet" else result
    if reader == "duckdb.sql":
        ids = [trade_id for (trade_id,) in frame.select("trade_id").fetchall()]
    else:
        ids = list(frame["trade_id"])
    assert ids == [7, 8, 9]


def test_duckdb_shows_the_metadata_and_keeps_the_order_within_a_record(data: Path) -> None:
    files = f"{data}/prices/**/*.parquet"
    with duckdb.connect() as connection:
        shown = connection.sql(f"SELECT key, value FROM parquet_kv_metadata('{files}')").fetchall()
        ordered = connection.sql(
            f"SELECT trade_id FROM read_parquet('{files}', file_row_number = true) "
            "WHERE symbol = 'BTCUSDT' ORDER BY seq, file_row_number"
        ).fetchall()
    assert (b"harvest.run", RUN.encode()) in shown
    assert ordered == [(7,), (8,), (9,)]
