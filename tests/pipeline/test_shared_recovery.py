"""A recovery that processes share: each row is made once, whoever makes it, and whoever of them dies."""

from __future__ import annotations

import errno
import multiprocessing
import os
import random
import select
import signal
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harvest.pipeline.dead_runs import dead_runs, recover_all
from harvest.pipeline.journal_records import encode_record
from harvest.pipeline.journal_survey import Survey, survey
from harvest.pipeline.records import Checkpoint, Frames, Symbols
from harvest.pipeline.recover import WHOLE, Slice
from harvest.storage.filesystem import Filesystem
from harvest.storage.journal import FIRST_KIND, Entry, SegmentHeader, list_segments, read_run_from
from harvest.storage.journal.entries import frame
from harvest.storage.journal.segments import segment_name
from harvest.storage.quarantine import Quarantine
from harvest.venues import VENUES
from harvest.venues.blocks import join, payloads
from tests.pipeline.test_dead_runs import journal
from tests.pipeline.test_recover import (
    RUN,
    any_troubles,
    chaoses,
    entries,
    files,
    record_into,
    recover_into,
    roots,
    stored_tables,
)
from tests.pipeline.troubled import SYMBOLS, Troubled, machine
from tests.pipeline.wire import T0_MS, trade
from tests.program import ROOT, environment, harvest

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from harvest.pipeline.records import Record

__all__ = ["roots"]

#: No message is too short for this many processes.
SHARED = {"jobs": 3, "job_bytes": 1}


def surveyed(records: Sequence[Record], *, spot: bool = False) -> Survey:
    venue = VENUES["binance-spot" if spot else "binance-usdm"]
    return survey((Entry(*encode_record(record)) for record in records), venue)


def with_malformed(records: Sequence[Record], chaos: random.Random) -> int:
    """Let some blocks hold what is no message, of no symbol, and of one; returns how many."""
    count = 0
    for record in records:
        if isinstance(record, Frames) and chaos.random() < 0.2:
            frame = b'{"no":%d' % record.seq
            frames = [*payloads(record.frames), chaos.choice((frame, frame + b',"s":"BTCUSDT"'))]
            record.frames = join(frames)
            count += 1
    return count


@any_troubles
@given(chaos=chaoses, ticks=st.integers(1, 60), spot=st.booleans(), count=st.integers(2, 5))
def test_slices_in_any_order_give_the_rows_of_a_run_that_did_not_die(
    roots: Any, chaos: random.Random, ticks: int, spot: bool, count: int
) -> None:
    died, whole = roots()
    records = Troubled(chaos, ticks, spot=spot, checkpoint_share=chaos.choice((0.1, 0.5))).records
    malformed = with_malformed(records, chaos)
    record_into(whole, records, chaos, spot=spot)
    record_into(died, records, chaos, spot=spot, kept_share=chaos.choice((0.0, 0.5)))
    parts = surveyed(records, spot=spot).slices(count)
    chaos.shuffle(parts)
    report = recover_into(died, records, spot=spot, parts=parts)
    assert stored_tables(died, spot=spot) == stored_tables(whole, spot=spot)
    assert report.symbols == sorted(SYMBOLS)
    assert report.problems == []
    assert entries(died) == files(died)
    rest = [record for record in records if not isinstance(record, Frames)]
    kept = Quarantine(died, RUN).path
    lines = kept.read_text().splitlines() if kept.exists() else []
    assert sum('"connection": "rest"' not in line for line in lines) == malformed
    assert report.malformed == len(lines) <= malformed + len(rest)
    assert recover_into(died, records, spot=spot).files == 0


def test_slices_are_about_as_large_as_each_other_whatever_the_symbols_are() -> None:
    records = Troubled(random.Random(7), 400, checkpoint_share=0.5).records
    found = surveyed(records)
    assert found.records == len(records)
    bounds = [part.from_seq for part in found.slices(4)]
    assert [round(4 * seq / len(records)) for seq in bounds] == [0, 1, 2, 3]


def trades_with_checkpoints(*, missing: range = range(0), changed_seq: int | None = None) -> list[Record]:
    """Make records of one symbol, every tenth a checkpoint."""
    pipeline, records = machine(symbols=["BTCUSDT"]), []
    for seq in range(1, 101):
        at = seq, (T0_MS + seq) * 10**6, seq
        record: Record = Frames(*at, "trade-1", [trade(seq, at_ms=T0_MS + seq)])
        if seq % 10 == 1:
            record = Checkpoint(*at, "BTCUSDT", 1, 1, pipeline.checkpoint("BTCUSDT"))
        elif seq == changed_seq:
            record = Symbols(*at, {}, ("NEWUSDT",))
        pipeline.feed(record)
        if seq not in missing:
            records.append(record)
    return records


def test_one_symbol_is_shared_too() -> None:
    assert surveyed(trades_with_checkpoints()).slices(2) == [Slice(0, 51), Slice(51)]


def test_nobody_goes_on_behind_a_hole() -> None:
    found = surveyed(trades_with_checkpoints(missing=range(35, 38)))
    assert found.holes == [(35, 37)]
    assert found.slices(2) == [Slice(0, 31), Slice(31)]
    assert surveyed(trades_with_checkpoints(missing=range(5, 6))).slices(2) == [WHOLE]


def test_nobody_goes_on_before_the_symbols_are_what_they_stay() -> None:
    assert surveyed(trades_with_checkpoints(changed_seq=75)).slices(2) == [Slice(0, 81), Slice(81)]
    assert surveyed(trades_with_checkpoints(changed_seq=95)).slices(2) == [WHOLE]


def test_what_nobody_can_go_on_from_is_no_beginning() -> None:
    records = trades_with_checkpoints()
    for record in records:
        if isinstance(record, Checkpoint) and record.seq > 20:
            record.state = b"no"
    assert surveyed(records).slices(2) == [Slice(0, 11), Slice(11)]


def died(root: Path) -> list[Record]:
    """Leave a run that died with some of its rows in files, and one beside it that did not."""
    records = Troubled(random.Random(11), 200, checkpoint_share=0.4).records
    record_into(root / "whole", records, random.Random(1))
    record_into(root / "died", records, random.Random(2), kept_share=0.3)
    journal(root / "died", records)
    return records


def assert_is_recovered(root: Path) -> None:
    assert stored_tables(root / "died") == stored_tables(root / "whole")
    assert entries(root / "died") == files(root / "died")
    assert list_segments(root / "died") == []


class _Told(Filesystem):
    """Writes into ``_told`` which processes have published something."""

    def link(self, source: Path, target: Path) -> None:
        root = next(parent for parent in target.parents if parent.name == "died")
        (root / "_told").mkdir(exist_ok=True)
        (root / "_told" / str(os.getpid())).touch()
        self.before_link()
        super().link(source, target)

    def before_link(self) -> None:
        pass

    @property
    def is_child(self) -> bool:
        return multiprocessing.parent_process() is not None


class _KillsChildren(_Told):
    links = 0

    def before_link(self) -> None:
        self.links += 1
        if self.is_child and self.links == 3:
            os.kill(os.getpid(), signal.SIGKILL)


class _FullForChildren(_Told):
    def before_link(self) -> None:
        if self.is_child:
            raise OSError(errno.ENOSPC, "the disk is full")


class _HoldsChildren(_Told):
    def before_link(self) -> None:
        if self.is_child:
            # At one stroke: both children write to the same pipe.
            os.write(sys.stdout.fileno(), b"%d\n" % os.getpid())
            threading.Event().wait()


def test_processes_share_a_run(tmp_path: Path) -> None:
    records = died(tmp_path)
    (result,) = recover_all(tmp_path / "died", **SHARED, filesystem=_Told())
    assert (result.error, result.problems, result.records) == (None, [], len(records))
    assert result.symbols == len(SYMBOLS)
    assert len(list((tmp_path / "died" / "_told").iterdir())) == 3
    assert_is_recovered(tmp_path)


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
def test_a_process_that_is_killed_has_its_part_done_by_the_first_one(tmp_path: Path) -> None:
    died(tmp_path)
    (result,) = recover_all(tmp_path / "died", **SHARED, filesystem=_KillsChildren())
    assert (result.error, result.problems) == (None, [])
    assert_is_recovered(tmp_path)


def test_a_disk_that_refuses_one_process_lets_the_others_end_and_all_is_tried_again(tmp_path: Path) -> None:
    died(tmp_path)
    before = len(files(tmp_path / "died"))
    (result,) = recover_all(tmp_path / "died", **SHARED, filesystem=_FullForChildren())
    assert result.is_disk
    assert "the disk is full" in (result.error or "")
    assert len(files(tmp_path / "died")) > before
    assert list_segments(tmp_path / "died") != []
    (again,) = recover_all(tmp_path / "died", **SHARED)
    assert again.error is None
    assert_is_recovered(tmp_path)


@pytest.mark.skipif(
    not hasattr(os, "pidfd_open"), reason="the end of somebody else's child cannot be waited for"
)
def test_processes_end_with_the_one_that_has_started_them_and_the_next_recovery_goes_on(
    tmp_path: Path,
) -> None:
    died(tmp_path)
    code = (
        "from pathlib import Path\n"
        "from harvest.pipeline.dead_runs import recover_all\n"
        "from tests.pipeline.test_shared_recovery import SHARED, _HoldsChildren\n"
        "if __name__ == '__main__':\n"
        "    list(recover_all(Path('died'), **SHARED, filesystem=_HoldsChildren()))\n"
    )
    (tmp_path / "parent.py").write_text(code)
    with subprocess.Popen(
        [sys.executable, "parent.py"],
        cwd=tmp_path,
        env=environment(PYTHONPATH=str(ROOT)),
        stdout=subprocess.PIPE,
        text=True,
    ) as parent:
        assert parent.stdout is not None
        try:
            ends = [os.pidfd_open(int(parent.stdout.readline())) for _ in range(2)]
        finally:
            parent.kill()
        for end in ends:
            assert select.select([end], [], [], 30)[0]
            os.close(end)
    (result,) = recover_all(tmp_path / "died", **SHARED)
    assert result.error is None
    assert_is_recovered(tmp_path)


def test_the_command_says_how_many_processes_may_share(tmp_path: Path) -> None:
    died(tmp_path)
    done = harvest("recover", "died", "--jobs", "2", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert_is_recovered(tmp_path)
    assert harvest("recover", "died", "--jobs", "0", cwd=tmp_path).returncode == 2


def write_segment(
    root: Path, number: int, seqs: range, *, reached_seq: int, damaged: int | None = None
) -> None:
    """Write a segment whose entries have their ``seq`` for a body, all whole but for one."""
    header = SegmentHeader(RUN, "binance-usdm", number, seqs[0], reached_seq, {})
    content = bytearray()
    for kind, seq, body in (
        (0, seqs[0], msgspec.json.encode(header)),
        *((FIRST_KIND, seq, b"<%d>" % seq) for seq in seqs),
    ):
        content += frame(kind, seq, body)[0] + body
    if damaged is not None:
        content[content.index(b"<%d>" % damaged)] ^= 1
    path = root / "_journal" / "binance-usdm" / segment_name(RUN, number, seqs[0])
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


@pytest.mark.parametrize("seq", [1, 30, 31, 35, 40, 41, 81, 100, 200])
def test_a_part_needs_the_segments_that_hold_its_records_whole_and_no_others(
    tmp_path: Path, seq: int
) -> None:
    write_segment(tmp_path, 1, range(1, 41), reached_seq=0)
    # The first was given up: what was not known to be durable of it is there again.
    write_segment(tmp_path, 2, range(31, 81), reached_seq=40, damaged=35)
    write_segment(tmp_path, 3, range(81, 101), reached_seq=80)
    (run,) = dead_runs(tmp_path)
    found = [entry.seq for entry in read_run_from(run.segments, seq)]
    assert found[0] == (1 if seq < 41 else 31 if seq < 81 else 81)
    assert [one for one in found if one >= seq] == list(range(seq, 101))
