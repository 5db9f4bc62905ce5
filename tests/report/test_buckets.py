"""Buckets: nothing is lost or counted twice, however far the time spans; and the axis that they are drawn on."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harvest.report.axis import TimeAxis, fitted
from harvest.report.buckets import DAY_NS, MAX_HELD, SECOND_NS, WIDTHS_NS, Buckets
from harvest.report.charts import values_text
from harvest.report.histogram import BINS, EDGES_MS, counted, label
from harvest.report.measures import Measures
from harvest.report.texts import duration, percent, short

times = st.lists(st.integers(1_600_000_000, 1_900_000_000).map(lambda at_s: at_s * SECOND_NS), min_size=1)


def test_each_width_divides_the_next():
    assert all(wide % narrow == 0 for narrow, wide in itertools.pairwise(WIDTHS_NS))


@given(batches=st.lists(times, min_size=1, max_size=4), width=st.sampled_from(WIDTHS_NS))
def test_buckets_hold_what_a_loop_over_all_rows_finds(batches, width):
    buckets = Buckets(1)
    for batch in batches:
        at_ns = np.array(batch, np.int64)
        buckets.add(at_ns, at_ns / 1e18)
    buckets.widen(width)
    expected: dict[int, list[float]] = {}
    for at_ns in (one for batch in batches for one in batch):
        expected.setdefault(at_ns // width, []).append(at_ns / 1e18)
    assert buckets.keys.tolist() == sorted(expected)
    for place, key in enumerate(sorted(expected)):
        held = expected[key]
        assert buckets.counts[place] == len(held)
        assert buckets.least[place, 0] == min(held)
        assert buckets.greatest[place, 0] == max(held)
        assert buckets.means()[place, 0] == pytest.approx(sum(held) / len(held))


def test_memory_is_bounded_over_a_month_of_seconds():
    buckets = Buckets()
    for day in range(30):
        buckets.add(np.arange(86_400, dtype=np.int64) * SECOND_NS + day * DAY_NS)
        assert len(buckets.keys) <= MAX_HELD
    assert buckets.counts.sum() == 30 * 86_400


@given(times)
def test_an_axis_holds_all_rows_in_as_many_buckets_as_asked_for(at_ns):
    one = Measures("venue", "symbol")
    one.trades.add(np.array(at_ns, np.int64), np.zeros(len(at_ns)))
    axis = fitted([one], max_buckets=120)
    assert axis.count <= 120
    assert axis.start_ns <= min(at_ns) <= max(at_ns) < axis.end_ns
    assert np.nansum(axis.spread(one.trades.keys, one.trades.counts)) == len(at_ns)
    ticks = axis.ticks()
    assert [tick.at for tick in ticks] == sorted(tick.at for tick in ticks)
    assert len({tick.text for tick in ticks}) == len(ticks) <= 12


def test_nothing_has_no_axis():
    assert fitted([Measures("venue", "symbol")], max_buckets=120) is None


@pytest.mark.parametrize(
    ("span_s", "texts"),
    [
        (40, ["20 Jul", "00:00:05", "00:00:10"]),
        (5 * 3600, ["20 Jul", "01:00", "02:00"]),
        (6 * 86_400, ["20 Jul", "21 Jul", "22 Jul"]),
        (300 * 86_400, ["Sep 2024", "Nov 2024", "Jan 2025"]),
    ],
)
def test_ticks_are_round_times_dates_or_months(span_s, texts):
    start_ns = 19_924 * DAY_NS
    found = [tick.text for tick in TimeAxis(start_ns, SECOND_NS, span_s).ticks()]
    assert found[:3] == texts


def test_a_rate_is_that_of_the_time_in_which_rows_came():
    at_ns = np.arange(5, 65, dtype=np.int64) * SECOND_NS // 2
    buckets = Buckets()
    buckets.add(at_ns)
    buckets.widen(5 * SECOND_NS)
    axis = TimeAxis(0, 5 * SECOND_NS, 8)
    rates = axis.rates(buckets)
    assert rates[1:6].tolist() == [2.0] * 5
    assert np.isnan(rates[7])
    assert np.nanmax(rates) <= 2.5


@given(st.lists(st.floats(-1e6, 1e6)))
def test_each_latency_is_in_one_bin(late_ms):
    counts = counted(np.array(late_ms))
    assert len(counts) == BINS
    assert counts.sum() == len(late_ms)


def test_bins_are_named_by_their_edges():
    assert list(EDGES_MS) == sorted(EDGES_MS)
    (place,) = np.flatnonzero(counted(np.array([21.0])))
    assert label(int(place)) == "20 ms to 25 ms"
    assert label(0).startswith("below -100 s")
    assert label(BINS - 1) == "100 s or more"


def test_values_of_tooltips_are_short_and_what_repeats_stands_once():
    assert values_text(np.array([1.0, 1.0, 1.0, np.nan, np.nan, 2.5, 12345.678])) == "1*3,*2,2.5,12345.68"


def test_what_is_not_all_never_looks_like_it():
    assert percent(100.0) == "100 %"
    assert percent(99.999999) == "99.9999 %"
    assert percent(None) == "–"
    assert short(1_234_567.0) == "1.23M"
    assert duration(3_725 * SECOND_NS) == "1 h 2 min"
