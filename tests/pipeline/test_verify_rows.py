"""An Arrow batch as arrays: what it holds, what it does not, and where a slice of it begins."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest

from harvest.pipeline.verify.rows import cut, join, rows_of
from harvest.storage.kinds import LEVELS, TIME, UNKNOWN
from tests.pipeline.stored import recorded

COLUMNS = {
    "seq": pa.array(range(20), pa.int64()),
    "id": pa.array([None if n % 3 == 0 else n for n in range(20)], pa.int64()),
    "event_time": pa.array([None if n == 9 else n * 10**6 for n in range(20)], pa.int64()).cast(TIME),
    "px": pa.array([None if n % 4 == 1 else n / 2 for n in range(20)], pa.float64()),
    "flag": pa.array([n % 7 in (0, 2) for n in range(20)]),
    "label": pa.array([None if n == 12 else "buy" if n % 2 else "sell" for n in range(20)]),
    "bid_px": pa.array([[100.0 - level for level in range(n % 4)] for n in range(20)], LEVELS),
    "bid_qty": pa.array([[1.0 + n for _ in range(n % 4)] for n in range(20)], LEVELS),
    "ask_px": pa.array([[101.0] * (n % 2) for n in range(20)], LEVELS),
    "ask_qty": pa.array([[2.0] * (n % 2) for n in range(20)], LEVELS),
}
BATCH = pa.RecordBatch.from_pydict(COLUMNS)


@pytest.mark.parametrize(("start", "length"), [(0, 20), (3, 11), (9, 1), (16, 4), (5, 0)])
def test_every_column_of_any_slice_holds_what_the_batch_does(start, length):
    rows = rows_of(BATCH.slice(start, length))
    expected = BATCH.slice(start, length).to_pydict()
    assert rows["seq"].tolist() == expected["seq"]
    assert rows["id"].tolist() == [UNKNOWN if value is None else value for value in expected["id"]]
    times = [value * 10**6 for value in range(start, start + length)]
    assert rows["event_time"].tolist() == [UNKNOWN if time == 9 * 10**6 else time for time in times]
    assert [None if math.isnan(px) else px for px in rows["px"].tolist()] == expected["px"]
    assert rows["flag"].tolist() == expected["flag"]
    assert rows["flag"].dtype == np.bool_
    assert rows["label"].tolist() == expected["label"]
    for side in ("bid", "ask"):
        pairs = zip(expected[f"{side}_px"], expected[f"{side}_qty"], strict=True)
        assert rows[f"{side}s"].tolist() == [list(zip(*pair, strict=True)) for pair in pairs]
    assert not rows["unsound"].any()


def test_lists_of_levels_are_cut_and_joined_as_other_columns_are():
    rows = rows_of(BATCH)
    order = np.array([7, 3, 3, 0, 19])
    for where in (order, slice(4, 9), rows["seq"] % 3 == 1):
        mixed = join([cut(rows, where), cut(rows, slice(2, 6)), cut(rows, slice(0, 0))])
        bids = rows["bids"].tolist()
        assert mixed["bids"].tolist() == [bids[at] for at in mixed["seq"].tolist()]
        asks = [rows["asks"].tolist()[at] for at in mixed["seq"].tolist()]
        first = mixed["asks"].first_px().tolist()
        assert [None if math.isnan(px) else px for px in first] == [
            one[0][0] if one else None for one in asks
        ]


def test_pandas_is_not_imported_though_it_may_be_there(tmp_path):
    recorded(tmp_path)
    code = "import sys; from pathlib import Path; from harvest.pipeline.verify import verify; "
    code += "assert not verify(Path(sys.argv[1]), jobs=1).damage; sys.exit('pandas' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code, tmp_path], check=False).returncode == 0
