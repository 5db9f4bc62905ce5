"""Verification of the other channels: their order, what comes twice, sane values, and when nothing could come."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harvest.pipeline.ingest import Ingest
from harvest.pipeline.records import Closed, Opened
from harvest.settings import ChannelSettings
from harvest.storage.files import DataDirectory
from harvest.storage.kinds import BBO, LIQUIDATIONS, MARK
from harvest.storage.parquet import Provenance, encode
from harvest.storage.tables import Tables
from tests.pipeline.ingested import settings_for
from tests.pipeline.stored import RUN_1, RUN_2, Market, Run, damage, files, series, verified
from tests.pipeline.test_channels import liquidation, mark, partial, quote
from tests.pipeline.wire import DAY, MIDNIGHT_MS, T0_MS

ALL = ("bbo", "mark", "liquidations", "partial_depth")
RECORDINGS = Path(__file__).resolve().parents[3] / "shared" / "recordings"
AT_US = T0_MS * 1000


def stored_rows(root, kind, *rows):
    """Write rows, one a record, past everything that would refuse them."""
    table = Tables(max_rows=10**6).table(kind, "BTCUSDT", DAY)
    for number, row in enumerate(rows):
        table.mark(1 + number, T0_MS * 10**6 + number, 0)
        table.rows += kind.packer.pack(*row)
        table.count += 1
    sealed, directory = table.seal(), DataDirectory(root)
    path = directory.path_of(sealed, venue="binance-usdm", run=RUN_1)
    directory.publish(path, encode(sealed, Provenance("binance-usdm", RUN_1)).data)


def connected(run, record_type, name, *reason):
    run.seq += 1
    run.pipeline.feed(record_type(run.seq, run.recv_ns, run.seq, name, "bbo", ("BTCUSDT",), *reason))


def test_channels_that_are_whole_are_complete(tmp_path):
    run = Run(tmp_path, channels=ALL)
    for number in range(20):
        at_ms = MIDNIGHT_MS - 10_000 + number * 1000
        run.recv_ns = (at_ms + 30) * 10**6
        run.frames(quote(number + 1, at_ms=at_ms), mark(at_ms), liquidation(at_ms, event_ms=at_ms))
        run.frames(partial(number + 1))
    run.publish()
    report = verified(tmp_path)
    assert (report.exit_code, report.damage, report.warnings) == (0, [], [])
    for kind in ALL:
        one = series(report, kind)
        assert (one.rows, one.coverage_s, one.coverage_ids, one.uncovered) == (20, 100.0, None, [])
    assert (series(report, "bbo").first_id, series(report, "bbo").last_id) == (1, 20)
    assert series(report, "mark").latency.p50_ms == pytest.approx(31, rel=0.01)


def test_a_break_and_the_time_between_two_runs_are_not_covered_and_explained(tmp_path):
    run = Run(tmp_path, channels=["bbo"])
    connected(run, Opened, "bbo-1")
    run.frames(quote(1), connection="bbo-1")
    broken_ns = run.recv_ns
    connected(run, Closed, "bbo-1", "stall")
    run.recv_ns += 2 * 10**9
    connected(run, Opened, "bbo-2")
    run.frames(quote(2), connection="bbo-2")
    back_ns = run.recv_ns
    run.publish()
    later = Run(tmp_path, RUN_2, channels=["bbo"])
    later.recv_ns = back_ns + 4 * 10**9
    later.frames(quote(3))
    later.frames(quote(4))
    later.publish()
    report = verified(tmp_path)
    assert (report.exit_code, report.damage) == (1, [])
    bbo = series(report, "bbo")
    assert [(one.from_ns, one.to_ns, one.why) for one in bbo.uncovered] == [
        (broken_ns, back_ns, "stall"),
        (back_ns, back_ns + 4 * 10**9 + 10**6, "downtime"),
    ]
    assert bbo.coverage_s < 1
    found = next(one for one in report.to_json()["series"] if one["kind"] == "bbo")
    assert json.loads(json.dumps(found))["uncovered"][0]["why"] == "stall"


def test_ids_that_come_twice_or_go_back_are_damage(tmp_path):
    level = (100.0, 1.0, 101.0, 1.0)
    stored_rows(tmp_path, BBO, *((AT_US, AT_US, update_id, *level) for update_id in (5, 6, 6, 9, 7, 10)))
    report = verified(tmp_path)
    assert damage(report) == [("duplicate", "bbo", 6, 6), ("order", "bbo", 7, 7)]
    assert (report.exit_code, series(report, "bbo").duplicates) == (3, 1)


def test_event_times_of_marks_rise(tmp_path):
    tail = (1.0, 1.0, 1.0, 1.0, 0.1, AT_US)
    stored_rows(tmp_path, MARK, *((AT_US + second, *tail) for second in (0, 10**6, 10**6, 0)))
    assert [one.what for one in verified(tmp_path).damage] == ["duplicate", "order"]


def test_a_liquidation_that_is_stored_twice_is_damage(tmp_path):
    first, other = ((0, 0, 0, 2, 9.0, 9.0, qty, 1.0, qty) for qty in (1.0, 2.0))
    stored_rows(tmp_path, LIQUIDATIONS, *((AT_US, AT_US, *row) for row in (first, other, first)))
    assert damage(verified(tmp_path)) == [("duplicate", "liquidations", None, None)]


@pytest.mark.parametrize(
    ("level", "what"),
    [
        ((101.0, 1.0, 101.0, 1.0), "crossed"),
        ((float("nan"), 1.0, 101.0, 1.0), "value"),
        ((100.0, -1.0, 101.0, 1.0), "value"),
        ((100.0, 1.0, float("inf"), 1.0), "value"),
    ],
)
def test_values_that_cannot_be_are_damage(level, what, tmp_path):
    stored_rows(tmp_path, BBO, (AT_US, AT_US, 1, *level), (AT_US, AT_US, 2, 0.0, 0.0, 101.0, 1.0))
    assert [one.what for one in verified(tmp_path).damage] == [what]


def test_partial_depth_that_is_crossed_is_damage(tmp_path):
    run = Run(tmp_path, channels=["partial_depth"])
    run.frames(partial(1), partial(2).replace(b'["99",', b'["105",'), partial(3, bids=0))
    run.publish()
    assert damage(verified(tmp_path)) == [("crossed", "partial_depth", 2, 2)]


def market_with_quotes(root, *, wrong=(), missed=(), broken=False):
    """Record a book, and after each diff the best quote that follows from it, but for some."""
    run, market = Run(root, channels=["bbo"]), Market(at_ms=MIDNIGHT_MS - 60_000)
    connected(run, Opened, "bbo-1")
    market.tick()
    run.frames(market.diff())
    run.body(market.book())
    for number in range(40):
        market.tick()
        run.recv_ns = (market.at_ms + 20) * 10**6
        run.frames(market.diff())
        tops = run.pipeline.book("BTCUSDT").ladder.top(1)
        bid, bid_qty, ask, ask_qty = (side[0] for side in tops)
        if number in missed:
            continue
        frame = quote(market.update_id, at_ms=market.at_ms, bid=bid - (0.5 if number in wrong else 0))
        frame = frame.replace(b'"B":"1"', b'"B":"%r"' % bid_qty)
        frame = frame.replace(b'"a":"101","A":"2"', b'"a":"%r","A":"%r"' % (ask, ask_qty))
        if broken and number - 1 in missed:
            connected(run, Closed, "bbo-1", "disconnect")
            connected(run, Opened, "bbo-1.2")
        run.frames(frame, connection="bbo-1.2" if broken and number > min(missed) else "bbo-1")
    run.publish()
    return verified(root)


def test_best_quotes_are_held_against_the_book(tmp_path):
    report = market_with_quotes(tmp_path / "whole")
    # The last quote waits for the one that shows that none was missed after it.
    assert (series(report, "bbo").tops_compared, series(report, "bbo").tops_disagreeing) == (39, 0)
    assert report.warnings == []
    report = market_with_quotes(tmp_path / "wrong", wrong={5, 6, 17})
    assert (series(report, "bbo").tops_compared, series(report, "bbo").tops_disagreeing) == (39, 3)
    (warning,) = report.warnings
    assert "3 of 39 tops of orderbook are not what bbo says" in warning
    assert report.exit_code == 0


def test_where_quotes_are_known_to_be_missing_nothing_is_compared(tmp_path):
    lost = market_with_quotes(tmp_path / "silent", missed={7, 8, 9})
    assert series(lost, "bbo").tops_disagreeing > 0
    known = market_with_quotes(tmp_path / "known", missed={7, 8, 9}, broken=True)
    assert [one.why for one in series(known, "bbo").uncovered] == ["disconnect"]
    assert (series(known, "bbo").tops_compared, series(known, "bbo").tops_disagreeing) == (35, 0)


def test_columns_of_a_channel_are_those_of_the_contract(tmp_path):
    run = Run(tmp_path, channels=["bbo", "mark"])
    run.frames(quote(1), mark())
    run.publish()
    (of_bbo,), (of_mark,) = files(tmp_path, "bbo"), files(tmp_path, "mark")
    of_bbo.write_bytes(of_mark.read_bytes())
    assert {one.what for one in verified(tmp_path).damage} == {"schema"}


@pytest.mark.skipif(not RECORDINGS.exists(), reason="the shared recordings are not beside this checkout")
@pytest.mark.parametrize(
    ("venue", "names", "quotes"),
    [
        ("binance-usdm", ("usdm__btcusdt_20240718.gz",), 7_113),
        ("binance-spot", ("spot__btcusdt_20240808.gz",), 28_040),
    ],
)
def test_every_quote_of_the_recordings_is_stored_and_agrees_with_the_book(venue, names, quotes, tmp_path):
    settings = settings_for(tmp_path, venue, channels=ChannelSettings(record=("bbo",)))
    Ingest([RECORDINGS / name for name in names], settings).run()
    report = verified(tmp_path)
    assert (report.exit_code, report.damage, report.warnings) == (0, [], [])
    bbo = series(report, "bbo")
    assert (bbo.rows, bbo.duplicates, bbo.tops_disagreeing) == (quotes, 0, 0)
    assert bbo.tops_compared > 3_000
