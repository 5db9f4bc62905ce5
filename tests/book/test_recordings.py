"""The pure book over real recordings, held against what the venue itself said of its best levels."""

from __future__ import annotations

import gzip
from bisect import bisect_right
from pathlib import Path

import msgspec
import pytest

from harvest.book.flow import WINDOW, OrderFlow
from harvest.book.ladder import Ladder
from harvest.book.sequence import (
    BridgeVerdict,
    ChainVerdict,
    DepthChain,
    TradeSequence,
    TradeVerdict,
    judge_bridge,
)
from tests.book.reference import order_flow, z_scores

RECORDINGS = Path(__file__).resolve().parents[2] / ".." / "shared" / "recordings"
SERIES = {
    "usdm btcusdt": ("usdm", ["usdm__btcusdt_20240718.gz", "usdm__btcusdt_20240719.gz"], 9017),
    "usdm ethusdt": ("usdm", ["usdm__ethusdt_20240718.gz", "usdm__ethusdt_20240719.gz"], 8924),
    "spot btcusdt": ("spot", ["spot__btcusdt_20240808.gz"], 3449),
}

pytestmark = pytest.mark.skipif(not RECORDINGS.is_dir(), reason="the shared recordings are not here")


class Combined(msgspec.Struct):
    stream: str
    data: msgspec.Raw


class Snapshot(msgspec.Struct):
    lastUpdateId: int
    bids: list[tuple[float, float]]
    asks: list[tuple[float, float]]


class Diff(msgspec.Struct):
    U: int
    u: int
    b: list[tuple[float, float]]
    a: list[tuple[float, float]]
    pu: int | None = None


class BestLevels(msgspec.Struct):
    u: int
    b: float
    B: float
    a: float
    A: float


class TradeId(msgspec.Struct):
    t: int


KINDS = {"depth": Diff, "trade": TradeId, "bookTicker": BestLevels}


@pytest.fixture(scope="module", params=SERIES)
def recorded(request):
    rule, names, count = SERIES[request.param]
    combined = msgspec.json.Decoder(Combined)
    decoders = {kind: msgspec.json.Decoder(struct, strict=False) for kind, struct in KINDS.items()}
    messages = {kind: [] for kind in KINDS}
    snapshots = []
    for name in names:
        with gzip.open(RECORDINGS / name) as lines:
            for line in lines:
                frame = line[20:]
                if frame.startswith(b'{"lastUpdateId"'):
                    snapshots.append(msgspec.json.decode(frame, type=Snapshot, strict=False))
                    continue
                envelope = combined.decode(frame)
                kind = envelope.stream.split("@")[1]
                messages[kind].append(decoders[kind].decode(envelope.data))
    assert len(snapshots) == 1
    return rule, messages, snapshots[0], count


def rebuilt(rule, diffs, snapshot):
    """Synchronise by the venue's procedure; gives each applied diff, with the ladder as it stands after it."""
    ladder, bridged = Ladder(), False
    ladder.replace(snapshot.bids, snapshot.asks)
    for diff in diffs:
        if not bridged:
            verdict = judge_bridge(rule, snapshot.lastUpdateId, diff.U, diff.u, diff.pu)
            assert verdict is not BridgeVerdict.SNAPSHOT_TOO_OLD
            if verdict is BridgeVerdict.STALE:
                continue
            bridged = True
        ladder.apply(diff.b, diff.a)
        yield diff, ladder


def test_rebuilt_book_agrees_with_every_best_bid_and_ask_that_the_venue_sent(recorded):
    rule, messages, snapshot, count = recorded
    tickers = sorted(messages["bookTicker"], key=lambda ticker: ticker.u)
    ids = [ticker.u for ticker in tickers]
    agreeing, wrong = 0, []
    for diff, ladder in rebuilt(rule, messages["depth"], snapshot):
        assert not ladder.crossed
        index = bisect_right(ids, diff.u) - 1
        assert index >= 0
        said = tickers[index]
        if ladder.top(1) == ([said.b], [said.B], [said.a], [said.A]):
            agreeing += 1
        else:
            wrong.append(diff.u)
    assert wrong == []
    assert agreeing == count


def test_ids_follow_one_another_through_the_files_and_over_midnight(recorded):
    rule, messages, _, _ = recorded
    chain, trades = DepthChain(rule), TradeSequence()
    verdicts = [chain.accept(diff.U, diff.u, diff.pu) for diff in messages["depth"]]
    assert verdicts[0] is ChainVerdict.FIRST
    assert set(verdicts[1:]) == {ChainVerdict.IN_ORDER}
    of_trades = [trades.accept(trade.t) for trade in messages["trade"]]
    assert of_trades[0] is TradeVerdict.FIRST
    assert set(of_trades[1:]) == {TradeVerdict.IN_ORDER}


def test_a_diff_left_out_is_found_with_its_exact_interval(recorded):
    rule, messages, _, _ = recorded
    diffs = messages["depth"][:400]
    for gone in range(1, len(diffs) - 1, 7):
        chain = DepthChain(rule)
        kept = diffs[:gone] + diffs[gone + 1 :]
        found = [
            (diff, chain.gap) for diff in kept if chain.accept(diff.U, diff.u, diff.pu) is ChainVerdict.GAP
        ]
        last, following = diffs[gone - 1], diffs[gone + 1]
        to_id = following.pu if rule == "usdm" else following.U
        assert found == [(following, (last.u, to_id))]


def test_flow_of_the_recorded_book_is_that_of_the_papers(recorded):
    rule, messages, snapshot, _ = recorded
    tops = []
    for _, ladder in rebuilt(rule, messages["depth"][:1500], snapshot):
        tops.append(ladder.top(10))
    flow = OrderFlow()
    found = [flow.update(*top) for top in tops]
    expected = order_flow(tops)
    assert found[0] is None
    assert [row[:3] for row in found[1:]] == [tuple(map(float, row)) for row in expected]
    assert [row[3] for row in found[1:]] == z_scores([row[0] for row in expected], WINDOW)
