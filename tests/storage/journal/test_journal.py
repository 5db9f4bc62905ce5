"""The journal's threads: what is appended gets to the disk, in groups, whatever the disk does, and the loop never waits."""

from __future__ import annotations

import errno
import itertools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from unittest import mock

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harvest.storage.filesystem import Filesystem
from harvest.storage.journal import LOST, commit, decode_lost, last_seq, list_segments, read_segment
from tests.program import ROOT, environment
from tests.storage.journal.disks import (
    RUN,
    VENUE,
    WAIT_S,
    FailingDisk,
    append,
    journal_in,
    read,
    segment_paths,
    seqs_in,
    until,
)


def test_what_is_appended_is_read_in_order_after_a_flush(tmp_path: Path) -> None:
    journal = journal_in(tmp_path)
    assert all(append(journal, *range(10, 500)))
    assert journal.flush(WAIT_S)
    assert seqs_in(tmp_path) == list(range(10, 500))
    stats = journal.stats
    assert (stats.written_seq, stats.synced_seq, stats.held_bytes, stats.lag_s) == (499, 499, 0, 0)
    assert journal.close(WAIT_S) is None


def test_who_waits_for_some_entries_goes_on_when_these_are_durable_or_the_disk_refuses_them(
    tmp_path: Path,
) -> None:
    disk = FailingDisk()
    journal = journal_in(tmp_path, disk, sync_ms=5)
    append(journal, 1, 2)
    assert journal.wait_durable(2, WAIT_S)
    # What was never appended, such as the rows of a run's end, is waited for by nobody.
    assert journal.wait_durable(99, WAIT_S)
    disk.blocked.clear()
    append(journal, 3)
    assert journal.wait_durable(2, WAIT_S)
    assert not journal.wait_durable(3, 0.05)
    disk.fail("write", float("inf"))
    disk.blocked.set()
    until(lambda: journal.stats.failing_s is not None)
    assert not journal.wait_durable(3, 3600)
    disk.failing.clear()
    assert journal.flush(WAIT_S)
    assert journal.wait_durable(3, 0)
    assert journal.close(WAIT_S) is None


def test_nothing_is_created_before_the_first_entry(tmp_path: Path) -> None:
    journal = journal_in(tmp_path)
    assert journal.close(WAIT_S) is None
    journal.discard()
    assert list(tmp_path.iterdir()) == []


def test_it_is_written_soon_and_synced_in_groups_and_not_for_each_entry(tmp_path: Path) -> None:
    disk = FailingDisk()
    journal = journal_in(tmp_path, disk, write_ms=5, sync_ms=200)
    for seq in range(1, 2001):
        append(journal, seq)
        if seq % 100 == 0:
            time.sleep(0.002)
    until(lambda: journal.stats.written_seq == 2000)
    assert disk.count("write") < 1000
    assert journal.close(WAIT_S) is None
    assert 1 <= disk.count("fdatasync") < 200
    assert seqs_in(tmp_path) == list(range(1, 2001))


def test_an_idle_journal_touches_the_disk_no_more(tmp_path: Path) -> None:
    disk = FailingDisk()
    journal = journal_in(tmp_path, disk, write_ms=1, sync_ms=1)
    append(journal, 1)
    until(lambda: journal.stats.synced_seq == 1)
    calls = len(disk.calls)
    time.sleep(0.1)
    assert len(disk.calls) == calls
    journal.close(WAIT_S)


def test_segments_are_rolled_by_size_and_each_says_what_it_is(tmp_path: Path) -> None:
    journal = journal_in(tmp_path, segment_bytes=1024, write_ms=0.1)
    for seq in range(1, 200):
        append(journal, seq)
        if seq % 10 == 0:
            assert journal.flush(WAIT_S)
    journal.close(WAIT_S)
    segments = list_segments(tmp_path)
    assert len(segments) > 5
    assert [segment.number for segment in segments] == list(range(1, len(segments) + 1))
    for before, segment in itertools.pairwise(segments):
        assert max(entry.seq for entry in read_segment(before.path)) == segment.first_seq - 1
    header = read_segment(segments[3].path).header
    assert header is not None
    assert (header.run, header.venue, header.number, header.facts) == (RUN, VENUE, 4, {"levels": 5})
    assert (header.first_seq, header.reached_seq) == (segments[3].first_seq, segments[3].first_seq - 1)
    assert seqs_in(tmp_path) == list(range(1, 200))


def test_segments_are_rolled_by_age(tmp_path: Path) -> None:
    journal = journal_in(tmp_path, segment_s=0.05)
    append(journal, 1)
    journal.flush(WAIT_S)
    time.sleep(0.06)
    append(journal, 2)
    journal.close(WAIT_S)
    assert [segment.first_seq for segment in list_segments(tmp_path)] == [1, 2]
    assert journal.stats.segments == 2


def test_release_removes_what_ends_before_and_never_the_segment_that_is_written(tmp_path: Path) -> None:
    journal = journal_in(tmp_path, segment_bytes=1024)
    for seq in range(1, 101):
        append(journal, seq)
        if seq % 20 == 0:
            assert journal.flush(WAIT_S)
    before = list_segments(tmp_path)
    assert [one.first_seq for one in before] == [1, 21, 41, 61, 81]
    released: list[int] = []

    def release(before_seq: int) -> int:
        released.extend(one.first_seq for one in journal.release(before_seq))
        return len(released)

    until(lambda: release(41) == 2)
    assert released == [1, 21]
    assert [one.first_seq for one in journal.segments()] == [41, 61, 81]
    until(lambda: release(10**9) == 4)
    assert release(10**9) == 4
    assert [one.first_seq for one in journal.segments()] == [81]
    journal.close(WAIT_S)
    journal.discard()
    assert list(tmp_path.iterdir()) == []


def test_discard_leaves_what_other_runs_have_left(tmp_path: Path) -> None:
    other = tmp_path / "_journal" / VENUE / "20261121T000000Z0001-000001-1.journal"
    other.parent.mkdir(parents=True)
    other.write_bytes(b"")
    journal = journal_in(tmp_path)
    append(journal, 5)
    journal.close(WAIT_S)
    journal.discard()
    assert segment_paths(tmp_path) == [other]


def test_a_disk_that_blocks_holds_up_nobody_and_what_it_could_not_take_is_a_hole(tmp_path: Path) -> None:
    disk = FailingDisk()
    journal = journal_in(tmp_path, disk, buffer_bytes=4096)
    append(journal, 1)
    assert journal.flush(WAIT_S)
    disk.blocked.clear()
    taken = append(journal, *range(2, 1001))
    first_lost = 2 + taken.index(False)
    assert not any(taken[first_lost - 2 :])
    assert journal.held_bytes < 4096 + 200
    assert journal.stats.lost_entries == 1001 - first_lost
    disk.blocked.set()
    until(lambda: journal.held_bytes == 0)
    assert append(journal, 1001, 1002) == [True, True]
    assert journal.close(WAIT_S) is None
    entries = read(tmp_path)
    assert [entry.seq for entry in entries] == [*range(1, first_lost + 1), 1001, 1002]
    (hole,) = [entry for entry in entries if entry.kind == LOST]
    assert (hole.seq, *decode_lost(hole.body)) == (first_lost, 1000, 1001 - first_lost)


def test_a_hole_at_the_end_is_recorded_too(tmp_path: Path) -> None:
    disk = FailingDisk()
    journal = journal_in(tmp_path, disk, buffer_bytes=1024)
    disk.blocked.clear()
    taken = append(journal, *range(1, 101))
    disk.blocked.set()
    assert journal.close(WAIT_S) is None
    hole = read(tmp_path)[-1]
    assert (hole.kind, hole.seq) == (LOST, 1 + taken.index(False))
    assert decode_lost(hole.body) == (100, taken.count(False))


@pytest.mark.parametrize("name", ["write", "fdatasync", "create", "fsync_directory"])
@pytest.mark.parametrize("times", [1, 3])
def test_after_a_failure_nothing_is_lost_and_nothing_comes_twice(
    name: str, times: int, tmp_path: Path
) -> None:
    disk = FailingDisk()
    journal = journal_in(tmp_path, disk, sync_ms=1)
    for seq in range(1, 21):
        append(journal, seq)
    assert journal.flush(WAIT_S)
    disk.fail(name, times)
    if name in ("create", "fsync_directory"):
        disk.fail("fdatasync")  # A new segment is begun.
    for seq in range(21, 41):
        append(journal, seq)
        time.sleep(0.001)
    until(lambda: not any(disk.failing.values()))
    assert journal.flush(WAIT_S)
    stats = journal.stats
    assert stats.failures >= times
    assert (stats.failing_s, stats.why, stats.lost_entries) == (None, "injected", 0)
    assert journal.close(WAIT_S) is None
    assert seqs_in(tmp_path) == list(range(1, 41))
    assert last_seq(tmp_path) == 40
    # What was given up ends where it was durable: no segment repeats another.
    per_segment = [entry.seq for path in segment_paths(tmp_path) for entry in read_segment(path)]
    assert per_segment == list(range(1, 41))


def test_a_failed_fsync_is_never_asked_again_of_the_same_file(tmp_path: Path) -> None:
    disk = FailingDisk()
    created: dict[int, Path] = {}

    class Watched(FailingDisk):
        def create(self, path: Path) -> int:
            descriptor = super().create(path)
            created[descriptor] = path
            return descriptor

        def fdatasync(self, descriptor: int) -> None:
            synced.append((created[descriptor], self.failing.get("fdatasync", 0) > 0))
            super().fdatasync(descriptor)

    synced: list[tuple[Path, bool]] = []
    disk = Watched()
    journal = journal_in(tmp_path, disk, sync_ms=1)
    disk.fail("fdatasync", 3)
    append(journal, 1)
    assert journal.flush(WAIT_S)
    journal.close(WAIT_S)
    failed = [path for path, is_failure in synced if is_failure]
    assert len(set(failed)) == len(failed) == 3
    for path in failed:
        assert [one for one, _ in synced].count(path) == 1
        assert not path.exists()  # Nothing of it was durable.
    assert seqs_in(tmp_path) == [1]


def test_what_an_older_segment_gives_back_goes_before_what_a_new_one_was_begun_for(tmp_path: Path) -> None:
    class Racing(FailingDisk):
        def fdatasync(self, descriptor: int) -> None:
            if not self.count("fdatasync"):
                until(lambda: self.count("create") == 2)
                self.fail("fdatasync")
            super().fdatasync(descriptor)

        def write(self, descriptor: int, data: memoryview) -> int:
            if self.count("create") == 2:
                until(lambda: journal.stats.failures > 0)
            return super().write(descriptor, data)

    journal = journal_in(tmp_path, Racing(), segment_bytes=1024)
    append(journal, *range(1, 101))
    until(lambda: journal.stats.written_seq == 100)
    append(journal, 101, 102)
    assert journal.close(WAIT_S) is None
    assert [(one.number, one.first_seq) for one in list_segments(tmp_path)] == [(3, 1), (4, 101)]
    stored = [entry.seq for path in segment_paths(tmp_path) for entry in read_segment(path)]
    assert stored == list(range(1, 103))


def test_a_disk_that_fails_for_ever_is_said_to_and_what_waits_is_named_at_the_end(tmp_path: Path) -> None:
    disk = FailingDisk()
    journal = journal_in(tmp_path, disk)
    append(journal, 1, 2, 3)
    journal.flush(WAIT_S)
    disk.fail("write", float("inf"))
    append(journal, 4, 5)
    until(lambda: journal.stats.failures > 0)
    stats = journal.stats
    assert stats.failing_s is not None
    assert stats.held_bytes > 0
    assert not journal.flush(0.05)
    assert journal.close(0.05) == (4, 5)
    assert seqs_in(tmp_path) == [1, 2, 3]


def test_retries_are_spaced_out(tmp_path: Path) -> None:
    disk = FailingDisk()
    disk.fail("write", float("inf"))
    journal = journal_in(tmp_path, disk)
    append(journal, 1)
    until(lambda: disk.count("create") >= 2)
    time.sleep(0.3)
    assert disk.count("create") <= 5
    assert journal.close(0.0) == (1, 1)
    # What was begun in vain is not left to gather.
    assert len(segment_paths(tmp_path)) <= 1


def test_a_full_disk_takes_the_reserve_and_goes_on_when_there_is_room(tmp_path: Path) -> None:
    disk = FailingDisk()
    journal = journal_in(tmp_path, disk, reserve_bytes=65536, sync_ms=1)
    append(journal, 1)
    until(lambda: journal.stats.has_reserve)
    reserve = tmp_path / "_journal" / "reserve"
    assert reserve.stat().st_size == 65536
    assert reserve.stat().st_blocks * 512 >= 65536
    disk.room = 10
    append(journal, *range(2, 100))
    assert journal.flush(WAIT_S)
    assert not journal.stats.has_reserve
    assert not reserve.exists()
    assert journal.stats.why == "No space left on device"
    assert seqs_in(tmp_path) == list(range(1, 100))
    disk.room = 0
    append(journal, *range(100, 200))
    until(lambda: journal.stats.failing_s is not None)
    assert not journal.flush(0.2)
    disk.room = float("inf")
    assert journal.flush(WAIT_S)
    assert journal.close(WAIT_S) is None
    assert seqs_in(tmp_path) == list(range(1, 200))
    journal.discard()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
def test_a_device_that_is_really_full_is_an_error_with_its_name_and_no_crash(tmp_path: Path) -> None:
    class Full(Filesystem):
        is_full = True

        def create(self, path: Path) -> int:
            return os.open("/dev/full", os.O_WRONLY) if self.is_full else super().create(path)

    disk = Full()
    journal = journal_in(tmp_path, disk)
    append(journal, *range(1, 10))
    until(lambda: journal.stats.failing_s is not None)
    assert journal.stats.why == os.strerror(errno.ENOSPC)
    disk.is_full = False
    assert journal.close(WAIT_S) is None
    assert seqs_in(tmp_path) == list(range(1, 10))


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.integers(1, 40)),
        st.tuples(st.just("flush"), st.just(0)),
        st.tuples(st.sampled_from(["write", "fdatasync", "create", "fsync_directory"]), st.integers(1, 2)),
        st.tuples(st.just("room"), st.integers(0, 500)),
    ),
    max_size=25,
)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(STEPS)
def test_whatever_fails_for_a_time_everything_is_there_once_in_the_end(tmp_path_factory, steps) -> None:
    with mock.patch.object(commit, "FIRST_RETRY_S", 0.001), mock.patch.object(commit, "LAST_RETRY_S", 0.005):
        fail_and_recover(tmp_path_factory, steps)


def fail_and_recover(tmp_path_factory, steps) -> None:
    root = tmp_path_factory.mktemp("journal")
    disk = FailingDisk()
    journal = journal_in(root, disk, write_ms=0.1, sync_ms=1, segment_bytes=1024)
    seq = 0
    for what, argument in steps:
        if what == "append":
            assert all(append(journal, *range(seq + 1, seq + 1 + argument)))
            seq += argument
        elif what == "flush":
            journal.flush(0.02)
        elif what == "room":
            disk.room = argument
        else:
            disk.fail(what, argument)
    disk.room = float("inf")
    assert journal.close(WAIT_S) is None
    assert seqs_in(root) == list(range(1, seq + 1))
    assert last_seq(root) == seq


CHILD = """
import sys, time
from pathlib import Path
from tests.storage.journal.disks import append, journal_in
journal = journal_in(Path(sys.argv[1]), segment_bytes=100_000)
for seq in range(1, 10**9):
    append(journal, seq)
    sys.stdout.write(f"{time.monotonic_ns()} {seq}\\n")
    sys.stdout.flush()
    time.sleep(0.0002)
"""


def test_a_process_that_is_killed_loses_only_what_it_had_not_had_time_to_write(tmp_path: Path) -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(tmp_path)],
        cwd=ROOT,
        env=environment(PYTHONPATH=str(ROOT)),
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    lines = [child.stdout.readline() for _ in range(1500)]
    killed_ns = time.monotonic_ns()
    child.send_signal(signal.SIGKILL)
    lines += child.stdout.readlines()
    child.stdout.close()
    child.wait()
    told = [(int(at), int(seq)) for at, seq in (line.split() for line in lines if line.endswith("\n"))]
    must = [seq for at, seq in told if at < killed_ns - 250 * 10**6]
    found = seqs_in(tmp_path)
    assert len(must) > 100
    assert found == list(range(1, len(found) + 1))
    assert found[-1] >= must[-1]


def test_appending_never_waits_for_the_disk(tmp_path: Path) -> None:
    disk = FailingDisk()
    journal = journal_in(tmp_path, disk)
    disk.blocked.clear()
    append(journal, *range(1, 5001))
    assert journal.stats.written_seq == 0
    disk.blocked.set()
    assert journal.close(WAIT_S) is None


def test_a_new_journal_never_appends_to_an_old_segment(tmp_path: Path) -> None:
    journal = journal_in(tmp_path)
    append(journal, 1)
    journal.close(WAIT_S)
    (path,) = segment_paths(tmp_path)
    before = path.read_bytes()
    again = journal_in(tmp_path)
    append(again, 2)
    again.close(WAIT_S)
    assert path.read_bytes() == before
    assert seqs_in(tmp_path) == [1, 2]


def test_a_bug_in_a_thread_is_there_to_be_raised(tmp_path: Path) -> None:
    class Buggy(FailingDisk):
        def write(self, descriptor: int, data: memoryview) -> int:
            raise ZeroDivisionError("a bug")

    journal = journal_in(tmp_path, Buggy())
    journal.check()
    append(journal, 1)
    until(lambda: journal._committer.bug is not None)
    with pytest.raises(ZeroDivisionError):
        journal.check()
    assert journal.close(0.0) == (1, 1)
