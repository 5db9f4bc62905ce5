from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from harvest.pipeline.verify import verify
from harvest.storage import ledger
from harvest.storage.filesystem import Filesystem
from harvest.storage.layout import date_text
from harvest.storage.retention import DAY_NS, expire
from tests.storage.rows import DAY
from tests.storage.small_files import small_files

if TYPE_CHECKING:
    from pathlib import Path

NOW_NS = (DAY + 4) * DAY_NS + 5


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Make five dates, of which the last is the current one."""
    for day in range(DAY, DAY + 5):
        small_files(tmp_path, 2, day=day)
    return tmp_path


def dates(root: Path) -> list[int]:
    """Return the dates that readers see, counted from the first of all."""
    every = {date_text(day): day - DAY for day in range(DAY, DAY + 9)}
    return sorted(every[path.name.removeprefix("date=")] for path in root.glob("prices/*/*/date=*"))


def test_old_dates_go_and_the_ledger_keeps_what_they_held(root: Path) -> None:
    gone = expire(root, now_ns=NOW_NS, keep_days=2)
    assert [(one.date, one.directories, one.files) for one in gone] == [
        (date_text(day), 1, 2) for day in range(DAY, DAY + 3)
    ]
    assert dates(root) == [3, 4]
    assert not list((root / "_expired").rglob("*.parquet"))
    marked = [entry.date for entry in ledger.read(root).entries if entry.expired_ns == NOW_NS]
    assert marked == [date_text(day) for day in range(DAY, DAY + 3) for _ in range(2)]
    ledger.rebuild(root)
    assert len(ledger.read(root).entries) == 10


def test_verify_says_that_they_are_no_longer_kept(root: Path) -> None:
    expire(root, now_ns=NOW_NS, keep_days=2)
    (warning,) = verify(root, jobs=1).warnings
    assert warning == (
        f"binance-usdm BTCUSDT: 30 rows of {date_text(DAY)} to {date_text(DAY + 2)} are no longer kept: they have expired"
    )


@pytest.mark.parametrize(("share", "left"), [(5, [0, 1, 2, 3, 4]), (3, [2, 3, 4]), (0, [4])])
def test_the_oldest_dates_go_until_the_rest_is_small_enough(root: Path, share: int, left: list[int]) -> None:
    sizes = [path.stat().st_size for path in root.rglob("*.parquet")]
    expire(root, now_ns=NOW_NS, keep_bytes=sum(sizes) * share // 5 + 100 * (share > 0))
    assert dates(root) == left


def test_the_current_date_stays_and_a_clock_that_is_years_ahead_costs_nothing(root: Path) -> None:
    expire(root, now_ns=NOW_NS + 3000 * DAY_NS, keep_days=4)
    assert dates(root) == [1, 2, 3, 4]
    expire(root, now_ns=NOW_NS, keep_days=1)
    assert dates(root) == [4]


def test_without_a_bound_nothing_goes(root: Path) -> None:
    assert expire(root, now_ns=NOW_NS) == []
    assert len(dates(root)) == 5


def test_what_a_crash_left_is_removed_by_the_next_pass(root: Path) -> None:
    class Crash(BaseException):
        pass

    class Dying(Filesystem):
        def unlink(self, path: Path) -> None:
            if "_expired" in path.parts:
                raise Crash
            super().unlink(path)

    with pytest.raises(Crash):
        expire(root, now_ns=NOW_NS, keep_days=4, filesystem=Dying())
    assert dates(root) == [1, 2, 3, 4]
    assert list((root / "_expired").rglob("*.parquet"))
    assert expire(root, now_ns=NOW_NS, keep_days=4) == []
    assert not list((root / "_expired").rglob("*.parquet"))
