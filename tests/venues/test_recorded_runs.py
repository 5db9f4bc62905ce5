"""Real messages, put into blocks as a flood would bring them, are read at once as they are read one by one."""

from __future__ import annotations

import gzip
from collections import defaultdict
from typing import Any

import pytest

from harvest.market import DiffRun, TradeRun
from harvest.venues import VENUES
from harvest.venues.blocks import join
from tests.program import RECORDINGS

pytestmark = pytest.mark.skipif(
    not RECORDINGS.exists(), reason="the shared recordings are not beside this checkout"
)
#: Messages of a block, by a part of the stream's name.
BLOCK = {"@depth@": 400, "@trade": 1300}


def blocks_of(name: str) -> list[tuple[list[bytes], bytes]]:
    """Return all blocks of a recording: their messages, and these in one piece."""
    streams: dict[bytes, list[bytes]] = defaultdict(list)
    with gzip.open(RECORDINGS / name) as lines:
        for line in lines:
            message = line.rstrip().partition(b" ")[2]
            if message.startswith(b'{"stream":"'):
                streams[message.split(b'"', 4)[3]].append(message)
    found = []
    for stream, messages in streams.items():
        size = next((size for part, size in BLOCK.items() if part.encode() in stream), 0)
        for start in range(0, len(messages) - 1, size) if size else ():
            piece = messages[start : start + size]
            block = join(piece)
            assert isinstance(block, bytes)
            found.append((piece, block))
    return found


def columns(run: TradeRun | DiffRun) -> dict[str, list[Any]]:
    if isinstance(run, TradeRun):
        names = ("event_time", "trade_time", "trade_id", "price", "qty", "aggressor_sold")
        return {name: run.rows[name].tolist() for name in names}
    there = {name: column for name, column in run._asdict().items() if column is not None}
    return {name: column.tolist() for name, column in there.items() if name != "symbol"}


def expected(name: str, messages: list[Any]) -> list[Any]:
    side, _, what = name.partition("_")
    if side not in ("bid", "ask"):
        return [getattr(one, name) for one in messages]
    levels = [getattr(one, f"{side}s") for one in messages]
    if what == "counts":
        return [len(each) for each in levels]
    return [level[what == "qty"] for each in levels for level in each]


@pytest.mark.parametrize(
    "name", ["spot__btcusdt_20240808.gz", "usdm__btcusdt_20240719.gz", "usdm__ethusdt_20240719.gz"]
)
def test_real_blocks_are_read_at_once_as_one_by_one(name):
    venue = type(VENUES["binance-spot" if name.startswith("spot") else "binance-usdm"])()
    blocks = blocks_of(name)
    read = 0
    for messages, block in blocks:
        runs = venue.decode_runs(block)
        for run in runs or ():
            one_by_one = [venue.decode(message) for message in messages]
            for column, values in columns(run).items():
                assert values == expected(column, one_by_one), column
            read += 1
    assert read > 0.8 * len(blocks) > 10
