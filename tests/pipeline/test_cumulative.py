"""The running sum: exact, by vectors and without, over dates and runs."""

from __future__ import annotations

import random
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from harvest.book.flow import EXACT_UNITS, sum_from_float
from harvest.pipeline.cumulative import running_sums
from tests.book.reference import exact
from tests.pipeline.wire import DAY, Harness, trade

#: Quantities as venues write them, up to where the vectors must give way.
QUANTITIES = st.one_of(
    st.integers(0, 10**9).map(lambda units: units / 10**8),
    st.integers(0, 10**6).map(lambda thousandths: thousandths / 10**3),
    st.integers(0, 10**15).map(lambda units: units / 10**8),
    st.sampled_from([0.0, 1e-8, 1e7, 22517998.13685247, 41747165.71858075]),
)


@settings(deadline=None, max_examples=200)
@given(
    st.lists(st.tuples(QUANTITIES, st.booleans()), max_size=30),
    st.one_of(st.just(0), st.integers(-EXACT_UNITS, EXACT_UNITS), st.integers(-(10**20), 10**20)),
)
@example([(22517998.13685247, False)], 1)
@example([(41747165.71858075, True)], 0)
def test_sums_are_exact_whichever_way_they_go(trades, start):
    qty = np.array([size for size, _ in trades], np.float64)
    sold = np.array([is_sale for _, is_sale in trades], np.bool_)
    deltas, sums, end = running_sums(qty, sold, start)
    total = Fraction(start, 10**8)
    for (size, is_sale), delta, cvd in zip(trades, deltas.tolist(), sums.tolist(), strict=True):
        signed = -exact(size) if is_sale else exact(size)
        total += signed
        assert delta == float(signed)
        assert cvd == float(total)
    assert Fraction(end, 10**8) == total


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 2**32).map(random.Random), st.integers(1, 40))
def test_the_vectors_and_the_exact_way_agree_bit_by_bit(chaos, count):
    qty = np.array([chaos.randrange(10**11) / 10**8 for _ in range(count)])
    sold = np.array([chaos.random() < 0.5 for _ in range(count)])
    by_vectors = running_sums(qty, sold, 0)
    # One absurd trade before them forces the other way, and one after it takes it back.
    absurd = np.concatenate(([1e12, 1e12], qty))
    deltas, sums, end = running_sums(absurd, np.concatenate(([False, True], sold)), 0)
    assert by_vectors[0].tobytes() == deltas[2:].tobytes()
    assert by_vectors[1].tobytes() == sums[2:].tobytes()
    assert by_vectors[2] == end


@pytest.mark.parametrize("parts", [1, 2, 7])
def test_it_does_not_matter_how_often_the_trades_were_sealed(parts):
    chaos = random.Random(parts)
    trades = [
        trade(number, qty=chaos.randrange(1, 10**9) / 10**8, sold=chaos.random() < 0.5)
        for number in range(70)
    ]
    whole, sealed = Harness(), Harness()
    whole.each(trades)
    for number, message in enumerate(trades):
        sealed.frames(message)
        if number % (70 // parts) == 0:
            sealed.rows("cvd")
    assert sealed.rows("cvd") == whole.rows("cvd")


def test_run_goes_on_from_the_sum_that_is_stored_for_the_date():
    first = Harness()
    first.frames(trade(1, qty=0.1), trade(2, qty=0.2), trade(3, qty=1.123, sold=True))
    stored = first.column("cvd", "cvd")[-1]
    assert stored == -0.823
    second = Harness(stored_cvd={("BTCUSDT", DAY): sum_from_float(stored)})
    second.frames(trade(4, qty=0.003))
    assert second.column("cvd", "cvd") == [-0.82]


def test_trades_that_do_not_count_leave_the_marks_of_the_others_right():
    harness = Harness()
    kinds = [
        ["ADL"],
        ["MARKET", "ADL", "MARKET"],
        ["ADL", "ADL"],
        ["ADL", "MARKET"],
        ["MARKET", "ADL"],
        ["ADL"],
    ]
    trade_id, expected = 0, []
    for block in kinds:
        frames = []
        for kind in block:
            frames.append(trade(trade_id, kind=kind))
            if kind == "MARKET":
                expected.append((harness.seq + 1, harness.recv_ns + 10**6, trade_id))
            trade_id += 1
        harness.frames(*frames)
    rows = harness.rows("cvd")
    assert [(row["seq"], row["recv_ns"], row["trade_id"]) for row in rows] == expected
    (part,) = [part for part in harness.sealed if part.kind.name == "cvd"]
    assert (part.first_seq, part.last_seq, part.count) == (2, 5, 4)


def test_table_of_which_no_trade_counts_makes_no_rows_and_keeps_the_sum():
    harness = Harness()
    harness.frames(trade(1, qty=2.0))
    harness.rows("cvd")
    harness.frames(trade(2, kind="ADL"))
    harness.rows("cvd")
    harness.frames(trade(3, qty=3.0))
    assert harness.column("cvd", "cvd") == [2.0, 5.0]


def test_sums_of_two_symbols_and_two_dates_are_apart():
    harness = Harness(symbols=["BTCUSDT", "ETHUSDT"])
    harness.frames(trade(1, qty=1.0), trade(1, qty=10.0, symbol="ETHUSDT"), trade(2, qty=2.0))
    assert harness.column("cvd", "cvd") == [1.0, 3.0]
    assert harness.column("cvd", "cvd", symbol="ETHUSDT") == [10.0]
