"""Which trades earlier runs have left out, and may still be had: as files and ledger tell."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest

from harvest.storage import ledger
from harvest.storage.account import entry_of_file
from harvest.storage.catalog import scan
from harvest.storage.open_gaps import open_gaps
from tests.pipeline.stored import RUN_2, Run
from tests.pipeline.wire import DAY, MIDNIGHT_MS, trade

if TYPE_CHECKING:
    from pathlib import Path

VENUE = "binance-usdm"


def gaps(
    root: Path, *, days: tuple[int, ...] = (DAY, DAY + 1), before_seq: int | None = None
) -> list[tuple[int, int]]:
    return open_gaps(scan(root, VENUE), "BTCUSDT", days, before_seq=before_seq)


def stored(root: Path, *ids: int, at_ms: int = MIDNIGHT_MS - 1000, run: str | None = None) -> Run:
    """Store trades, one file."""
    made = Run(root, **({} if run is None else {"run": run}))
    made.frames(*(trade(one, at_ms=at_ms) for one in ids))
    made.publish()
    return made


@pytest.mark.parametrize("has_ledger", [True, False])
def test_what_is_missing_between_stored_trades_is_open(tmp_path: Path, has_ledger: bool) -> None:
    assert gaps(tmp_path) == []
    stored(tmp_path, 10, 11, 14, 13, 20)
    stored(tmp_path, 25, 26, at_ms=MIDNIGHT_MS + 5, run=RUN_2)
    if has_ledger:
        ledger.append(tmp_path, [entry_of_file(path) for path in tmp_path.glob("*/venue=*/*/*/*.parquet")])
    assert gaps(tmp_path) == [(12, 12), (15, 19), (21, 24)]
    assert gaps(tmp_path, days=(DAY + 1,)) == []
    assert gaps(tmp_path, before_seq=2) == [(12, 12), (15, 19)]


def test_what_rest_has_brought_or_does_not_have_is_not(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.frames(*map(trade, (10, 14, 20)))
    series = run.pipeline._recorded.trades["BTCUSDT"]
    series.give_up(11, 12, "not_served", run.seq, run.recv_ns)
    series.give_up(15, 19, "refused", run.seq, run.recv_ns)
    run.publish()
    assert gaps(tmp_path) == [(13, 13)]


def test_where_a_file_cannot_be_read_nothing_is(tmp_path: Path) -> None:
    stored(tmp_path, 10, 14)
    (path,) = tmp_path.glob("prices/venue=*/*/*/*.parquet")
    path.write_bytes(path.read_bytes()[:-20])
    assert gaps(tmp_path) == []


def test_what_was_removed_to_make_room_is_not(tmp_path: Path) -> None:
    stored(tmp_path, 10, 11)
    stored(tmp_path, 12, 13, run=RUN_2)
    stored(tmp_path, 14, run="20240719T002000Z0003")
    entries = [entry_of_file(path) for path in tmp_path.glob("*/venue=*/*/*/*.parquet")]
    ledger.append(
        tmp_path,
        [msgspec.structs.replace(one, expired_ns=1) if one.run == RUN_2 else one for one in entries],
    )
    for path in tmp_path.glob(f"*/venue=*/*/*/*{RUN_2}*.parquet"):
        path.unlink()
    assert gaps(tmp_path) == []
