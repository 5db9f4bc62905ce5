"""Diffs that ``verify`` follows many at once give what the state machine gives one by one, whatever is wrong with them."""

from __future__ import annotations

import random
import shutil
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bench.stored_faults import rewrite
from harvest.book import tops
from harvest.book.ladder import Ladder
from harvest.book.levels import FlatLevels, LevelLists
from harvest.book.tops import Side
from harvest.pipeline.verify import replay, verify
from harvest.pipeline.verify.bulk import BulkSeries
from harvest.storage.files import DataDirectory
from harvest.storage.parquet import Provenance, encode
from tests.pipeline.stored import damage, files, recorded, verified
from tests.pipeline.troubled import MAX_PENDING, Troubled, machine

if TYPE_CHECKING:
    from pathlib import Path

RUN = "20240718T235900Z0001"
ALL_AT_ONCE, ONE_BY_ONE = 1, 2**62


@pytest.fixture
def taken(monkeypatch):
    """Count the rows that are followed at once."""
    found = [0]
    follow = BulkSeries.follow

    def counted(self: BulkSeries, rows: Any) -> Any:
        made = follow(self, rows)
        found[0] += 0 if made is None else len(rows["seq"])
        return made

    monkeypatch.setattr(BulkSeries, "follow", counted)
    return found


def both(root: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, Any]:
    """Verify twice, as much at once as can be, and nothing at once; returns everything that the two say."""
    found = []
    for worth in (ALL_AT_ONCE, ONE_BY_ONE):
        monkeypatch.setattr(replay, "WORTH_BULK", worth)
        report = verify(root, jobs=1)
        found.append((report.series, report.damage, report.warnings, report.exit_code))
    return found[0], found[1]


def store(root: Path, chaos: random.Random, *, ticks: int, spot: bool) -> None:
    """Store a troubled run, in files of any length."""
    pipeline = machine(spot=spot, with_cvd=True, max_rows=chaos.choice((5, 40, 10**6)))
    venue = "binance-spot" if spot else "binance-usdm"
    provenance = Provenance(venue, RUN, trade_ids="raw", max_pending_diffs=MAX_PENDING)
    directory = DataDirectory(root)
    records = Troubled(chaos, ticks, spot=spot).records
    for number, record in enumerate(records, start=1):
        pipeline.feed(record)
        if number == len(records) or chaos.random() < 0.01:
            pipeline.tables.seal_all()
        for sealed in pipeline.tables.take_sealed():
            path = directory.path_of(sealed, venue=venue, run=RUN)
            directory.publish(path, encode(sealed, provenance).data)


def spoil(root: Path, chaos: random.Random) -> None:
    """Do to a file what a hand can do to it."""
    path = chaos.choice([path for kind in ("depth", "orderbook", "ofi") for path in files(root, kind)])
    table = pq.read_table(path, partitioning=None)
    order, at = list(range(len(table))), chaos.randrange(len(table))
    fault = chaos.choice(("deleted", "doubled", "swapped", "changed"))
    if fault == "deleted":
        del order[at]
    elif fault == "doubled":
        order.insert(at, at)
    elif fault == "swapped":
        order[at], order[at - 1] = order[at - 1], order[at]
    else:
        schema = table.schema
        names = [one.name for one in schema if pa.types.is_floating(one.type) or pa.types.is_list(one.type)]
        names += [one for one in table.schema.names if one.endswith("_id") or one == "event_time"]
        name = chaos.choice(names)
        place = table.schema.get_field_index(name)
        values = table[name].cast(pa.int64()).to_pylist() if name == "event_time" else table[name].to_pylist()
        number = chaos.choice((0.0, -0.0, -1.0, 1e-9, 99.0, 30_000_000.0, 1e60, 1e300, float("nan"), None))
        if isinstance(values[at], list):
            values[at] = [number or 0.0 for _ in values[at]]
        elif not pa.types.is_floating(table.schema.types[place]):
            values[at] = (values[at] or 0) + chaos.choice((-3, -1, 1, 5, 10**9))
        else:
            values[at] = number if table.schema.field(place).nullable else number or 0.0
        array = pa.array(values, pa.int64() if name == "event_time" else table.schema.types[place])
        table = table.set_column(place, table.schema.field(place), array.cast(table.schema.types[place]))
    if order:
        rewrite(path, table.take(pa.array(order, pa.int64())))


@pytest.mark.parametrize("spot", [False, True])
def test_troubled_runs_and_what_was_spoilt_of_them_are_judged_alike(tmp_path, monkeypatch, taken, spot):
    for seed in range(5):
        chaos = random.Random(seed)
        clean = tmp_path / f"{seed}"
        store(clean, chaos, ticks=120, spot=spot)
        at_once, one_by_one = both(clean, monkeypatch)
        assert at_once == one_by_one
        assert at_once[1] == []
        for number in range(5):
            root = shutil.copytree(clean, tmp_path / f"{seed}-{number}")
            for _ in range(chaos.choice((1, 1, 3))):
                spoil(root, chaos)
            at_once, one_by_one = both(root, monkeypatch)
            assert at_once == one_by_one, root
    assert taken[0] > 2_000


def test_a_whole_recording_but_its_beginning_is_followed_at_once_and_a_wrong_number_is_named(tmp_path, taken):
    recorded(tmp_path, ticks=1_500)
    assert verified(tmp_path).damage == []
    assert taken[0] > 1_200
    path = files(tmp_path, "ofi")[-1]
    table = pq.read_table(path, partitioning=None)
    place = table.schema.get_field_index("ofi_z")
    scores = table["ofi_z"].to_pylist()
    scores[1_000] = np.nextafter(scores[1_000], 9)
    rewrite(path, table.set_column(place, table.schema.field(place), pa.array(scores, pa.float64())))
    update_id = table["update_id"][1_000].as_py()
    assert damage(verified(tmp_path)) == [("differs", "ofi", update_id, update_id)]


def lists(diffs: list[list[tuple[float, float]]]) -> LevelLists:
    """Make a column of levels."""
    levels = np.array([level for diff in diffs for level in diff]).reshape(-1, 2)
    offsets = np.cumsum([0, *map(len, diffs)])
    return LevelLists.of(FlatLevels(offsets, levels[:, 0].copy(), levels[:, 1].copy()))


@pytest.mark.parametrize("sign", [-1, 1])
@pytest.mark.parametrize("depth", [0, 3, 15, 400])
def test_the_best_levels_after_each_diff_are_those_of_the_ladder(monkeypatch, sign, depth):
    monkeypatch.setattr(tops, "ROWS_AT_ONCE", 7)
    chaos = random.Random(depth)
    ladder = Ladder()

    def take(levels, *, whole=False):
        sides = (levels, []) if sign < 0 else ([], levels)
        (ladder.replace if whole else ladder.apply)(*sides)

    take([(1000.0 + sign * level, 1.0) for level in range(depth)], whole=True)
    for _ in range(20):
        side = Side.unpack(ladder.pack()[sign > 0], sign)
        diffs, expected = [], []
        for _ in range(chaos.randrange(1, 40)):
            reach = chaos.choice((5, 30, 500))
            diffs.append(
                [
                    (1000.0 + sign * chaos.randrange(-3, reach), chaos.choice((0.0, 0.0, 1.5, 2.25)))
                    for _ in range(chaos.choice((0, 1, 5, 60)))
                ]
            )
            if chaos.random() < 0.1:
                # All that were near go at once, more than are looked at.
                diffs[-1] += [(1000.0 + sign * level, 0.0) for level in range(-3, 60)]
            take(diffs[-1])
            bid_px, bid_qty, ask_px, ask_qty = ladder.top(10)
            expected.append((bid_px, bid_qty) if sign < 0 else (ask_px, ask_qty))
        after, found = side.follow(lists(diffs), 10)
        px = np.where(np.isinf(found.far), np.nan, sign * found.far)
        np.testing.assert_array_equal(px, np.array([one[0] for one in expected]))
        np.testing.assert_array_equal(found.qty, np.array([one[1] for one in expected]))
        assert sorted(zip(*np.frombuffer(after.pack()).reshape(2, -1).tolist(), strict=True)) == sorted(
            ladder.levels()[sign > 0]
        )
