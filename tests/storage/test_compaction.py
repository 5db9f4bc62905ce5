from __future__ import annotations

import contextlib
import errno
import os
import shutil
from typing import TYPE_CHECKING

import pyarrow.parquet as pq
import pytest

from harvest.pipeline.verify import verify
from harvest.storage import ledger
from harvest.storage.catalog import scan
from harvest.storage.compaction import Options, compact
from harvest.storage.compaction.compactor import DAY_NS, HOUR_NS, compact_directory
from harvest.storage.filesystem import Filesystem
from harvest.storage.parquet import read_facts
from tests.storage.rows import DAY, sealed_trades
from tests.storage.small_files import RUNS, VENUE, every_kind, names, publish, small_files, stored
from tests.storage.test_files import Faulty

if TYPE_CHECKING:
    from pathlib import Path

#: The date of the hand-made rows is over.
LATER = Options.at((DAY + 2) * DAY_NS)


class Crash(BaseException):
    """The process is gone: nothing behind it happens."""


class Quick(Filesystem):
    """Does not wait for the medium, which only costs time here."""

    def fsync(self, descriptor: int) -> None:
        pass

    def fsync_directory(self, path: Path) -> None:
        pass


class QuicklyFaulty(Faulty, Quick):
    pass


class Crashing(Quick):
    """Dies at one call, before or after its effect; nothing works from then on."""

    def __init__(self, at: int, *, after: bool) -> None:
        self.at, self.after, self.calls = at, after, 0

    def __getattribute__(self, name: str) -> object:
        method = super().__getattribute__(name)
        if name in ("at", "after", "calls") or name.startswith("_") or not callable(method):
            return method

        def call(*args: object) -> object:
            self.calls += 1
            is_last = self.calls > self.at
            if is_last and not (self.after and self.calls == self.at + 1):
                if name == "close":
                    method(*args)
                raise Crash
            result = None
            try:
                result = method(*args)
            finally:
                if is_last:
                    if name == "create" and isinstance(result, int):
                        os.close(result)
                    raise Crash
            return result

        return call


def copied(template: Path, root: Path) -> Path:
    """Copy a data directory; returns its only directory of a date."""
    shutil.copytree(template, root)
    (directory,) = root.glob("[a-z]*/*/*/date=*")
    return directory


def damage(root: Path) -> list[str]:
    """Return what is damaged or worth a warning; these hand-made trades have no ``cvd``."""
    report = verify(root, jobs=1)
    return [one.detail for one in report.damage if one.kind != "cvd"] + report.warnings


def left_behind(root: Path) -> list[Path]:
    """Return the files below the directory of compaction, but for its lock."""
    return [path for path in (root / "_compact").rglob("*") if path.is_file() and path.name != "lock"]


def assert_sound(root: Path, directory: Path, before: object) -> None:
    """Hold that rows are the same and once each, that nothing is left, and that verify and the ledger agree."""
    assert stored(directory).equals(before)
    assert left_behind(root) == []
    assert damage(root) == []


def assert_settled(root: Path, directory: Path, before: object, number: int) -> None:
    """Hold the same of one of many directories; each tenth is verified, which takes its time."""
    if number % 10 == 0:
        assert_sound(root, directory, before)
    assert stored(directory).equals(before), number
    assert left_behind(root) == [], number
    stored_names = {path.name for path in directory.glob("*.parquet")}
    assert {entry.file_name for entry in ledger.read(root).entries} == stored_names, number


def test_many_files_become_one_with_the_same_rows_in_order(tmp_path: Path) -> None:
    directory = small_files(tmp_path)
    before = stored(directory)
    done = compact(tmp_path, LATER)
    assert names(directory) == [f"{RUNS[0]}-1-55.compact1.parquet"]
    assert (done.files_before, done.files_after, done.rows, done.problems) == (6, 1, 30, [])
    assert_sound(tmp_path, directory, before)


def test_files_of_two_runs_stay_apart(tmp_path: Path) -> None:
    directory = small_files(tmp_path)
    for number in range(2):
        publish(tmp_path, sealed_trades(2, first_seq=100 + 10 * number, first_id=900 + 2 * number), RUNS[1])
    before = stored(directory)
    compact(tmp_path, LATER)
    assert names(directory) == [f"{RUNS[0]}-1-55.compact1.parquet", f"{RUNS[1]}-100-111.compact1.parquet"]
    assert_sound(tmp_path, directory, before)


def test_every_kind_is_compacted_and_verifies(tmp_path: Path) -> None:
    every_kind(tmp_path)
    directories = sorted({path.parent for path in tmp_path.rglob("*.parquet")})
    before = [stored(directory) for directory in directories]
    done = compact(tmp_path, LATER)
    count = len(directories)
    assert (done.directories, done.files_before, done.problems) == (count, 2 * count, [])
    for directory, rows in zip(directories, before, strict=True):
        assert stored(directory).equals(rows)


def test_a_second_pass_changes_nothing(tmp_path: Path) -> None:
    directory = small_files(tmp_path)
    compact(tmp_path, LATER)
    before = (directory.stat().st_ino, names(directory), ledger.read(tmp_path).entries)
    assert compact(tmp_path, LATER).files_before == 0
    assert (directory.stat().st_ino, names(directory), ledger.read(tmp_path).entries) == before


def test_a_late_file_is_compacted_again_under_a_new_name(tmp_path: Path) -> None:
    directory = small_files(tmp_path)
    compact(tmp_path, LATER)
    # Between the records of two sources: it overlaps the compacted file by name, and by no record.
    publish(tmp_path, sealed_trades(2, first_seq=27, first_id=900))
    rows = stored(directory).sort_by("seq")
    assert damage(tmp_path) == []
    compact(tmp_path, LATER)
    assert names(directory) == [f"{RUNS[0]}-1-55.compact2.parquet"]
    assert_sound(tmp_path, directory, rows)


def test_the_metadata_list_the_sources_and_the_catalog_knows_what_is_committed(tmp_path: Path) -> None:
    directory = small_files(tmp_path)
    compact(tmp_path, LATER)
    (path,) = directory.iterdir()
    facts = read_facts(pq.read_metadata(path).metadata)
    assert facts["sources"] == (
        f'{{"{RUNS[0]}":[[1,5,5],[11,15,5],[21,25,5],[31,35,5],[41,45,5],[51,55,5]]}}'
    )
    assert (facts["rows"], facts["first_id"], facts["last_id"], facts["trade_ids"]) == (
        "30",
        "100",
        "129",
        "raw",
    )
    publish(tmp_path, sealed_trades(2, first_seq=27, first_id=900))
    catalog = scan(tmp_path, VENUE)
    intervals = [(1, 5), (11, 15), (21, 25), (27, 28), (31, 35), (41, 45), (51, 55)]
    assert catalog.committed("prices", "BTCUSDT", DAY) == intervals
    assert (catalog.runs, catalog.next_seq, catalog.damage) == ([RUNS[0]], 56, [])


def test_the_ledger_speaks_of_the_compacted_file_alone(tmp_path: Path) -> None:
    directory = small_files(tmp_path)
    compact(tmp_path, LATER)
    (entry,) = ledger.read(tmp_path).entries
    assert (entry.file_name, entry.rows, entry.duplicates) == (names(directory)[0], 30, 6)
    assert [(span.from_id, span.to_id) for span in entry.ws] == [(100, 129)]


def test_a_date_with_too_many_rows_gets_several_files_and_keeps_them(tmp_path: Path) -> None:
    directory = small_files(tmp_path, 7)
    before = stored(directory)
    options = Options.at((DAY + 2) * DAY_NS, max_rows=12)
    compact(tmp_path, options)
    assert [name.split("-", 1)[1] for name in names(directory)] == [
        "1-15.compact1.parquet", "21-35.compact1.parquet", "41-55.compact1.parquet", "61-65.parquet",
    ]  # fmt: skip
    assert_sound(tmp_path, directory, before)
    assert compact(tmp_path, options).files_before == 0


def test_a_date_that_is_not_over_keeps_its_files_but_for_those_of_past_hours(tmp_path: Path) -> None:
    directory = small_files(tmp_path)
    now_ns = DAY * DAY_NS + 13 * HOUR_NS + 1
    for number, path in enumerate(sorted(directory.iterdir())):
        at_ns = now_ns - (HOUR_NS if number < 4 else 0)
        os.utime(path, ns=(at_ns, at_ns))
    before = stored(directory)
    assert compact(tmp_path, Options.at(now_ns, hours=False)).files_before == 0
    compact(tmp_path, Options.at(now_ns))
    assert [name.split("-", 1)[1] for name in names(directory)] == [
        "1-35.compact1.parquet", "41-45.parquet", "51-55.parquet",
    ]  # fmt: skip
    assert_sound(tmp_path, directory, before)
    compact(tmp_path, LATER)
    assert [name.split("-", 1)[1] for name in names(directory)] == ["1-55.compact2.parquet"]


def test_a_dry_run_changes_nothing(tmp_path: Path) -> None:
    directory = small_files(tmp_path)
    before = names(directory)
    done = compact(tmp_path, Options.at((DAY + 2) * DAY_NS, dry_run=True))
    assert (done.files_before, done.files_after) == (6, 1)
    assert names(directory) == before
    assert not (tmp_path / "_compact").exists()


def test_a_file_of_somebody_else_stays_where_it_is(tmp_path: Path) -> None:
    directory = small_files(tmp_path)
    (directory / "notes.txt").write_text("mine")
    compact(tmp_path, LATER)
    assert names(directory) == [f"{RUNS[0]}-1-55.compact1.parquet", "notes.txt"]
    assert (directory / "notes.txt").read_text() == "mine"


def test_a_damaged_file_leaves_its_directory_as_it_is(tmp_path: Path) -> None:
    directory = small_files(tmp_path)
    other = small_files(tmp_path, day=DAY - 1)
    path = sorted(directory.iterdir())[2]
    content = bytearray(path.read_bytes())
    content[40] ^= 1
    path.write_bytes(content)
    before = names(directory)
    done = compact(tmp_path, LATER)
    assert len(done.problems) == 1
    assert "date=2026-11-22" in done.problems[0]
    assert names(directory) == before
    assert len(names(other)) == 1
    assert left_behind(tmp_path) == []


def test_two_files_that_hold_the_same_record_are_left_as_they_are(tmp_path: Path) -> None:
    directory = small_files(tmp_path, 2)
    publish(tmp_path, sealed_trades(3, first_seq=13, first_id=500))
    before = names(directory)
    (problem,) = compact(tmp_path, LATER).problems
    assert "two files hold the record 13" in problem
    assert names(directory) == before


@pytest.mark.parametrize("column", ["price", "side", "event_time", "trade_type", "seq"])
def test_a_row_that_was_changed_on_its_way_is_found_before_anything_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, column: str
) -> None:
    from harvest.storage.compaction import rewrite

    directory = small_files(tmp_path)
    before = names(directory)
    merged = rewrite.in_order

    def swapped(*args: object) -> object:
        """Two values of one column change places: no sum of the column alone would tell."""
        for table in merged(*args):
            place = table.schema.get_field_index(column)
            values = table.column(column).take([1, 0, 2, 3, 4])
            if column == "trade_type":
                values = table.column("side")
            yield table.set_column(place, table.schema.field(place), values)

    monkeypatch.setattr(rewrite, "in_order", swapped)
    (problem,) = compact(tmp_path, LATER).problems
    assert "differs from its sources" in problem or "order of seq" in problem
    assert names(directory) == before


@pytest.mark.parametrize("after", [False, True], ids=["before its effect", "after its effect"])
def test_a_crash_at_any_call_loses_and_doubles_nothing_and_the_next_pass_completes_it(
    tmp_path: Path, after: bool
) -> None:
    counting = Crashing(10**9, after=after)
    template = small_files(tmp_path / "template", 3).parents[3]
    compact(copied(template, tmp_path / "count").parents[3], LATER, filesystem=counting)
    assert counting.calls > 20
    for at in range(counting.calls):
        root = tmp_path / str(at)
        directory = copied(template, root)
        before = stored(directory)
        with pytest.raises(Crash):
            compact(root, LATER, filesystem=Crashing(at, after=after))
        # Whatever the moment, readers see every row once.
        assert stored(directory).equals(before), at
        assert compact(root, LATER, filesystem=Quick()).problems == []
        assert len(names(directory)) == 1, at
        assert_settled(root, directory, before, at)


@pytest.mark.parametrize("after", [False, True], ids=["before its effect", "after its effect"])
def test_an_error_of_any_call_is_named_and_the_next_pass_completes_it(tmp_path: Path, after: bool) -> None:
    counting = QuicklyFaulty()
    template = small_files(tmp_path / "template", 3).parents[3]
    compact(copied(template, tmp_path / "count").parents[3], LATER, filesystem=counting)
    for at in range(len(counting.calls)):
        root = tmp_path / str(at)
        directory = copied(template, root)
        before = stored(directory)
        with contextlib.suppress(OSError):  # Of the lock, which comes before all.
            compact(root, LATER, filesystem=QuicklyFaulty(at, after=after, code=errno.ENOSPC))
        assert stored(directory).equals(before), at
        assert compact(root, LATER, filesystem=Quick()).problems == []
        assert len(names(directory)) == 1, at
        assert_settled(root, directory, before, at)


class WithoutExchange(Filesystem):
    def exchange(self, one: Path, other: Path) -> None:
        raise OSError(errno.EINVAL, "no exchange here")


def test_where_directories_cannot_be_exchanged_nothing_is_done_unless_forced(tmp_path: Path) -> None:
    directory = small_files(tmp_path)
    before, rows = names(directory), stored(directory)
    (problem,) = compact(tmp_path, LATER, filesystem=WithoutExchange()).problems
    assert "--force" in problem
    assert names(directory) == before
    forced = Options.at((DAY + 2) * DAY_NS, force=True)
    assert compact(tmp_path, forced, filesystem=WithoutExchange()).problems == []
    assert len(names(directory)) == 1
    assert_sound(tmp_path, directory, rows)


class CrashingWithoutExchange(Crashing):
    def exchange(self, one: Path, other: Path) -> None:
        raise OSError(errno.EINVAL, "no exchange here")


def test_a_crash_while_the_directory_is_away_is_mended_by_the_next_pass(tmp_path: Path) -> None:
    forced = Options.at((DAY + 2) * DAY_NS, force=True)
    counting = CrashingWithoutExchange(10**9, after=False)
    template = small_files(tmp_path / "template", 3).parents[3]
    compact(copied(template, tmp_path / "count").parents[3], forced, filesystem=counting)
    away = 0
    for at in range(counting.calls):
        root = tmp_path / str(at)
        directory = copied(template, root)
        before = stored(directory)
        with pytest.raises(Crash):
            compact(root, forced, filesystem=CrashingWithoutExchange(at, after=False))
        away += not directory.exists()
        assert compact(root, LATER, filesystem=Quick()).problems == []
        assert_settled(root, directory, before, at)
    assert away == 1


def test_a_file_that_is_published_just_before_the_exchange_comes_along(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from harvest.storage.compaction import compactor

    directory = small_files(tmp_path)
    rewrite = compactor.rewrite

    def rewrite_while_another_publishes(*args: object) -> None:
        rewrite(*args)
        publish(tmp_path, sealed_trades(2, first_seq=71, first_id=900))

    monkeypatch.setattr(compactor, "rewrite", rewrite_while_another_publishes)
    compact_directory(tmp_path, directory.relative_to(tmp_path), LATER)
    assert [name.split("-", 1)[1] for name in names(directory)] == ["1-55.compact1.parquet", "71-72.parquet"]
    assert damage(tmp_path) == []
