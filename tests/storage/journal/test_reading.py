"""What is read of a journal that was cut off, spoilt, or written twice over: every whole entry, and an account of the rest."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harvest.storage.journal import (
    JournalError,
    SegmentHeader,
    last_seq,
    list_segments,
    read_run,
    read_segment,
    remove_segments,
)
from harvest.storage.journal.entries import FIRST_KIND, HEADER, LAST_KIND, MARKER, entry_at, entry_end, frame
from tests.storage.journal.disks import RUN, VENUE, WAIT_S, append, body_of, journal_in, seqs_in

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


def entry(seq: int) -> bytes:
    body = body_of(seq)
    return frame(FIRST_KIND + seq % 5, seq, body)[0] + body


def header(number: int, first_seq: int, reached_seq: int, **changed: int) -> bytes:
    body = msgspec.json.encode(SegmentHeader(RUN, VENUE, number, first_seq, reached_seq, {}, **changed))
    return frame(HEADER, first_seq, body)[0] + body


def write_segment(
    root: Path, number: int, seqs: Iterable[int], *, reached_seq: int = 0, run: str = RUN, first: int = 0
) -> Path:
    entries = [entry(seq) for seq in seqs]
    first_seq = first or min(seqs, default=1)
    path = root / "_journal" / VENUE / f"{run}-{number:06}-{first_seq}.journal"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join([header(number, first_seq, reached_seq), *entries]))
    return path


def spans(path: Path) -> list[tuple[int, int]]:
    """Return where each entry of an unharmed segment begins and ends."""
    data = memoryview(path.read_bytes())
    found, position = [], 0
    while position < len(data):
        end = entry_end(data, position)
        assert end is not None
        found.append((position, end))
        position = end
    return found


@given(st.integers(FIRST_KIND, LAST_KIND), st.integers(0, 2**63 - 1), st.binary(max_size=300), st.binary())
def test_an_entry_comes_back_as_it_was_whatever_follows(
    kind: int, seq: int, body: bytes, after: bytes
) -> None:
    lead, size = frame(kind, seq, body)
    data = memoryview(lead + body + after)
    assert entry_end(data, 0) == size == len(lead) + len(body)
    assert entry_at(data, 0, size) == (kind, seq, body)


def test_a_tail_torn_at_any_byte_costs_what_it_cuts_and_is_counted(tmp_path: Path) -> None:
    path = write_segment(tmp_path, 1, range(1, 9))
    data, ends = path.read_bytes(), [end for _, end in spans(path)]
    for length in range(len(data) + 1):
        path.write_bytes(data[:length])
        contents = read_segment(path)
        whole = [end for end in ends if end <= length]
        assert [one.seq for one in contents] == list(range(1, len(whole)))
        assert contents.torn_bytes == length - max(whole, default=0)
        assert contents.damage == []
        assert last_seq(tmp_path) == max(len(whole) - 1, 0)


@pytest.mark.parametrize("bit", [0, 3, 7])
def test_a_flipped_bit_costs_its_own_entry_and_no_other(bit: int, tmp_path: Path) -> None:
    path = write_segment(tmp_path, 1, range(1, 9))
    data, where = path.read_bytes(), spans(path)
    for place in range(len(data)):
        spoilt = bytearray(data)
        spoilt[place] ^= 1 << bit
        path.write_bytes(spoilt)
        hit = next(number for number, (start, end) in enumerate(where) if start <= place < end)
        contents = read_segment(path)
        assert [one.seq for one in contents] == [seq for seq in range(1, 9) if seq != hit]
        start, end = where[hit]
        if hit == len(where) - 1:
            assert (contents.torn_bytes, contents.damage) == (end - start, [])
        else:
            assert contents.torn_bytes == 0
            (damage,) = contents.damage
            assert (damage.start, damage.end) == (start, end)
            assert contents.bytes_of(damage) == spoilt[start:end]
        assert (contents.header is None) == (hit == 0)


@given(st.lists(st.binary(max_size=60), min_size=9, max_size=9))
def test_whatever_bytes_stand_between_entries_all_entries_are_read(tmp_path_factory, junk) -> None:
    path = tmp_path_factory.getbasetemp() / "junk.journal"
    # Half a marker could make one of what follows.
    between = [bytes(each).rstrip(MARKER) for each in junk]
    path.write_bytes(b"".join(each + entry(seq) for seq, each in enumerate(between, start=1)) + between[0])
    contents = read_segment(path)
    assert [one.seq for one in contents] == list(range(1, 10))
    assert [contents.bytes_of(damage) for damage in contents.damage] == [each for each in between if each]
    assert contents.torn_bytes == len(between[0])


def test_markers_in_bodies_and_zeros_at_the_end_mislead_nobody(tmp_path: Path) -> None:
    path = write_segment(tmp_path, 1, [])
    body = MARKER * 3 + frame(FIRST_KIND, 9, b"")[0][:-3] + MARKER
    lead, size = frame(FIRST_KIND, 5, body)
    damaged = bytearray(lead + body)
    damaged[size - 1] ^= 1
    with path.open("ab") as file:
        file.write(lead + body + bytes(damaged) + entry(7) + bytes(5000))
    contents = read_segment(path)
    assert [one.seq for one in contents] == [5, 7]
    assert (len(contents.damage), contents.torn_bytes) == (1, 5000)


def test_old_blocks_behind_the_end_are_not_taken_for_new_entries(tmp_path: Path) -> None:
    path = write_segment(tmp_path, 1, [*range(100, 110), *range(50, 55), 110])
    assert [one.seq for one in read_segment(path)] == list(range(100, 111))


def test_two_segments_are_one_stream(tmp_path: Path) -> None:
    write_segment(tmp_path, 1, range(1, 5))
    torn = write_segment(tmp_path, 2, range(5, 9), reached_seq=4)
    torn.write_bytes(torn.read_bytes()[:-3])
    write_segment(tmp_path, 3, range(9, 12), reached_seq=8)
    contents = read_run(tmp_path, VENUE, RUN)
    assert [one.seq for one in contents] == [1, 2, 3, 4, 5, 6, 7, 9, 10, 11]
    assert contents.torn_bytes == len(entry(8)) - 3
    assert [segment.number for segment in contents.segments] == [1, 2, 3]
    assert list(read_run(tmp_path, "binance-spot", RUN)) == []
    assert last_seq(tmp_path) == 11


@pytest.mark.parametrize("spoilt", [None, 3, 5, 7])
@pytest.mark.parametrize("cut", [range(4, 6), range(4, 9), range(4, 15)])
def test_of_a_segment_that_was_given_up_and_the_one_that_repeats_it_each_whole_entry_is_read_once(
    spoilt: int | None, cut: range, tmp_path: Path
) -> None:
    first = write_segment(tmp_path, 1, range(1, 9))
    write_segment(tmp_path, 2, cut, reached_seq=8)
    write_segment(tmp_path, 3, range(15, 20), reached_seq=14)
    if spoilt is not None:
        data = bytearray(first.read_bytes())
        data[spans(first)[spoilt][1] - 1] ^= 1
        first.write_bytes(data)
    expected = set(range(1, 9)) - {spoilt} | set(cut) | set(range(15, 20))
    assert seqs_in(tmp_path) == sorted(expected)


def test_the_last_seq_is_found_though_the_newest_segment_repeats_less_than_there_was(tmp_path: Path) -> None:
    write_segment(tmp_path, 1, range(1, 151))
    write_segment(tmp_path, 2, range(130, 140), reached_seq=150)
    assert last_seq(tmp_path) == 150
    # Even a segment whose header was never written tells something.
    empty = write_segment(tmp_path, 3, [], reached_seq=0, first=180)
    empty.write_bytes(b"")
    assert last_seq(tmp_path) == 179


def test_the_last_seq_is_that_of_all_runs_and_venues(tmp_path: Path) -> None:
    write_segment(tmp_path, 1, range(1, 5))
    write_segment(tmp_path, 1, range(300, 305), run="20261120T000000Z0000")
    assert last_seq(tmp_path) == 304
    assert last_seq(tmp_path / "nothing") == 0


def test_a_segment_that_cannot_be_read_is_passed_far_beyond(tmp_path: Path) -> None:
    write_segment(tmp_path, 1, range(1, 5))
    (tmp_path / "_journal" / VENUE / f"{RUN}-000002-5.journal").mkdir()
    assert last_seq(tmp_path) > 10**9


def test_a_later_format_is_refused_by_name_and_not_taken_for_damage(tmp_path: Path) -> None:
    path = write_segment(tmp_path, 1, [])
    path.write_bytes(header(1, 1, 0, format=2) + entry(1))
    with pytest.raises(JournalError, match="journal format 2, but this harvest knows 1"):
        list(read_segment(path))


def test_foreign_files_are_no_segments_and_removing_twice_is_as_good(tmp_path: Path) -> None:
    path = write_segment(tmp_path, 1, range(1, 3))
    for name in ("reserve", "x.journal", f"{RUN}-1-1.journal", f"{RUN}-000001-1.journal.zst"):
        (path.parent / name).write_bytes(b"")
    segments = list_segments(tmp_path)
    assert [segment.path for segment in segments] == [path]
    assert segments[0].size_bytes == path.stat().st_size
    remove_segments(segments)
    remove_segments(segments)
    assert list_segments(tmp_path) == []


def test_a_running_journal_can_be_read_beside_it(tmp_path: Path) -> None:
    journal = journal_in(tmp_path)
    for seq, upto in itertools.pairwise([0, 10, 30]):
        append(journal, *range(seq + 1, upto + 1))
        assert journal.flush(WAIT_S)
        assert seqs_in(tmp_path) == list(range(1, upto + 1))
    journal.close(WAIT_S)
