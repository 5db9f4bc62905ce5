"""Blocks of diffs in columns: what is read at once is what the decoder gives, message by message."""

from __future__ import annotations

import random
import re
from collections import defaultdict
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bench.peers import load
from harvest.errors import MalformedMessageError
from harvest.market import DIFF
from harvest.venues import looks
from harvest.venues.binance_diffs import FIELDS, LEAST_DIFFS, DiffReader, find_lists
from harvest.venues.binance_spot import BinanceSpot
from harvest.venues.binance_usdm import BinanceUsdm
from harvest.venues.blocks import join
from tests.pipeline.wire import diff, payload, trade
from tests.venues.small_blocks import let_all_be_read, let_few_be_enough

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from harvest.market import DiffRun

VENUES: dict[str, type[BinanceSpot | BinanceUsdm]] = {"spot": BinanceSpot, "usdm": BinanceUsdm}
#: All times that follow have the digits in common that a stencil does not read.
BEGIN_MS = load.BEGIN_MS
both_venues = pytest.mark.parametrize("venue", list(VENUES))


@pytest.fixture(autouse=True)
def _few(monkeypatch):
    """Let few be enough for a stencil, so that blocks may be small."""
    let_few_be_enough(monkeypatch)


@pytest.fixture
def eager(monkeypatch):
    """Let every look be learned, and every level that has none be decoded alone."""
    let_all_be_read(monkeypatch)


def made(
    venue: str, count: int, *, seed: int = 1, symbols: Iterable[str] = ("BTCUSDT",), tail: str = ""
) -> list[bytes]:
    """Make diffs as the venue writes them, of some symbols in turn."""
    dice, names = random.Random(seed), list(symbols)

    def levels(most: int, places: int) -> str:
        return ",".join(
            f'["{dice.randrange(10**4, 10**7) / 100:.2f}","{dice.choice((0, dice.randrange(10**6))) / 1000:.{places}f}"]'
            for _ in range(dice.randrange(most))
        )

    frames, update_id = [], 5_000_000_000
    for number in range(count):
        symbol, at_ms, before = names[number % len(names)], BEGIN_MS + 100 * number, update_id
        update_id += dice.randrange(1, 900)
        if venue == "usdm":
            head = (
                f'"E":{at_ms},"T":{at_ms - 4},"s":"{symbol}","U":{before + 1},"u":{update_id},"pu":{before}'
            )
        else:
            head = f'"E":{at_ms},"s":"{symbol}","U":{before + 1},"u":{update_id}'
        places = 3 if venue == "usdm" else 8
        frames.append(
            f'{{"stream":"{symbol.lower()}@depth@100ms","data":{{"e":"depthUpdate",{head},'
            f'"b":[{levels(20, places)}],"a":[{levels(20, places)}]{tail}}}}}'.encode()
        )
    return frames


def read(reader: DiffReader, frames: list[bytes]) -> dict[str, tuple[Any, ...]] | None:
    """Read a block; returns the columns of each symbol, as bytes."""
    block = join(frames)
    runs = reader.read(block) if isinstance(block, bytes) else None
    if runs is None:
        return None
    assert len({run.symbol for run in runs}) == len(runs)
    return {run.symbol: _bytes_of(run) for run in runs}


def _bytes_of(run: DiffRun) -> tuple[Any, ...]:
    return tuple(None if column is None else (column.dtype.str, column.tobytes()) for column in run[1:])


def decoded(decode: Callable[[bytes], Any], frames: list[bytes]) -> dict[str, tuple[Any, ...]] | None:
    """Return the same as ``decode`` gives it message by message; None where not all of these are diffs."""
    every = defaultdict(list)
    for frame in frames:
        try:
            message = decode(frame)
        except MalformedMessageError:
            return None
        if message.shape != DIFF:
            return None
        every[message.symbol].append(message)
    found = {}
    for symbol, messages in every.items():
        columns: list[Any] = []
        for field in FIELDS:
            values = [getattr(message, field) for message in messages]
            # A column of some is none that could be read.
            columns.append(None if None in values else ("<i8", np.array(values, "<i8").tobytes()))
            assert None not in values or set(values) == {None}
        for side in ("bids", "asks"):
            lists = [getattr(message, side) for message in messages]
            counts = np.array(list(map(len, lists)), "<i8")
            levels = np.array([level for one in lists for level in one], "<f8").reshape(-1, 2)
            columns.append(("<i8", counts.tobytes()))
            columns += [("<f8", column.tobytes()) for column in levels.T]
        found[symbol] = tuple(columns)
    return found


def changed_by(frame: bytes, pattern: bytes, instead: bytes) -> bytes:
    """Put something in the place of what a pattern finds first."""
    return re.sub(pattern, lambda _: instead, frame, count=1)


def agree(venue: str, frames: list[bytes], reader: DiffReader | None = None) -> bool:
    """See that a block is read as the decoder does, or not at all; returns whether it is."""
    decode = VENUES[venue]().decode
    found = read(reader or DiffReader(decode), frames)
    assert found is None or found == decoded(decode, frames), frames
    return found is not None


@both_venues
@pytest.mark.parametrize("symbols", [["BTCUSDT"], ["BTCUSDT", "ETHUSDT", "1000SHIBUSDT"], ["币安人生USDT"]])
@pytest.mark.parametrize("tail", ["", ',"st":1', ',"x":"y","st":null'])
def test_blocks_as_a_venue_sends_them_are_read(venue, symbols, tail):
    reader = DiffReader(VENUES[venue]().decode)
    for seed in range(3):
        assert agree(venue, made(venue, 120, seed=seed, symbols=symbols, tail=tail), reader)


def test_the_diffs_of_the_benchmark_are_read():
    sent = load.make("mix", 1000)
    for one in (sent, load.in_microseconds(sent)):
        assert agree("usdm", one.diffs)


@both_venues
def test_a_captured_diff_is_read(venue):
    frame = payload(f"binance-{venue}", "depthUpdate")
    assert agree(venue, [frame] * LEAST_DIFFS)
    assert not agree(venue, [frame] * (LEAST_DIFFS - 1))


@both_venues
def test_nothing_else_is_read(venue):
    for frame in (payload(f"binance-{venue}", "partialDepth"), trade(1), b'{"result":null,"id":1}'):
        for at in (0, 50, 99):
            frames = made(venue, 100)
            frames[at] = frame
            assert not agree(venue, frames)
        assert not agree(venue, [frame] * 100)


#: What may stand where in a diff, and what is put in its place: in one diff of a block, or in all of them.
CHANGES = [
    # Sides.
    (rb'"b":\[.*?\],"a"', b'"b":[],"a"'),
    (rb'"b":\[.*\]', b'"b":[],"a":[]'),
    (rb'"b":\[.*?\],"a"', b'"b":[[]],"a"'),
    (rb'"b":\[.*?\],"a"', b'"b":[["1.5","2.5"],[]],"a"'),
    (rb'"b":\[.*?\],"a"', b'"b":null,"a"'),
    (rb'"b":\[.*?\],"a"', b'"b":["1.5","2.5"],"a"'),
    (rb'"b":\[.*?\],"a"', b'"b":[[["1.5","2.5"]]],"a"'),
    (rb'"b":\[.*?\],"a"', b'"b":[["1.5",["2.5"]]],"a"'),
    (rb'"b":\[.*?\],"a"', b'"b":[["1.5","2.5"],["1.5","0.0"],["1.5","3.5"]],"a"'),
    (rb'"b":\[.*?\],"a"', b'"b":[,["1.5","2.5"]],"a"'),
    (rb'"b":\[.*?\],"a"', b'"b":[["1.5","2.5"],],"a"'),
    (rb'"b":\[.*?\],"a"', b'"b":[["1.5","2.5"],,["1.5","2.5"]],"a"'),
    (rb'"b":\[.*?\],"a"', b'"b":[["1.5","2.5"]["1.5","2.5"]],"a"'),
    (rb'"b":\[.*?\],"a"', b'"b":[["1.5","2.5"];["1.5","2.5"]],"a"'),
    (rb'"b":\[.*?\],"a"', b'"b":[["1.5","2.5"]],,"a"'),
    (rb'"b":\[.*?\],"a"', b'"b":[["1.5","2.5"]]"a"'),
    (rb'"b":\[.*?\],"a"', b'"b":[["1.5","2.5"]],"b":[["1.5","2.5"]],"a"'),
    (rb'"b":\[.*?\],"a"', b'"b":[["1.5","2.5"]],"c":[["1.5","2.5"]],"a"'),
    (rb'"b":\[.*?\],"a"', b'"a":[["1.5","2.5"]],"a"'),
    (rb'"b":.*\]', b'"a":[["2.5","2.5"]],"b":[["1.5","2.5"]]'),
    (rb'"a":\[', b'"c":['),
    (rb',"b":\[.*?\],"a"', b',"a"'),
    (rb'"b":\[.*?\],"a"', b'"b":[ ],"a"'),
    (rb'"b":\[.*?\],"a"', b'"b":[["1.5","2.5"] ],"a"'),
    (rb'"b":\[.*?\],"a"', b'"b":[ ["1.5","2.5"]],"a"'),
    (rb'"b":\[.*?\],"a"', b'"b":[["1.5","2.5"] ,["1.5","2.5"]],"a"'),
    (rb'"b":\[.*?\],"a"', b'"b" :[["1.5","2.5"]],"a"'),
    (rb'"b":\[.*?\],"a"', b'"b": [["1.5","2.5"]],"a"'),
    (rb'"b":\[.*?\],"a"', b'"b":[["1.5","2.5"]], "a"'),
    (rb'\]\]', b']]]'),
    (rb'\]\]', b']'),
    (rb':\[\[', b':['),
    # Levels.
    *(
        (rb'"b":\[.*?\],"a"', b'"b":[["7.25","1.125"],[' + level + b']],"a"')
        for level in (
            b'"1.5"',
            b'"1.5","2.5","3.5"',
            b'"1.5","2.5",',
            b',"1.5","2.5"',
            b'"1.5",,"2.5"',
            b' "1.5", "2.5" ',
            b"1.5,2.5",
            b"15,25",
            b'"15","25"',
            b'"1e3","2E-3"',
            b'"0","0"',
            b'"0.0","1.0"',
            b'"-0.0","1.0"',
            b'"1.0","-0.0"',
            b'"-1.0","1.0"',
            b'"+1.0","1.0"',
            b'"01.5","2.5"',
            b'"1.","2.5"',
            b'".5","2.5"',
            b'"1..5","2.5"',
            b'"1.5.5","2.5"',
            b'"","2.5"',
            b'"nan","2.5"',
            b'"inf","2.5"',
            b'"1e400","2.5"',
            b'"1e101","2.5"',
            b'null,"2.5"',
            b'true,"2.5"',
            b'"1_0","2.5"',
            b'" 1.5","2.5"',
            b'"1.5" "2.5"',
            b"'1.5','2.5'",
            b'"1.5","2.5"}',
            b'"1.5\\u0030","2.5"',
            b'"123456789012345","1.5"',
            b'"1234567890123456","1.5"',
            b'"12345678901234567","1.5"',
            b'"123456789012345678","1.5"',
            b'"1234567890123456789","1.5"',
            b'"1234567.12345678","1.5"',
            b'"12345678.12345678","1.5"',
            b'"90071992547409.93","1.5"',
            b'"0.123456789","1.5"',
            b'"0.12345678901234567890","1.5"',
            b'"22517998.13685248","1.5"',
            b'"1.5","' + b"0" * 70 + b'"',
            b'"1.5","1.' + b"0" * 70 + b'"',
        )
    ),
    # Numbers of the head.
    *(
        (rb'"' + name + rb'":\d+', b'"' + name + b'":' + value)
        for name in (b"E", b"T", b"U", b"u", b"pu")
        for value in (
            b"0",
            b"00",
            b"-1",
            b"1.0",
            b"1e3",
            b"null",
            b"true",
            b"",
            b'"5"',
            b'"05"',
            b'"5.0"',
            b'"5.5"',
            b'"null"',
            b'"x"',
            b"[5]",
            b"9007199254740993",
            b"9999999999999999",
            b"10000000000000000",
            b"10000000000000001",
            b"999999999999999999",
            b"9223372036854775807",
            b"9223372036854775808",
        )
    ),
    (rb'(?=,"b")', b',"E":7'),
    (rb'(?=,"b")', b',"\\u0075":7'),
    (rb'(?=,"b")', b',"X":7'),
    (rb'(?=,"b")', b',"X":"7"'),
    (rb'(?=,"b")', b',"X":"7.5"'),
    (rb'(?=,"b")', b',"X":007'),
    (rb'(?=,"b")', b',"X":{"u":7}'),
    (rb'(?=,"b")', b',"X":[7]'),
    (rb'(?=,"b")', b',"X":[[7,8]]'),
    (rb'(?=,"b")', b',"X":"[]"'),
    (rb'(?=,"b")', b',"X":"[[]]"'),
    (rb'(?=,"b")', b',"X":"]["'),
    (rb'(?=,"b")', b',"X":"\\"","b":[]'),
    (rb'(?=,"b")', b',"X":"\\",\\"b\\":[]"'),
    (rb'(?=,"b")', b',"a":[]'),
    (rb'(?=,"b")', b',"a":5'),
    (rb'(?=,"b")', b',"b":[]'),
    (rb'(?=,"b")', b',"X":"\t"'),
    (rb'(?=,"b")', b' '),
    (rb'"s":"', b'"s":"X'),
    (rb'"s":"[A-Z]*"', b'"s":5'),
    (rb'"s":"[A-Z]*"', b'"s":"5"'),
    (rb'"s":"[A-Z]*"', b'"s":"\\u0042TC"'),
    (rb'"s":"[A-Z]*"', b'"s":"["'),
    (rb'"e":"depthUpdate"', b'"e":"trade"'),
    (rb'"e":"depthUpdate"', b'"e":"depthUpdate","e":"trade"'),
    (rb'"e":"depthUpdate",', b''),
    (rb'^\{', b'{ '),
    (rb'"stream":"', b'"stream":"[]'),
    (rb'"stream":"', b'"stream":"[[x]]'),
    (rb'"stream":"', b'"stream":"[x]'),
    (rb'"stream":"', b'"stream":"]'),
    (rb'"stream":"', b'"stream":"\\"'),
    (rb'"stream":', b'"Stream":'),
    (rb'"stream":"[^"]*"', b'"stream":5'),
    (rb'@depth@100ms', b'@depth5@100ms'),
    (rb'@depth@100ms', b'@depth'),
    (rb'@depth@100ms', b'@bookTicker'),
    (rb'"data":', b'"datum":'),
    (rb'"data":', b'"data":5,"data":'),
    # What follows.
    *(
        (rb'\]\}\}$', b"]" + tail)
        for tail in (
            b"}",
            b"}}}",
            b"}} ",
            b"}}{}",
            b',"st":1}}',
            b',"st":01}}',
            b',"st":1.5}}',
            b',"st":-1}}',
            b',"st":"1","x":true}}',
            b',"st":"\x01"}}',
            b',"st":"\\n"}}',
            b',"st":[]}}',
            b',"st":[["1.5","2.5"]]}}',
            b',"st":"]"}}',
            b',"st":1,"st":2}}',
            b',"u":1}}',
            b',"pu":1}}',
            b',"T":1}}',
            b',"E":1}}',
            b',"s":"X"}}',
            b',"e":"trade"}}',
            b',"b":[]}}',
            b',"a":[]}}',
            b',"a":null}}',
            b',"\\u0061":null}}',
            b',"x":"@depth@"}}',
            b'},"data":null}',
            b'},"x":1}',
        )
    ),
]  # fmt: skip


@pytest.mark.usefixtures("eager")
@both_venues
def test_whatever_a_diff_says_it_is_read_as_the_decoder_does_or_left(venue):
    count = 0
    for pattern, instead in CHANGES:
        frames = made(venue, 12, symbols=("BTCUSDT", "ETHUSDT"))
        changed = [changed_by(frame, pattern, instead) for frame in frames]
        for at in (0, 5, 11):
            count += agree(venue, [*frames[:at], changed[at], *frames[at + 1 :]])
        count += agree(venue, changed)
    assert count > 60


#: What is told by the decoder to be otherwise for other digits than those of the diff that a look was learned of.
MISLEADING = [
    (b'"E":10000000000000000', b'"E":10000000000000001'),
    (b'"E":"1720000000000.0"', b'"E":"1720000000000.5"'),
    (b'"u":"5000000000.0"', b'"u":"5000000000.5"'),
    (b'"u":9223372036854775807', b'"u":9223372036854775808'),
    (b'"u":10', b'"u":05'),
    (b'"u":"10"', b'"u":"05"'),
    (b'"u":0', b'"u":7'),
    (b'"X":10,"u":5', b'"X":05,"u":5'),
]


@both_venues
@pytest.mark.parametrize(("first", "then"), MISLEADING)
def test_other_digits_are_never_taken_for_what_they_are_not(venue, first, then):
    pattern = rb'"E":\d+' if first.startswith(b'"E"') else rb'"u":\d+'
    frames = [re.sub(pattern, first, frame) for frame in made(venue, 60)]
    reader = DiffReader(VENUES[venue]().decode)
    agree(venue, frames, reader)
    reader._trials = looks.Trials()
    agree(venue, [*frames[:59], re.sub(pattern, then, made(venue, 60)[59])], reader)
    reader._trials = looks.Trials()
    agree(venue, [re.sub(pattern, then, frame) for frame in made(venue, 60)], reader)


@pytest.mark.usefixtures("eager")
@both_venues
def test_a_byte_that_is_wrong_is_seen_wherever_it_is(venue):
    dice, reader, count = random.Random(venue), DiffReader(VENUES[venue]().decode), 0
    for number in range(600):
        frames = made(
            venue, 6, seed=number % 7, symbols=("BTCUSDT", "ETHUSDT"), tail=dice.choice(("", ',"st":1'))
        )
        for _ in range(dice.choice((1, 1, 2))):
            at = dice.randrange(len(frames))
            text = bytearray(frames[at])
            place = dice.randrange(len(text))
            fault = dice.randrange(4)
            if fault == 0:
                text[place] = dice.choice(b'[]{}",:.0159eE- \\abuU\xc3')
            elif fault == 1:
                text.insert(place, dice.choice(b'[]{}",:.0159eE- \\abuU'))
            elif fault == 2:
                del text[place : place + dice.choice((1, 1, 5))]
            else:
                text[place:place] = text[dice.randrange(len(text)) :][: dice.randrange(30)]
            frames[at] = bytes(text)
        count += agree(venue, frames, reader)
    assert 70 < count < 500


@both_venues
def test_what_is_remembered_of_one_block_does_not_mislead_in_the_next(venue):
    reader = DiffReader(VENUES[venue]().decode)
    for seed, tail in enumerate(["", ',"st":1', ',"st":2', "", ',"u":2', ',"st":1']):
        frames = made(venue, 80, seed=seed, tail=tail)
        assert agree(venue, frames, reader) == ("u" not in tail)
        reader._trials = looks.Trials()


def test_diffs_of_one_symbol_that_say_more_than_others_are_left():
    frames = made("usdm", 100)
    untimed = [re.sub(rb'"T":\d+,', b"", frame) for frame in frames]
    assert agree("usdm", untimed)
    assert read(DiffReader(BinanceUsdm().decode), [*frames[:50], *untimed[50:]]) is None


def test_few_levels_that_look_otherwise_are_decoded_alone_and_many_are_left():
    frames = made("usdm", 100)
    odd = [frame.replace(b'"b":[', b'"b":[["1e3","2.5"],', 1).replace(b",]", b"]") for frame in frames]
    assert agree("usdm", [*odd[:20], *frames[20:]])
    assert not agree("usdm", odd)


def test_a_block_that_cannot_be_read_lets_the_next_ones_be():
    decode = BinanceUsdm().decode
    reader = DiffReader(decode)
    good = made("usdm", 60)
    assert read(reader, [*good[:59], trade(1)]) is None
    assert [read(reader, good) is None for _ in range(3)] == [True, False, False]


PIECES = [
    b"[",
    b"]",
    b",",
    b"x",
    b"xy",
    b"[x]",
    b"[x],[yy]",
    b"[[x],[yy]]",
    b"[]",
    b'{"b":[',
    b'],"a":[',
    b"]}",
]


@settings(max_examples=500, deadline=None)
@given(st.lists(st.sampled_from(PIECES), max_size=14).map(b"".join))
@example(b"[],[x,y],[x,y]")
@example(b"[][x],[y]]")
@example(b"[[x]],[ ],[[y]]")
@example(b"[[x],[y]][]")
def test_lists_are_found_where_brackets_stand_around_levels_in_lists_and_nowhere_else(text):
    level, nothing = rb"\[[^][]+\]", rb"[^][]*"
    one = rb"\[(?:%b(?:,%b)*)?\]" % (level, level)
    found = find_lists(np.frombuffer(text + bytes(8), np.uint8))
    if not re.fullmatch(rb"%b(?:%b%b)+" % (nothing, one, nothing), text):
        assert found is None
        return
    assert found is not None
    lists = list(re.finditer(one, text))
    assert found.opened.tolist() == [each.start() for each in lists]
    assert found.closed.tolist() == [each.end() - 1 for each in lists]
    levels = [
        [
            (at.start() + 1, at.end() - at.start() - 2)
            for at in re.compile(level).finditer(text, each.start() + 1, each.end() - 1)
        ]
        for each in lists
    ]
    assert found.counts.tolist() == list(map(len, levels))
    assert list(zip(found.starts.tolist(), found.lengths.tolist(), strict=True)) == list(chain(*levels))


def test_a_diff_made_by_hand_is_read_field_by_field():
    frames = [
        diff(
            1010 + number,
            1020 + number,
            1005 + number,
            [(1.5, 2.5), (1.25, 0.0)] * (number % 2),
            [(3.5, 1.0)],
            at_ms=BEGIN_MS + number,
        )
        for number in range(60)
    ]
    (run,) = DiffReader(BinanceUsdm().decode).read(join(frames))
    assert run.symbol == "BTCUSDT"
    assert run.size == 60
    numbers = np.arange(60)
    assert run.event_time.tolist() == (BEGIN_MS + numbers).tolist()
    assert run.trade_time.tolist() == (BEGIN_MS - 1 + numbers).tolist()
    assert run.first_update_id.tolist() == (1010 + numbers).tolist()
    assert run.last_update_id.tolist() == (1020 + numbers).tolist()
    assert run.prev_update_id.tolist() == (1005 + numbers).tolist()
    assert run.bid_counts.tolist() == (2 * (numbers % 2)).tolist()
    assert run.bid_px.tolist() == [1.5, 1.25] * 30
    assert run.bid_qty.tolist() == [2.5, 0.0] * 30
    assert run.ask_counts.tolist() == [1] * 60
    assert run.ask_px.tolist() == [3.5] * 60
    assert run.ask_qty.tolist() == [1.0] * 60
