"""Merging files by record, and comparing rows: small streams, cut in every way."""

from __future__ import annotations

import itertools
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from harvest.pipeline.verify.comparison import Comparison, SumComparison
from harvest.pipeline.verify.findings import Findings
from harvest.pipeline.verify.latency import Latencies
from harvest.pipeline.verify.merge import in_order
from harvest.pipeline.verify.rows import count, cut


def file_of(seqs, ids, batch):
    """Stand in for a file: its rows, ``batch`` at once."""
    rows = {"seq": np.array(seqs, np.int64), "id": np.array(ids, np.int64)}
    parts = [cut(rows, slice(at, at + batch)) for at in range(0, len(seqs), batch)]
    return SimpleNamespace(file=SimpleNamespace(first_seq=seqs[0]), batches=lambda: iter(parts))


@settings(deadline=None, max_examples=200)
@given(
    st.lists(st.tuples(st.integers(0, 30), st.integers(0, 2)), min_size=1, max_size=60),
    st.integers(1, 5),
    st.integers(0, 2**32),
)
def test_rows_of_all_files_come_in_the_order_of_their_records_and_no_record_is_cut(rows, batch, seed):
    rows.sort()
    files = []
    for date in range(3):
        here = [(seq, number) for number, (seq, at) in enumerate(rows) if at == date]
        if here:
            files.append(file_of(*zip(*here, strict=True), batch))
    files.sort(key=lambda file: file.file.first_seq)
    chunks = list(in_order(files, "id"))
    merged = [
        pair for chunk in chunks for pair in zip(chunk["seq"].tolist(), chunk["id"].tolist(), strict=True)
    ]
    assert merged == [(seq, number) for number, (seq, _) in enumerate(rows)]
    seen = set()
    for chunk in chunks:
        assert count(chunk)
        assert not seen & set(chunk["seq"].tolist())
        seen |= set(chunk["seq"].tolist())


def test_a_file_that_is_not_in_order_loses_no_row():
    chaos = file_of([5, 3, 9, 1, 9, 2], [1, 2, 3, 4, 5, 6], 2)
    other = file_of([4, 6], [7, 8], 1)
    merged = [at for chunk in in_order([other, chaos], "id") for at in chunk["id"].tolist()]
    assert sorted(merged) == [1, 2, 3, 4, 5, 6, 7, 8]


def chunks_of(rows, sizes):
    """Cut rows into chunks that leave records whole."""
    edges = [0, *np.cumsum(sizes).tolist(), count(rows)]
    for low, high in itertools.pairwise(edges):
        if low < min(high, count(rows)):
            yield cut(rows, slice(low, high))


def rows_of(ids):
    ids = np.array(sorted(ids), np.int64)
    return {"seq": ids * 2, "id": ids, "value": ids / 7}


@settings(deadline=None, max_examples=200)
@given(
    st.sets(st.integers(0, 60)),
    st.sets(st.integers(0, 60), max_size=5),
    st.sets(st.integers(0, 60), max_size=5),
    st.sets(st.integers(0, 60), max_size=5),
    st.lists(st.integers(1, 9), max_size=9),
    st.lists(st.integers(1, 9), max_size=9),
)
def test_exactly_the_rows_that_are_absent_surplus_or_other_are_named(
    ids, lost, added, wrong, cuts, other_cuts
):
    findings = Findings(Path("/"))
    stored = rows_of((ids - lost) | added)
    is_wrong = np.isin(stored["id"], list(wrong))
    stored["value"] = np.where(is_wrong, -stored["value"] - 1, stored["value"])
    comparison = Comparison("x", "id", chunks_of(stored, cuts), findings, origin="y")
    for chunk in chunks_of(rows_of(ids), other_cuts):
        comparison.expect(chunk)
    comparison.finish()
    there = (ids - lost) | added
    # What stands between the first and the last of a finding, on the side that it speaks of.
    sides = {"absent": ids, "surplus": there, "differs": ids & there}
    named = {what: [] for what in sides}
    for one in findings.damage:
        inside = [at for at in sorted(sides[one.what]) if one.from_id <= at <= one.to_id]
        assert len(inside) == one.rows
        named[one.what] += inside
    assert named == {
        "absent": sorted(ids - there),
        "surplus": sorted(there - ids),
        "differs": sorted(wrong & there & ids),
    }


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 10**6), st.booleans()), min_size=2, max_size=40),
    st.lists(st.integers(1, 7), max_size=9),
    st.data(),
)
def test_one_wrong_sum_is_one_finding_wherever_it_is(trades, cuts, data):
    ids = np.arange(len(trades))
    qty = np.array([size / 1000 for size, _ in trades])
    sold = np.array([is_sale for _, is_sale in trades])
    units = np.cumsum(np.where(sold, -1, 1) * np.array([size * 10**5 for size, _ in trades]))
    stored = {"seq": ids, "id": ids, "delta": np.where(sold, -qty, qty), "cvd": units / 1e8}
    at = data.draw(st.integers(0, len(trades) - 1))
    # Wrong for good: the sums after it hold it.
    stored["cvd"] = np.where(ids >= at, (units + 7) / 1e8, units / 1e8)
    findings = Findings(Path("/"))
    comparison = SumComparison("cvd", "id", chunks_of(stored, cuts), findings, origin="prices")
    for chunk in chunks_of({"seq": ids, "id": ids, "qty": qty, "sold": sold}, cuts[::-1]):
        comparison.expect(chunk)
    comparison.finish()
    assert [(one.what, one.from_id, one.to_id) for one in findings.damage] == [("differs", at, at)]


@settings(deadline=None)
@given(st.lists(st.integers(-(10**9), 10**9), min_size=1, max_size=200))
def test_quantiles_are_right_to_a_thousandth(latencies_us):
    latencies = Latencies()
    values = np.array(latencies_us, np.int64)
    for part in (values[::2], values[1::2]):
        latencies.add(10**18 + part * 1000, np.full(len(part), 10**15))
    found = latencies.summary()
    ordered = np.sort(values)
    for quantile, got in ((0.5, found.p50_ms), (0.99, found.p99_ms)):
        expected = ordered[int(np.ceil(quantile * len(ordered))) - 1] / 1000
        assert abs(got - expected) <= abs(expected) * 0.0011 + 0.001
    assert (found.max_ms, found.min_ms) == (ordered[-1] / 1000, ordered[0] / 1000)
    assert found.skewed == (values < 0).sum()
