"""Raw capture: segments that are let go, compressed, as they were."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from harvest.storage.journal import keep_raw, list_raw, list_segments, read_segment, remove_segments
from tests.storage.journal.disks import VENUE, WAIT_S, FailingDisk, append, journal_in

if TYPE_CHECKING:
    from pathlib import Path


def test_what_is_let_go_is_kept_and_reads_as_it_was(tmp_path: Path) -> None:
    journal = journal_in(tmp_path, keep_raw=True)
    for seq in range(1, 31):
        append(journal, seq)
    journal.close(WAIT_S)
    (segment,) = list_segments(tmp_path)
    before = list(read_segment(segment.path))
    size = segment.size_bytes
    journal.discard()
    assert list_segments(tmp_path) == []
    (kept,) = list_raw(tmp_path, VENUE)
    assert (kept.run, kept.number, kept.first_seq) == (segment.run, segment.number, segment.first_seq)
    assert list(read_segment(kept.path)) == before
    assert kept.size_bytes < size
    assert kept.path.parent.name.startswith("date=")


def test_a_keeping_that_fails_loses_nothing_and_is_gone_on_with(tmp_path: Path) -> None:
    journal = journal_in(tmp_path)
    append(journal, 1)
    journal.close(WAIT_S)
    segments = list_segments(tmp_path)
    before = list(read_segment(segments[0].path))
    disk = FailingDisk()
    for call in ("create", "write"):
        disk.fail(call)
        with pytest.raises(OSError, match="injected"):
            keep_raw(tmp_path, segments, filesystem=disk)
        assert list_raw(tmp_path) == []
    for _ in range(2):
        keep_raw(tmp_path, segments, filesystem=disk)
    remove_segments(segments)
    keep_raw(tmp_path, segments, filesystem=disk)
    (kept,) = list_raw(tmp_path)
    assert list(read_segment(kept.path)) == before
