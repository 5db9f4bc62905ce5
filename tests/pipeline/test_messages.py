"""Blocks in one piece, lists, and blocks of one message: whatever way messages come, the rows are the same."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harvest.pipeline.records import Frames
from harvest.venues import VENUES
from harvest.venues.blocks import join
from tests.pipeline.wire import MIDNIGHT_MS, Harness, diff, trade

KINDS = ("prices", "cvd", "depth", "breaks")


def feed(blocks: list[list[bytes]], *, joined: bool, max_rows: int = 10**6) -> tuple[Any, ...]:
    """Feed blocks, in one piece each or as lists; return all that follows from them."""
    harness = Harness(symbols=("BTCUSDT", "ETHUSDT"), max_rows=max_rows)
    events = []
    for block in blocks:
        harness._tick()
        frames = join(block) if joined else block
        outcome = harness.pipeline.feed(Frames(harness.seq, harness.recv_ns, harness.seq, "trade-1", frames))
        events.append((outcome.data_messages, outcome.events))
    metrics = harness.metrics
    counts = (metrics.malformed, metrics.other_events, metrics.unknown_events, metrics.unknown_symbols)
    feeds = {
        key: (
            one.stored,
            one.duplicates,
            one.gaps,
            one.missing_ids,
            one.late,
            one.last_mono_ns,
            one.last_recv_ns,
        )
        for key, one in metrics.feeds.items()
    }
    rows = {(kind, symbol): harness.rows(kind, symbol) for kind in KINDS for symbol in ("BTCUSDT", "ETHUSDT")}
    return events, counts, feeds, metrics.heard, rows


def messages(seed: int, count: int) -> list[bytes]:
    """Make trades of two symbols around midnight: late ones, gaps, other ids, other units, and what is no trade."""
    dice = random.Random(seed)
    ids = {"BTCUSDT": 100, "ETHUSDT": 500, "XRPUSDT": 1}
    at_ms = MIDNIGHT_MS - count
    made = []
    for _ in range(count):
        at_ms += dice.choice((0, 1, 1, 5))
        what = dice.random()
        symbol = dice.choice(("BTCUSDT", "BTCUSDT", "BTCUSDT", "ETHUSDT", "XRPUSDT"))
        ids[symbol] += dice.choices((1, 3, -2), (50, 1, 1))[0]
        scale = dice.choices((1, 1000), (30, 1))[0]
        if what < 0.9:
            event_ms = at_ms * scale + dice.choices((0, 3, -3, 2000), (20, 9, 1, 1))[0]
            kind = dice.choice(("MARKET", "ADL", "NEW", None))
            made.append(trade(ids[symbol], symbol=symbol, at_ms=at_ms * scale, event_ms=event_ms, kind=kind))
        elif what < 0.93:
            made.append(trade(ids[symbol], symbol=symbol, event="aggTrade", at_ms=at_ms))
        else:
            made.append(
                dice.choice(
                    [
                        diff(
                            ids[symbol],
                            ids[symbol],
                            ids[symbol] - 1,
                            [(1.0, 2.0)],
                            symbol=symbol,
                            at_ms=at_ms,
                        ),
                        b'{"result":null,"id":1}',
                        b'{"stream":"x@trade","data":{"e":"trade"}}',
                        b'{"stream":"x@kline","data":{"e":"kline"}}',
                        b"{}{}",
                        b"{",
                        trade(5) + trade(6),
                        b'{"a":\n1}',
                    ]
                )
            )
    return made


@settings(deadline=None)
@given(
    seed=st.integers(0, 2**32),
    count=st.integers(1, 120),
    size=st.integers(1, 60),
    max_rows=st.integers(1, 50),
)
def test_in_one_piece_or_as_a_list_is_the_same(seed: int, count: int, size: int, max_rows: int) -> None:
    made = messages(seed, count)
    blocks = [made[start : start + size] for start in range(0, count, size)]
    assert feed(blocks, joined=True, max_rows=max_rows) == feed(blocks, joined=False, max_rows=max_rows)


@settings(deadline=None)
@given(seed=st.integers(0, 2**32), count=st.integers(1, 120))
def test_what_is_stored_does_not_depend_on_the_blocks(seed: int, count: int) -> None:
    made = messages(seed, count)
    one = feed([made], joined=True)[4]
    each = feed([[message] for message in made], joined=False)[4]
    varying = {"seq", "recv_ns", "from_ns", "to_ns"}
    for key, rows in one.items():
        if key[0] == "breaks":
            continue  # Their order within a block is that of the symbols.
        stripped = [
            [{name: row[name] for name in row.keys() - varying} for row in of] for of in (rows, each[key])
        ]
        assert stripped[0] == stripped[1], key


@pytest.mark.parametrize("venue", list(VENUES))
def test_two_messages_in_one_payload_are_not_taken_for_two(venue: str) -> None:
    two = trade(1) + trade(2)
    lines = join([two, b"{}", trade(3)])
    assert isinstance(lines, bytes)
    assert VENUES[venue].decode_lines(lines) is None


@pytest.mark.parametrize("venue", list(VENUES))
def test_a_block_of_trades_is_decoded_as_one_by_one(venue: str) -> None:
    frames = [trade(number, event="aggTrade", qty=number / 8) for number in range(200)]
    lines = join(frames)
    assert isinstance(lines, bytes)
    assert VENUES[venue].decode_lines(lines) == [VENUES[venue].decode(frame) for frame in frames]


def test_the_messages_of_an_unknown_symbol_are_all_counted() -> None:
    harness = Harness()
    harness.frames(*(trade(number, symbol="XRPUSDT") for number in range(7)))
    assert harness.metrics.unknown_symbols == {"XRPUSDT": 7}
