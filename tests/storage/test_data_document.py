"""docs/data.md is the contract; what it says of columns and metadata is what the code does."""

from __future__ import annotations

import collections
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest

from harvest.storage.kinds import LEVELS, REASONS, TIME, kinds
from harvest.storage.parquet import SCHEMA_VERSION, Provenance, encode
from tests.storage.rows import expected_rows, one_of_each

if TYPE_CHECKING:
    from harvest.storage.kinds import Kind

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "data.md").read_text(encoding="utf-8")
TYPES = {
    pa.int64(): "int64",
    pa.float64(): "float64",
    pa.bool_(): "bool",
    pa.string(): "string",
    TIME: "timestamp[us, UTC]",
    LEVELS: "list<float64>",
}


def table_rows(text: str) -> list[list[str]]:
    """Return the cells of the first table in ``text``, without its head."""
    lines = iter(text.splitlines())
    rows: list[list[str]] = []
    for line in lines:
        if line.startswith("|"):
            rows.append([cell.strip() for cell in line.strip("|").split("|")])
        elif rows:
            break
    return rows[2:]


def section(heading: str) -> str:
    level = heading.split(" ")[0]
    _, _, rest = PAGE.partition(f"\n{heading}\n")
    assert rest, heading
    return re.split(rf"\n#{{1,{len(level)}}} ", rest)[0]


def documented(kind: str) -> list[tuple[str, str, str, str, str]]:
    """Return column, type, unit, null and text; ``a_0 … a_4`` is five columns."""
    columns = []
    for name, type_, unit, null, text in table_rows(section(f"### `{kind}`")):
        first, *last = re.findall(r"`([^`]+)`", name)
        if last:
            stem, _, begin = first.rpartition("_")
            names = [f"{stem}_{index}" for index in range(int(begin), int(last[0].rpartition("_")[2]) + 1)]
        else:
            names = [first]
        columns += [(one, type_, unit, null, text) for one in names]
    return columns


@pytest.mark.parametrize("kind", kinds(5).values(), ids=lambda kind: kind.name)
def test_every_column_is_documented_and_none_is_invented(kind: Kind) -> None:
    found = [(name, type_, null) for name, type_, _, null, _ in documented(kind.name)]
    assert found == [
        (column.name, TYPES[column.type], "yes" if column.nullable else "no") for column in kind.columns
    ]


@pytest.mark.parametrize("kind", kinds(5).values(), ids=lambda kind: kind.name)
def test_numbers_have_units_and_labels_are_named(kind: Kind) -> None:
    for column, (name, _, unit, _, text) in zip(kind.columns, documented(kind.name), strict=True):
        assert text, name
        if name.endswith("_ns"):
            assert unit == "ns"
        assert bool(unit) == (name.endswith("_ns") or column.type in (pa.float64(), LEVELS)), name
        if column.labels is not None and name not in ("source", "reason"):
            assert all(f"`{label}`" in text for label in column.labels), name


def test_every_kind_has_its_section_and_no_other() -> None:
    assert re.findall(r"^### `(\w+)`$", PAGE, re.MULTILINE) == list(kinds(5))


def test_every_reason_is_explained() -> None:
    _, _, after = section("### `breaks`").partition("did not match it.")
    assert [row[0].strip("`") for row in table_rows(after)] == list(REASONS)


def test_every_key_of_the_metadata_is_documented() -> None:
    rows = table_rows(section("## Metadata of a file"))
    named = [name.strip("`") for name, _ in rows]
    written: set[str] = set()
    for sealed in one_of_each():
        encoded = encode(
            sealed, Provenance("binance-usdm", "20261122T000000Z00ff", trade_ids="raw", max_pending_diffs=5)
        )
        # In the order of the page, as far as the kind has it.
        assert list(encoded.metadata) == sorted(encoded.metadata, key=named.index)
        written |= set(encoded.metadata)
    assert written == set(named)
    assert f"`{SCHEMA_VERSION}`" in dict(rows)["`schema`"]


def test_the_recipe_for_rebuilding_a_book_does_so() -> None:
    (code,) = re.findall(r"```python\n(def books.*?)```", PAGE, re.DOTALL)
    scope: dict[str, Any] = {"collections": collections}
    exec(code, scope)
    (depth,) = (sealed for sealed in one_of_each() if sealed.kind.name == "depth")
    rows = expected_rows(depth)
    seen = [(dict(bids), dict(asks)) for _, bids, asks in scope["books"](rows)]
    assert seen == [
        ({100.0: 1.0, 99.5: 2.0}, {101.0: 4.0}),
        ({100.0: 1.0, 99.5: 2.0}, {101.0: 4.0}),
        ({100.0: 1.0}, {101.0: 5.0, 103.0: 1.0}),
    ]
    late_snapshot = [rows[2], {**rows[0], "last_update_id": 5}]
    assert [(bids, asks) for _, bids, asks in scope["books"](late_snapshot)][-1] == (
        {100.0: 1.0},
        {101.0: 5.0, 103.0: 1.0},
    )
