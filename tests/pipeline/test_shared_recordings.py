"""Real recordings through ingest, held against an independent reading of the same files."""

from __future__ import annotations

import datetime
import gzip
from bisect import bisect_right
from collections import defaultdict
from decimal import Decimal
from fractions import Fraction
from functools import cache
from itertools import pairwise
from pathlib import Path

import attrs
import msgspec
import pyarrow.parquet as pq
import pytest

from harvest.book.flow import WINDOW
from harvest.pipeline.ingest import Ingest
from harvest.storage.catalog import scan
from tests.book.reference import z_scores
from tests.pipeline.ingested import settings_for, stored
from tests.pipeline.replay import books, stored_tops, tops

RECORDINGS = Path(__file__).resolve().parents[2].parent / "shared" / "recordings"
FILES = {
    "binance-usdm": [
        "usdm__btcusdt_20240718.gz",
        "usdm__btcusdt_20240719.gz",
        "usdm__ethusdt_20240718.gz",
        "usdm__ethusdt_20240719.gz",
    ],
    "binance-spot": ["spot__btcusdt_20240808.gz"],
}
SERIES = [("binance-usdm", "BTCUSDT"), ("binance-usdm", "ETHUSDT"), ("binance-spot", "BTCUSDT")]
LEVELS = 10
FIRST_DAY = {"binance-usdm": 19_922, "binance-spot": 19_943}
EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)

pytestmark = pytest.mark.skipif(
    not all((RECORDINGS / name).exists() for names in FILES.values() for name in names),
    reason="the shared recordings are not beside this checkout",
)
over_series = pytest.mark.parametrize(("venue", "symbol"), SERIES)


class Recorded:
    """One series as its files hold it, as plain JSON: (receive time, message) each."""

    def __init__(self):
        self.trades, self.diffs, self.snapshots, self.tickers = [], [], [], []


@pytest.fixture(scope="module")
def recorded():
    every = defaultdict(Recorded)
    for venue, names in FILES.items():
        for name in names:
            series = every[venue, name.split("_")[2].upper()]
            with gzip.open(RECORDINGS / name) as file:
                for line in file:
                    message = msgspec.json.decode(line[20:])
                    if "stream" not in message:
                        series.snapshots.append((int(line[:19]), message))
                        continue
                    channel = message["stream"].split("@")[1]
                    kept = {
                        "trade": series.trades,
                        "depth": series.diffs,
                        "bookTicker": series.tickers,
                    }[channel]
                    kept.append((int(line[:19]), message["data"]))
    return every


@pytest.fixture(scope="module")
def ingested(tmp_path_factory):
    """All five files, ingested: the root, and the summary by venue."""
    root = tmp_path_factory.mktemp("ingested")
    summaries = {}
    for venue, names in FILES.items():
        settings = settings_for(root, venue)
        settings = attrs.evolve(settings, book=attrs.evolve(settings.book, levels=LEVELS))
        summaries[venue] = Ingest([RECORDINGS / name for name in names], settings).run()
    return root, summaries


@pytest.fixture(scope="module")
def rows(ingested):
    """Return the reader of stored rows, which reads each kind of a series once."""
    root, _ = ingested
    return cache(lambda kind, venue, symbol: stored(root, kind, symbol, venue))


def at_ms(milliseconds):
    return EPOCH + datetime.timedelta(milliseconds=milliseconds)


@over_series
def test_every_trade_is_stored_once_as_it_was_sent(venue, symbol, recorded, rows):
    expected = [
        (
            recv_ns,
            at_ms(sent["E"]),
            at_ms(sent["T"]),
            sent["t"],
            float(sent["p"]),
            float(sent["q"]),
            "sell" if sent["m"] else "buy",
            sent.get("X"),
        )
        for recv_ns, sent in recorded[venue, symbol].trades
    ]
    names = ("recv_ns", "event_time", "trade_time", "trade_id", "price", "qty", "side", "trade_type")
    found = [tuple(row[name] for name in names) for row in rows("prices", venue, symbol)]
    assert found == expected
    ids = [row[3] for row in expected]
    assert ids == list(range(ids[0], ids[-1] + 1))


@over_series
def test_every_diff_is_stored_once_as_it_was_sent(venue, symbol, recorded, rows):
    found = [row for row in rows("depth", venue, symbol) if row["source"] == "ws"]
    sent_diffs = recorded[venue, symbol].diffs
    assert len(found) == len(sent_diffs)
    for row, (recv_ns, sent) in zip(found, sent_diffs, strict=True):
        trade_time = at_ms(sent["T"]) if "T" in sent else None
        assert (row["recv_ns"], row["event_time"], row["trade_time"]) == (
            recv_ns,
            at_ms(sent["E"]),
            trade_time,
        )
        ids = (row["first_update_id"], row["last_update_id"], row["prev_update_id"])
        assert ids == (sent["U"], sent["u"], sent.get("pu"))
        for side, wire in (("bid", "b"), ("ask", "a")):
            assert row[f"{side}_px"] == [float(price) for price, _ in sent[wire]]
            assert row[f"{side}_qty"] == [float(qty) for _, qty in sent[wire]]


@over_series
def test_snapshots_are_stored_as_they_were_answered(venue, symbol, recorded, rows):
    found = [row for row in rows("depth", venue, symbol) if row["source"] == "rest"]
    answered = recorded[venue, symbol].snapshots
    assert [
        (row["recv_ns"], row["last_update_id"], len(row["bid_px"]), len(row["ask_px"])) for row in found
    ] == [(recv_ns, body["lastUpdateId"], len(body["bids"]), len(body["asks"])) for recv_ns, body in answered]


def test_the_files_hold_as_many_as_were_counted_by_hand(recorded, ingested):
    """Trades and diffs by line count of the files: what ``harvest ingest`` says of them."""
    counted = {
        series: (len(recorded[series].trades), len(recorded[series].diffs), len(recorded[series].snapshots))
        for series in SERIES
    }
    _, summaries = ingested
    for (venue, symbol), (trades, diffs, snapshots) in counted.items():
        summary = summaries[venue]
        begun = 1  # one midnight, at which depth begins with the whole book
        assert summary.rows["prices", symbol] == summary.rows["cvd", symbol] == trades
        assert summary.rows["depth", symbol] == diffs + snapshots + begun
        assert summary.metrics.feed("orderbook", symbol).stored == diffs
    assert sum(trades for trades, _, _ in counted.values()) == 24_356 + 9_757
    assert sum(summary.metrics.malformed for summary in summaries.values()) == 0
    tickers = sum(len(recorded[series].tickers) for series in SERIES)
    assert sum(summary.metrics.other_events["bookTicker"] for summary in summaries.values()) == tickers


@over_series
def test_rows_land_in_their_own_date_across_midnight(venue, symbol, ingested, rows):
    root, _ = ingested
    catalog = scan(root, venue)
    for kind, column in (
        ("prices", "trade_time"),
        ("depth", "event_time"),
        ("orderbook", "event_time"),
        ("ofi", "event_time"),
    ):
        assert catalog.days(kind, symbol) == [FIRST_DAY[venue], FIRST_DAY[venue] + 1]
        for day in catalog.days(kind, symbol):
            for file in catalog.files(kind, symbol, day):
                table = pq.ParquetFile(file.path).read([column, "recv_ns"]).to_pydict()
                times = {
                    time or EPOCH + datetime.timedelta(microseconds=recv_ns // 1000)
                    for time, recv_ns in zip(table[column], table["recv_ns"], strict=True)
                }
                assert {time.date() for time in times} == {(EPOCH + datetime.timedelta(days=day)).date()}
    second_day = [row for row in rows("depth", venue, symbol) if row["source"] == "book"]
    assert [row["event_time"].date() for row in second_day] == [
        (EPOCH + datetime.timedelta(days=FIRST_DAY[venue] + 1)).date()
    ]


@over_series
def test_book_agrees_with_the_last_ticker_at_every_diff(venue, symbol, recorded, rows):
    """The rule of the recordings' README: an oracle that shares nothing with the diffs but the venue."""
    tickers = [sent for _, sent in recorded[venue, symbol].tickers]
    ids = [sent["u"] for sent in tickers]
    assert ids == sorted(ids)
    agreed = 0
    for row in rows("orderbook", venue, symbol):
        index = bisect_right(ids, row["update_id"]) - 1
        sent = tickers[index]
        touch = (row["bid_px_0"], row["bid_qty_0"], row["ask_px_0"], row["ask_qty_0"])
        assert touch == tuple(float(sent[letter]) for letter in "bBaA")
        agreed += 1
    assert agreed == {SERIES[0]: 9_016, SERIES[1]: 8_922, SERIES[2]: 3_448}[venue, symbol]


@over_series
def test_no_book_is_crossed_or_suspect_and_nothing_is_missing(venue, symbol, ingested, rows):
    _, summaries = ingested
    for row in rows("orderbook", venue, symbol):
        assert not row["suspect"]
        assert row["bid_px_0"] < row["ask_px_0"]
        bids = [row[f"bid_px_{level}"] for level in range(LEVELS)]
        asks = [row[f"ask_px_{level}"] for level in range(LEVELS)]
        assert bids == sorted(bids, reverse=True)
        assert asks == sorted(asks)
    assert rows("breaks", venue, symbol) == []
    stats = summaries[venue].metrics.feed("orderbook", symbol)
    assert (stats.gaps, stats.duplicates, stats.crossed, stats.suspect_rows, stats.resyncs) == (0, 0, 0, 0, 1)


@over_series
def test_cvd_follows_from_the_text_of_the_trades_bit_by_bit(venue, symbol, recorded, rows):
    found = rows("cvd", venue, symbol)
    totals = defaultdict(int)
    counted = [
        (recv_ns, sent)
        for recv_ns, sent in recorded[venue, symbol].trades
        if sent.get("X", "MARKET") == "MARKET"
    ]
    for row, (recv_ns, sent) in zip(found, counted, strict=True):
        units = int(Decimal(sent["q"]) * 10**8) * (-1 if sent["m"] else 1)
        day = sent["T"] // 86_400_000
        totals[day] += units
        assert (row["recv_ns"], row["trade_id"]) == (recv_ns, sent["t"])
        assert row["delta"] == float(Fraction(units, 10**8))
        assert row["cvd"] == float(Fraction(totals[day], 10**8))
    assert len(totals) == 2


@cache
def units_of(qty):
    return int(Decimal(repr(qty)).scaleb(8))


def naive_flows(before, now):
    """Return the order flow of each level, in 1e-8, from the best levels before and now."""
    flows = []
    for place, ((px_before, qty_before), (px, qty)) in enumerate(zip(before, now, strict=True)):
        sign = 1 if place < LEVELS else -1
        flow = 0
        if px * sign >= px_before * sign:
            flow += sign * units_of(qty)
        if px * sign <= px_before * sign:
            flow -= sign * units_of(qty_before)
        flows.append(flow)
    return [bid + ask for bid, ask in zip(flows[:LEVELS], flows[LEVELS:], strict=True)]


@over_series
def test_ofi_follows_from_the_stored_book_bit_by_bit(venue, symbol, rows):
    book, found = rows("orderbook", venue, symbol), rows("ofi", venue, symbol)
    assert [row["update_id"] for row in found] == [row["update_id"] for row in book[1:]]
    first_levels = []
    levels_of = [stored_tops(row, LEVELS) for row in book]
    for (before, now), row in zip(pairwise(levels_of), found, strict=True):
        flows = naive_flows(before, now)
        assert [row["ofi_1"], row["ofi_5"], row["ofi_10"]] == [
            sum(flows[:levels]) / 10**8 for levels in (1, 5, 10)
        ]
        first_levels.append(Fraction(flows[0], 10**8))
    scores = [row["ofi_z"] for row in found]
    assert scores == z_scores(first_levels, WINDOW)
    assert sum(score is not None for score in scores) > len(scores) / 2


@over_series
@pytest.mark.parametrize("which", ["first date", "second date"])
def test_replaying_the_depth_of_one_date_alone_gives_its_orderbook(venue, symbol, which, rows):
    midnight = EPOCH + datetime.timedelta(days=FIRST_DAY[venue] + 1)

    def of_date(kind):
        # Where a snapshot has no time it is of the first date here, as the test of the dates shows.
        return [
            row
            for row in rows(kind, venue, symbol)
            if (row["event_time"] is not None and row["event_time"] >= midnight) == (which == "second date")
        ]

    wanted = {row["update_id"]: row for row in of_date("orderbook")}
    for row, bids, asks in books(of_date("depth")):
        if row["source"] == "ws":
            expected = wanted.pop(row["last_update_id"], None)
            assert expected is None or tops(bids, asks, LEVELS) == stored_tops(expected, LEVELS)
    assert not wanted


def test_duckdb_polars_and_pandas_read_it_in_one_line_each(ingested):
    root, summaries = ingested
    count = summaries["binance-usdm"].rows["prices", "BTCUSDT"]
    where = f"{root}/prices/**/*.parquet"
    duckdb = pytest.importorskip("duckdb")
    found = duckdb.sql(
        f"SELECT count(*), min(trade_id), max(trade_id), sum(qty) FROM '{where}' "
        "WHERE venue = 'binance-usdm' AND symbol = 'BTCUSDT'"
    ).fetchall()[0]
    assert found[0] == count == found[2] - found[1] + 1
    polars = pytest.importorskip("polars")
    frame = polars.read_parquet(where, hive_partitioning=True).filter(venue="binance-usdm", symbol="BTCUSDT")
    assert (frame.height, frame["trade_id"].min(), frame["trade_id"].max()) == found[:3]
    pandas = pytest.importorskip("pandas")
    table = pandas.read_parquet(
        root / "prices", filters=[("venue", "==", "binance-usdm"), ("symbol", "==", "BTCUSDT")]
    )
    assert (len(table), table.trade_id.min(), table.trade_id.max()) == found[:3]
    assert float(table.qty.sum()) == pytest.approx(found[3])
