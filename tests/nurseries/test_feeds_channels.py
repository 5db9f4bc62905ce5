"""The other channels over real sockets against the simulated venue: each apart from the others, and from trades and books."""

from __future__ import annotations

import pytest

from tests.nurseries.feed_bench import Bench, plans
from tests.nurseries.test_feeds_venue import simulator


async def test_a_channel_that_stalls_is_restarted_and_neither_hides_nor_touches_another(tmp_path):
    bench = Bench(tmp_path, channels=["bbo", "mark"], idle_s=1.5)
    async with (
        simulator("mute route public at 300ms for 2s", rate=30) as url,
        bench.running(plans(url, "trade"), plans(url, "bbo"), plans(url, "mark")),
    ):
        await bench.until(lambda: ("bbo-1", "stall") in bench.closed())
        stored = bench.metrics.feed("bbo", "BTCUSDT").stored
        await bench.until(lambda: bench.metrics.feed("bbo", "BTCUSDT").stored > stored + 2)
    closed = dict(bench.closed())
    assert (closed["trade-1"], closed["mark-1"]) == ("shutdown", "shutdown")
    (found,) = bench.harness.rows("breaks")
    assert (found["feed"], found["reason"], found["from_id"]) == ("bbo", "stall", None)
    # From the last quote before the silence to the first one after it.
    times = bench.harness.column("bbo", "recv_ns")
    after = next(place for place, at in enumerate(times) if at >= found["to_ns"])
    assert (times[after - 1], times[after]) == (found["from_ns"], found["to_ns"])
    ids = bench.harness.column("bbo", "update_id")
    assert ids == sorted(set(ids))


async def test_liquidations_that_do_not_come_cause_no_reconnect_while_their_pulse_does(tmp_path):
    bench = Bench(tmp_path, channels=["liquidations"], idle_s=1.5)
    async with simulator() as url, bench.running(plans(url, "liquidations")):
        connection = bench.metrics.connections
        await bench.until(lambda: len(bench.records) > 6)
    assert bench.closed() == [("liquidations-1", "shutdown")]
    assert connection["liquidations-1"].stalls == 0
    assert bench.harness.rows("mark") == []


async def test_liquidations_whose_pulse_stops_are_connected_anew_and_the_break_is_a_row(tmp_path):
    bench = Bench(tmp_path, channels=["liquidations"], idle_s=1.5)
    async with (
        simulator("mute route market at 1300ms for 3s") as url,
        bench.running(plans(url, "liquidations")),
    ):
        await bench.until(lambda: bench.harness.rows("breaks"))
    assert bench.closed()[0] == ("liquidations-1", "stall")
    (found,) = bench.harness.rows("breaks")
    assert (found["feed"], found["reason"]) == ("liquidations", "stall")
    assert found["to_ns"] - found["from_ns"] > 1.5e9


@pytest.mark.parametrize("feed", ["bbo", "partial_depth", "mark"])
async def test_two_sockets_on_a_channel_bring_each_row_once_and_one_that_is_cut_leaves_no_break(
    feed, tmp_path
):
    bench = Bench(tmp_path, channels=[feed], connections=2)
    async with simulator("cut all at 1500ms on one hard") as url, bench.running(plans(url, feed)):
        stats = bench.metrics.feed(feed, "BTCUSDT")
        await bench.until(lambda: any(reason == "disconnect" for _, reason in bench.closed()))
        duplicates = stats.duplicates
        # Both bring everything again.
        await bench.until(lambda: stats.duplicates > duplicates + 1)
    assert duplicates > 0
    assert bench.harness.rows("breaks") == []
    column = "event_time" if feed == "mark" else "update_id"
    found = bench.harness.column(feed, column)
    assert found == sorted(set(found))
