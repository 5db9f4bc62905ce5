"""Verification of whole data directories: what is complete, what is missing and why, and what is said of it."""

from __future__ import annotations

import io
import json
import shutil

import pytest
from rich.console import Console

from harvest.pipeline.records import Opened, TradesBody, Unserved
from harvest.pipeline.verify import NothingToVerifyError, verify
from harvest.storage.layout import date_text
from tests.pipeline.stored import (
    RUN_1,
    RUN_2,
    Market,
    Run,
    damage,
    files,
    gaps,
    record,
    recorded,
    series,
    verified,
)
from tests.pipeline.wire import DAY, MIDNIGHT_MS, trade

KINDS = ("prices", "depth", "orderbook", "ofi", "cvd")
both_venues = pytest.mark.parametrize("spot", [False, True], ids=["usdm", "spot"])


@both_venues
def test_an_untouched_run_over_midnight_is_complete(tmp_path, spot):
    recorded(tmp_path, spot=spot)
    report = verified(tmp_path)
    assert (report.exit_code, report.complete, report.damage, report.warnings) == (0, True, [], [])
    assert [one.kind for one in report.series] == list(KINDS)
    prices, depth = series(report, "prices"), series(report, "depth")
    assert (prices.rows, prices.first_id, prices.last_id) == (60, 1001, 1060)
    assert (prices.coverage_ids, prices.coverage_s) == (100.0, 100.0)
    # The snapshot, and the whole book at the beginning of the second date.
    assert depth.rows == 62
    assert depth.coverage_ids == (100.0 if spot else None)
    assert [one.day for one in prices.days] == [DAY, DAY + 1]


@both_venues
def test_missing_intervals_are_those_of_the_design_with_the_times_around_them(tmp_path, spot):
    run, market = Run(tmp_path, venue="binance-spot" if spot else "binance-usdm"), Market(spot=spot)
    record(run, market, 5)
    run.body(market.book())
    before = market.update_id
    record(run, market, 2, lose={"diff 0", "trade 0", "trade 1"})
    record(run, market, 5)
    run.publish()
    report = verified(tmp_path)
    assert report.exit_code == 1
    assert gaps(report, "prices") == [(1006, 1007, "gap")]
    (lost,) = series(report, "depth").missing
    assert lost.from_id == before
    # On spot the first id after it, on USD-M the predecessor that was never seen.
    assert before < lost.to_id < market.update_id
    assert lost.to_ns - lost.from_ns == 200_000_000
    assert series(report, "prices").coverage_ids == pytest.approx(100 * 10 / 12)
    assert series(report, "prices").coverage_s < 100
    assert series(report, "orderbook").suspect_rows == 6
    assert damage(report) == []


def test_ids_that_rest_brought_are_not_missing_and_what_it_did_not_bring_has_its_last_reason(tmp_path):
    run = Run(tmp_path)
    run.frames(trade(1))
    run.closed("trade", "stall")
    run.frames(trade(10))
    page = [
        {"a": n, "p": "1", "q": "1", "T": MIDNIGHT_MS - 1000, "m": False, "f": n, "l": n} for n in (2, 3, 6)
    ]
    run.pipeline._messages.id_space = "aggregate"
    run.seq += 1
    body = json.dumps(page).encode()
    run.pipeline.feed(TradesBody(run.seq, run.recv_ns + 10**9, 0, "BTCUSDT", 2, 9, body))
    run.seq += 1
    run.pipeline.feed(Unserved(run.seq, run.recv_ns + 10**9, 0, "BTCUSDT", 7, 9, "not_served"))
    run.publish()
    report = verified(tmp_path)
    assert gaps(report, "prices") == [(4, 5, "stall"), (7, 9, "not_served")]
    times = {(one.from_ns, one.to_ns) for one in series(report, "prices").missing}
    assert len(times) == 1
    assert report.exit_code == 1


def test_what_lies_between_two_runs_is_downtime(tmp_path):
    recorded(tmp_path)
    market = Market()
    for _ in range(60):
        market.diff(), market.trade()
    market.at_ms = MIDNIGHT_MS + 60_000
    # The market went on while nobody was there.
    before = market.update_id
    for _ in range(10):
        market.diff(), market.trade()
    between = market.update_id
    second = Run(tmp_path, RUN_2)
    record(second, market, 3)
    second.body(market.book())
    record(second, market, 3)
    second.publish()
    report = verified(tmp_path)
    assert gaps(report, "prices") == [(1061, 1070, "downtime")]
    assert gaps(report, "depth") == [(before, between, "downtime")]
    assert (report.exit_code, damage(report)) == (1, [])
    # The second run had no book before its snapshot.
    assert series(report, "orderbook").rows == 59 + 3


def test_two_runs_that_meet_lack_nothing(tmp_path):
    first = Run(tmp_path)
    market = Market()
    record(first, market, 5)
    first.publish()
    second = Run(tmp_path, RUN_2)
    record(second, market, 5)
    second.publish()
    assert verified(tmp_path).complete


@pytest.mark.parametrize("kind", ["prices", "depth"])
def test_ids_that_no_break_speaks_of_within_a_run_are_unexplained(tmp_path, kind):
    run, market = Run(tmp_path), Market()
    record(run, market, 5)
    run.publish()
    record(run, market, 5)
    lost = [path for path in run.publish() if path.parts[-5] == kind]
    record(run, market, 5)
    run.publish()
    lost[0].unlink()
    report = verified(tmp_path)
    assert report.exit_code == 3
    (gap,) = series(report, kind).missing
    assert gap.why == "unexplained"
    if kind == "prices":
        assert (gap.from_id, gap.to_id) == (1006, 1010)


def test_a_removed_break_leaves_its_gap_unexplained(tmp_path):
    run, market = Run(tmp_path), Market()
    record(run, market, 9, lose={"trade 4", "diff 6"})
    run.publish()
    assert verified(tmp_path).exit_code == 1
    (path,) = files(tmp_path, "breaks")
    path.unlink()
    report = verified(tmp_path)
    assert report.exit_code == 3
    assert gaps(report, "prices") == [(1005, 1005, "unexplained")]
    assert [why for _, _, why in gaps(report, "depth")] == ["unexplained"]


def test_a_book_is_followed_through_gaps_and_new_snapshots(tmp_path):
    run, market = Run(tmp_path), Market(at_ms=MIDNIGHT_MS - 40_000)
    record(run, market, 3)
    run.body(market.book())
    for lost in ("diff 3", "diff 5", "diff 1"):
        record(run, market, 330, lose={lost})
        # Older than what waits, and ignored while in sync: both are rows all the same.
        run.body(market.book())
        run.body(market.book())
        record(run, market, 5)
    run.publish()
    report = verified(tmp_path)
    assert (report.exit_code, damage(report)) == (1, [])
    assert len(series(report, "depth").missing) == 3
    assert 0 < series(report, "orderbook").suspect_rows < series(report, "orderbook").rows


def test_rows_of_diffs_that_waited_for_another_connection_are_reproduced(tmp_path):
    run, market = Run(tmp_path), Market()
    for name in ("a", "b"):
        run.seq += 1
        run.pipeline.feed(Opened(run.seq, run.recv_ns, 0, f"orderbook-{name}", "orderbook", ("BTCUSDT",)))
    record(run, market, 2)
    run.body(market.book())
    messages = [market.diff() for _ in range(6)]
    run.each([messages[0], messages[2], messages[3]])
    run.each([messages[1], messages[2], messages[4], messages[5]])
    run.publish()
    report = verified(tmp_path)
    assert report.complete, report.damage
    assert series(report, "orderbook").rows == 6


@both_venues
def test_when_the_oldest_dates_were_removed_the_rest_is_still_verified(tmp_path, spot):
    recorded(tmp_path, ticks=400, spot=spot)
    for path in tmp_path.glob(f"*/*/*/date={date_text(DAY)}"):
        shutil.rmtree(path)
    report = verified(tmp_path)
    assert report.complete, report.damage
    assert series(report, "prices").first_id > 1001


def test_series_of_all_venues_and_symbols_are_apart_and_in_order(tmp_path):
    recorded(tmp_path, ticks=4)
    other = Run(tmp_path, symbols=["牛来USDT"])
    other.frames(trade(5, symbol="牛来USDT"), trade(6, symbol="牛来USDT"))
    other.publish()
    recorded(tmp_path, ticks=4, spot=True)
    report = verified(tmp_path)
    assert report.complete
    names = [(one.venue, one.symbol) for one in report.series if one.kind == "prices"]
    assert names == [
        ("binance-spot", "BTCUSDT"),
        ("binance-usdm", "BTCUSDT"),
        ("binance-usdm", "牛来USDT"),
    ]


def test_simulated_venues_obey_the_rule_of_the_venue_that_they_simulate(tmp_path):
    market = Market()
    run = Run(tmp_path)
    run.venue = "simulated-binance-usdm"
    record(run, market, 6, lose={"diff 3"})
    run.publish()
    report = verified(tmp_path)
    assert [why for _, _, why in gaps(report, "depth")] == ["gap"]
    assert series(report, "depth").coverage_ids is None


def test_a_venue_that_nobody_knows_is_read_and_not_followed(tmp_path):
    run = Run(tmp_path)
    run.venue = "kraken"
    record(run, Market(), 6)
    run.publish()
    report = verified(tmp_path)
    assert report.exit_code == 0
    assert any("rule for depth is not known" in line for line in report.warnings)


def test_latencies_below_zero_are_clock_skew(tmp_path):
    run, market = Run(tmp_path), Market()
    record(run, market, 50)
    market.tick()
    run.recv_ns = (market.at_ms - 1500) * 10**6
    run.frames(market.trade())
    run.publish()
    report = verified(tmp_path)
    latency = series(report, "prices").latency
    assert (latency.count, latency.skewed) == (51, 1)
    assert latency.min_ms == pytest.approx(-1499, abs=2)
    assert latency.p50_ms == pytest.approx(22, rel=0.01)
    assert latency.p50_ms <= latency.p99_ms <= latency.max_ms
    # It went back by more than a second, which the data show too.
    assert any("receive times go back" in line for line in report.warnings)
    assert report.exit_code == 0


def test_an_empty_directory_is_an_error_that_names_it(tmp_path):
    with pytest.raises(NothingToVerifyError, match=str(tmp_path)):
        verify(tmp_path)
    with pytest.raises(NothingToVerifyError):
        verify(tmp_path / "nothing")


def test_what_was_left_behind_or_is_foreign_is_named_and_no_damage(tmp_path):
    recorded(tmp_path, ticks=4)
    directory = files(tmp_path, "prices")[0].parent
    for name in (f".{RUN_1}-1-2.parquet.tmp", "notes.txt"):
        (directory / name).write_bytes(b"x")
    (tmp_path / "_journal").mkdir()
    (tmp_path / "_journal" / "anything.parquet").write_bytes(b"x")
    report = verified(tmp_path)
    assert report.complete
    assert len(report.warnings) == 2
    assert any(RUN_1 in line for line in report.warnings)


def test_processes_give_the_same_report_as_one_alone_and_tell_their_progress(tmp_path):
    recorded(tmp_path, ticks=40)
    recorded(tmp_path, ticks=40, spot=True)
    run = Run(tmp_path, symbols=["ETHUSDT"])
    run.frames(trade(5, symbol="ETHUSDT"), trade(9, symbol="ETHUSDT"))
    run.publish()
    progress = []
    alone = verify(tmp_path, jobs=1, on_progress=lambda done, total: progress.append((done, total)))
    together = verify(tmp_path, jobs=2, on_progress=lambda done, total: progress.append((done, total)))
    assert together.to_json() == alone.to_json()
    assert together.series == alone.series
    total = sum(path.stat().st_size for path in tmp_path.rglob("*.parquet"))
    assert progress[-1] == (total, total)
    assert (total, total) in progress[:-1]


def test_json_has_the_promised_shape(tmp_path):
    run, market = Run(tmp_path), Market()
    record(run, market, 9, lose={"trade 4"})
    run.publish()
    files(tmp_path, "cvd")[0].unlink()
    document = json.loads(json.dumps(verified(tmp_path).to_json()))
    assert list(document) == ["complete", "exit", "series", "damage"]
    assert (document["complete"], document["exit"]) == (False, 3)
    prices = document["series"][0]
    assert list(prices) == [
        *("venue", "symbol", "kind", "rows", "duplicates", "first_id", "last_id"),
        *("coverage_ids", "coverage_s", "missing", "uncovered"),
    ]
    assert list(prices["missing"][0]) == ["from_id", "to_id", "from_ns", "to_ns", "why"]
    assert document["damage"][0]["kind"] == "cvd"


@pytest.mark.parametrize("lose", [set(), {"trade 4"}])
def test_people_read_coverage_latencies_gaps_and_one_verdict(tmp_path, lose):
    run, market = Run(tmp_path), Market(at_ms=MIDNIGHT_MS - 500)
    record(run, market, 9, lose=lose)
    run.publish()
    console = Console(file=io.StringIO(), width=200)
    verified(tmp_path).render(console)
    text = console.file.getvalue()
    assert "2024-07-18" in text
    assert "100 of links" in text
    assert "p99" in text
    assert ("COMPLETE" in text) == (not lose)
    assert ("1005 to 1005, gap" in text) == bool(lose)
