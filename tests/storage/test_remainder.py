"""What of sealed rows is in no file yet."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from harvest.storage.kinds import DEPTH, UNKNOWN
from harvest.storage.remainder import merged, uncommitted
from harvest.storage.tables import Sealed, Tables
from tests.storage.rows import DAY, expected_rows

intervals = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 8)), max_size=6).map(
    lambda pairs: [(first, first + length) for first, length in pairs]
)


def sealed_depth(seqs: list[int], sizes: list[int]) -> Sealed:
    """Seal a row of ``depth`` for each seq, with levels that nothing else has."""
    table = Tables(max_rows=10**9).table(DEPTH, "BTCUSDT", DAY)
    for number, (seq, size) in enumerate(zip(seqs, sizes, strict=True)):
        if table.marked_seq != seq or number % 3 == 0:
            table.mark(seq, 1000 + number, number % 3)
        table.rows += DEPTH.packer.pack(UNKNOWN, UNKNOWN, number, number, UNKNOWN, 0, size, 2 - size)
        table.add_levels([(float(number), 1.0)] * size, [(float(number), 2.0)] * (2 - size))
        table.count += 1
    return table.seal()


@given(intervals)
def test_merged_intervals_hold_the_same_records_and_neither_meet_nor_overlap(pairs):
    joined = merged(pairs)
    held = {seq for first, last in joined for seq in range(first, last + 1)}
    assert held == {seq for first, last in pairs for seq in range(first, last + 1)}
    assert all(one[1] + 1 < other[0] for one, other in itertools.pairwise(joined))


@given(st.lists(st.integers(0, 50), min_size=1, max_size=30).map(sorted), intervals, st.data())
def test_exactly_the_rows_are_left_that_no_interval_covers_and_no_part_spans_one(seqs, pairs, data):
    sizes = data.draw(st.lists(st.integers(0, 2), min_size=len(seqs), max_size=len(seqs)))
    sealed = sealed_depth(seqs, sizes)
    committed = merged(pairs)
    parts = uncommitted(sealed, committed)
    rows = [row for part in parts for row in expected_rows(part)]
    assert rows == [
        row
        for row in expected_rows(sealed)
        if not any(first <= row["seq"] <= last for first, last in committed)
    ]
    for part in parts:
        own = [row["seq"] for row in expected_rows(part)]
        assert (part.count, part.first_seq, part.last_seq) == (len(own), own[0], own[-1])
        assert not any(part.first_seq <= last and first <= part.last_seq for first, last in committed)
        assert part.levels is not None
        assert len(part.levels[0]) == sum(len(row["bid_px"]) for row in expected_rows(part))
