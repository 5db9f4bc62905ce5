"""Trades in columns: whatever comes, rows and counts are those of the messages one by one, and quiet blocks do come in columns."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from harvest.market import TRADE_ROWS
from harvest.pipeline.records import Closed, Frames, Opened, Symbols, TradesBody
from harvest.pipeline.times import MICROSECONDS_FROM
from harvest.storage.kinds import PRICES
from harvest.venues import VENUES, binance_runs, binance_spot, binance_usdm, looks
from harvest.venues.binance_runs import LEAST_BYTES, RunReader
from harvest.venues.blocks import join
from tests.pipeline.both import SYMBOLS, Both
from tests.pipeline.troubled import Troubled
from tests.pipeline.wire import MIDNIGHT_MS, T0_MS, diff
from tests.venues.written import Tape, written

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SPOT, USDM = ("binance-spot", "trade"), ("binance-usdm", "trade")
AGGREGATE = ("binance-usdm", "aggTrade")
#: More than LEAST_BYTES.
MANY = 420


def renew(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, module in (("binance-usdm", binance_usdm), ("binance-spot", binance_spot)):
        monkeypatch.setattr(VENUES[name], "_runs", RunReader(module._decode))


@pytest.fixture(autouse=True)
def _new_readers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no test know what another one has read, and stencils be laid where that does not pay yet."""
    monkeypatch.setattr(binance_runs, "LEAST_ALIKE", 24)
    monkeypatch.setattr(binance_runs, "MEAN_ALIKE", 1)
    renew(monkeypatch)


@pytest.fixture
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let blocks of any size be read in columns, and all of them."""
    monkeypatch.setattr(binance_runs, "LEAST_BYTES", 0)
    monkeypatch.setattr(binance_runs, "LEAST_ALIKE", 2)
    monkeypatch.setattr(binance_runs, "ALONE", 1)
    monkeypatch.setattr(looks, "MISSES", 10**6)
    monkeypatch.setattr(looks, "MOST_PASSED", 0)
    renew(monkeypatch)


@pytest.fixture
def both() -> Iterator[Both]:
    """Give two machines that recorded a block of each symbol, and hold all that they have at the end against each other."""
    made = Both()
    for symbol in SYMBOLS:
        assert not made.block([written(USDM, 9_999_999, symbol=symbol)]), "there is no table yet"
    yield made
    made.end()


def tape(symbol: str = "BTCUSDT", first_id: int = 10_000_000, seed: int = 1, **more: Any) -> Tape:
    return Tape(random.Random(seed), USDM, symbol, first_id=first_id, **more)


def test_a_row_of_a_run_has_the_layout_of_a_packed_one() -> None:
    assert TRADE_ROWS.itemsize == PRICES.packer.size
    layouts = [[kind.fields[name][:2] for name in kind.names] for kind in (TRADE_ROWS, PRICES.dtype)]
    assert layouts[0] == layouts[1]
    values = (1721343600000001, 1721343600000000, 2**62 + 1, 0.1, 1e-8, True, 3)
    assert np.array([values], TRADE_ROWS).tobytes() == PRICES.packer.pack(*values)


def test_trades_that_follow_are_taken_in_columns(both: Both) -> None:
    following = tape()
    for _ in range(4):
        assert both.block(following.many(MANY))
    assert both.one.metrics.feeds["trade", "BTCUSDT"].stored == 4 * MANY + 1


def test_trades_of_several_symbols_are_taken_in_columns(both: Both) -> None:
    tapes, dice = [tape(symbol) for symbol in SYMBOLS], random.Random(1)
    for _ in range(4):
        assert both.block([dice.choice(tapes).write() for _ in range(900)])


@pytest.mark.parametrize("form", [SPOT, ("binance-spot", "aggTrade"), USDM, AGGREGATE], ids="-".join)
@pytest.mark.parametrize("scale", [1, 1000])
def test_all_forms_and_units_are_taken_in_columns(form: tuple[str, str], scale: int) -> None:
    both = Both(form[0], id_space=None)
    following = Tape(random.Random(1), form)
    assert not both.block(following.many(MANY, scale=scale)), "nobody has decided which ids are recorded"
    for _ in range(2):
        assert both.block(following.many(MANY, scale=scale))
    assert both.block(following.many(MANY, scale=1001 - scale))
    both.end()


def test_what_another_connection_has_brought_is_counted_in_columns(both: Both) -> None:
    texts = tape().many(3 * MANY)
    assert both.block(texts[: 2 * MANY])
    assert both.block(texts[:MANY], "trade-1"), "all are stored"
    assert both.block(texts[MANY:], "trade-1"), "and now half of them"
    stats = both.one.metrics.feeds["trade", "BTCUSDT"]
    assert (stats.stored, stats.duplicates) == (3 * MANY + 1, 2 * MANY)


def test_what_another_connection_brings_over_midnight_is_counted_in_columns(both: Both) -> None:
    texts = _over_midnight()
    later = tape(first_id=10_000_000 + MANY, at_ms=MIDNIGHT_MS + MANY).many(MANY)
    assert not both.block(texts), "the date changes"
    assert both.block([*texts, *later], "trade-1")


def test_types_that_are_not_known_are_taken_in_columns(both: Both) -> None:
    following = tape()
    for kind in ("MARKET", "ADL", "NEWLY_NAMED", "NA"):
        assert both.block(following.many(MANY, kind=kind))


def test_tables_are_sealed_in_the_order_of_the_messages() -> None:
    both = Both(max_rows=100)
    tapes = [tape(symbol) for symbol in SYMBOLS]
    for turn in range(6):
        order = [tapes[(turn + one) % 3] for one in range(3)]
        texts = [text for each in order for text in each.many(MANY)]
        assert both.block(texts) == (turn > 0)
    both.end()


def _without(texts: list[bytes], at: int, count: int = 1) -> list[bytes]:
    return texts[:at] + texts[at + count :]


def _swapped(texts: list[bytes], at: int) -> list[bytes]:
    texts[at], texts[at + 1] = texts[at + 1], texts[at]
    return texts


def _at(where: int, texts: list[bytes], *more: bytes) -> list[bytes]:
    return texts[:where] + list(more) + texts[where:]


def _over_midnight(**changed: int) -> list[bytes]:
    times = [MIDNIGHT_MS - MANY // 2 + number for number in range(MANY)]
    return [
        written(
            USDM,
            10_000_000 + number,
            time=time + changed.get("time", 0),
            event_time=time + changed.get("event_time", 0),
        )
        for number, time in enumerate(times)
    ]


def _two_types(first: str, second: str) -> list[bytes]:
    """The same ids twice, as two types: the first one that comes is the one that counts."""
    mine = [tape(seed=seed).many(MANY, kind=kind) for seed, kind in ((1, first), (2, second))]
    return [text for both in zip(*mine, strict=True) for text in both]


TROUBLES: dict[str, Callable[[], list[bytes]]] = {
    "a gap": lambda: _without(tape().many(MANY), MANY // 2),
    "a gap before the first": lambda: tape(first_id=10_000_007).many(MANY),
    "a gap before the last": lambda: _without(tape().many(MANY), MANY - 2),
    "out of order": lambda: _swapped(tape().many(MANY), MANY // 2),
    "twice the same": lambda: [*(texts := tape().many(MANY)), texts[0]],
    "twice the same, side by side": lambda: [*(texts := tape().many(MANY)), texts[-1]],
    "early ids": lambda: tape(first_id=9_000_000).many(MANY),
    "early ids, and what follows": lambda: tape(first_id=9_999_999 - MANY // 2).many(MANY),
    "ids that end below the first": lambda: tape(first_id=9_999_999 - MANY).many(MANY),
    "midnight": _over_midnight,
    "the event after midnight": lambda: _over_midnight(time=-MANY // 2 - 1),
    "the trade before midnight": lambda: _over_midnight(time=-2 * MANY, event_time=-2 * MANY + 3000),
    "the trade after the event": lambda: tape().many(MANY, event_time=T0_MS - 5),
    "one trade after the event": lambda: _at(
        MANY, tape().many(MANY), written(USDM, 10_000_000 + MANY, time=T0_MS, event_time=T0_MS - 1)
    ),
    "yesterday": lambda: tape(at_ms=T0_MS - 86_400_000).many(MANY),
    "tomorrow": lambda: tape(at_ms=T0_MS + 86_400_000).many(MANY),
    "microseconds behind milliseconds": lambda: [
        *(begun := tape()).many(MANY),
        *begun.many(MANY, scale=1000),
    ],
    "milliseconds behind microseconds": lambda: [
        *(begun := tape()).many(MANY, scale=1000),
        *begun.many(MANY),
    ],
    "events in microseconds, trades in milliseconds": lambda: tape().many(MANY, event_time=T0_MS * 1000),
    "another type": lambda: [*(begun := tape()).many(MANY), *begun.many(MANY, kind="ADL")],
    "another type now and then": lambda: [
        one for turn in [tape()] for _ in range(MANY) for one in turn.many(1, kind=turn.dice.choice("AB"))
    ],
    "the same ids as two types": lambda: _two_types("MARKET", "ADL"),
    "the same ids as two types, of one length": lambda: _two_types("MARKET", "TEKRAM"),
    "the same ids as two types, and more": lambda: [
        *tape().many(MANY + 100),
        *tape(first_id=10_000_050).many(MANY, kind="ADL"),
    ],
    "an aggregate trade": lambda: _at(5, tape().many(MANY), written(AGGREGATE, 5)),
    "aggregate trades alone": lambda: Tape(random.Random(1), AGGREGATE, first_id=10_000_000).many(MANY),
    "aggregate trades of another symbol": lambda: [
        *tape().many(MANY),
        *Tape(random.Random(1), AGGREGATE, SYMBOLS[1], first_id=10_000_000).many(MANY),
    ],
    "another symbol": lambda: _at(5, tape().many(MANY), written(USDM, 10_000_000, symbol="ETHUSDT")),
    "a symbol of another case": lambda: tape("btcusdt").many(MANY),
    "a diff": lambda: _at(5, tape().many(MANY), diff(1, 2, 0)),
    "what is no JSON": lambda: _at(
        MANY, tape().many(MANY), b'{"stream":"btcusdt@trade","data":{"e":"trade","E"'
    ),
    "an answer": lambda: _at(5, tape().many(MANY), b'{"result":null,"id":1}'),
    "a small block": lambda: tape().many(5),
}


@pytest.mark.parametrize("trouble", TROUBLES)
def test_trouble_is_taken_as_one_by_one(both: Both, trouble: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(looks, "MOST_PASSED", 0)
    assert not both.block(TROUBLES[trouble]())
    # And what follows goes on from the same state: most begin again behind a gap.
    following = tape(first_id=10_000_000 + 3 * MANY).many(2 * MANY)
    both.block(following[:MANY])
    assert both.block(following[MANY:])


def test_all_of_one_type_are_stored_and_more_of_another_one_follow(both: Both) -> None:
    assert both.block(tape().many(MANY))
    both.block([*tape().many(MANY), *tape(first_id=10_000_000 + MANY).many(MANY, kind="ADL")])


def test_what_fills_a_hole_is_taken_as_one_by_one(both: Both) -> None:
    texts = tape().many(4 * MANY)
    assert both.block(texts[:MANY])
    assert not both.block(texts[MANY + 300 : 2 * MANY])
    assert both.block(texts[2 * MANY : 3 * MANY])
    assert not both.block(texts[MANY : 2 * MANY]), "some of them are missing"
    assert both.block(texts[MANY:]), "and now none"
    stats = both.one.metrics.feeds["trade", "BTCUSDT"]
    assert (stats.late, stats.missing_ids, stats.gaps) == (300, 0, 1)


def test_what_was_fetched_into_a_hole_is_there(both: Both) -> None:
    texts = tape().many(2 * MANY)
    assert not both.block(texts[1:MANY])
    page = b'[{"id":10000000,"price":"1.5","qty":"1","time":1721343600000,"isBuyerMaker":true}]'
    both.feed(TradesBody, "BTCUSDT", 10_000_000, 10_000_000, page)
    assert both.block(texts)


def test_while_a_gap_is_doubtful_trades_are_taken_one_by_one(both: Both) -> None:
    for connection in ("trade-0", "trade-1"):
        both.feed(Opened, connection, "trade", SYMBOLS)
    texts = tape().many(8 * MANY)
    assert both.block(texts[:MANY])
    assert not both.block(texts[MANY + 3 : 2 * MANY])
    assert not both.block(texts[2 * MANY : 3 * MANY]), "the other connection may fill it"
    assert both.block(tape("牛来USDT").many(MANY)), "that of another symbol does not matter"
    assert not both.block(texts[3 * MANY : 4 * MANY], after_ms=400), "and now it is a break"
    assert both.block(texts[4 * MANY : 5 * MANY])
    assert not both.block(texts[5 * MANY + 9 : 6 * MANY])
    both.feed(Closed, "trade-1", "trade", SYMBOLS, "disconnect")
    assert both.block(texts[6 * MANY : 7 * MANY]), "nobody is left to fill it"


def test_a_symbol_that_is_removed_is_counted_and_goes_on_where_it_was(both: Both) -> None:
    texts = tape().many(4 * MANY)
    other = tape("牛来USDT")
    assert both.block(texts[:MANY])
    both.feed(Symbols, {}, ("BTCUSDT",))
    assert not both.block([*texts[MANY : 2 * MANY], *other.many(MANY)])
    assert both.block(other.many(MANY))
    both.feed(Symbols, {"BTCUSDT": None}, ())
    assert not both.block(texts[2 * MANY : 3 * MANY]), "it has no table"
    assert both.block([*texts[3 * MANY :], *other.many(MANY)])
    assert both.one.metrics.unknown_symbols == {"BTCUSDT": MANY}


def test_where_all_symbols_are_recorded_they_begin_one_by_one() -> None:
    both = Both(symbols=None)
    tapes, dice = [tape(symbol) for symbol in (*SYMBOLS, "ETHUSDT")], random.Random(1)
    for turn in range(3):
        assert both.block([dice.choice(tapes).write() for _ in range(1200)]) == (turn > 0)
    both.end()


def test_tables_that_were_let_go_are_looked_up_anew(both: Both) -> None:
    following = tape()
    assert both.block(following.many(MANY))
    for side in (both.one, both.other):
        side.pipeline.forget_before(0)
    assert not both.block(following.many(MANY))
    assert both.block(following.many(MANY))


@pytest.mark.parametrize("count", [1, 3, 40])
@pytest.mark.parametrize(
    ("first", "trade_time", "event_time"),
    [
        (MICROSECONDS_FROM + 5, MICROSECONDS_FROM - 10**9, MICROSECONDS_FROM + 9),
        (MICROSECONDS_FROM - 9, MICROSECONDS_FROM - 5, MICROSECONDS_FROM + 5),
    ],
)
def test_times_where_the_units_meet_are_each_in_its_own_unit(
    count: int, first: int, trade_time: int, event_time: int
) -> None:
    """On a day of 1973 in microseconds, and on one of 5138 in milliseconds, the same number may be of either unit."""
    both = Both()
    texts = [written(USDM, 10_000_000 + number, time=first) for number in range(MANY)]
    assert not both.block(texts)
    texts.append(written(USDM, 10_000_000 + MANY, time=first))
    texts += [
        written(USDM, 10_000_001 + MANY + number, time=trade_time, event_time=event_time)
        for number in range(count)
    ]
    both.block(texts)
    both.end()


@pytest.mark.usefixtures("_small")
@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("spot", [False, True])
def test_a_run_with_every_trouble_is_taken_as_one_by_one(seed: int, spot: bool) -> None:
    """Blocks of a few messages, two connections that lose and delay, fetched pages, overloads, and midnight."""
    both = Both("binance-spot" if spot else "binance-usdm", symbols=("BTCUSDT", "ETHUSDT"), max_rows=40)
    for record in Troubled(random.Random(seed), 150, spot=spot).records:
        fields = [getattr(record, name) for name in record.__struct_fields__[3:]]
        if isinstance(record, Frames):
            fields[1] = join(record.frames)
        both.recv_ns = record.recv_ns
        both.feed(type(record), *fields, after_ms=0)
    both.end()
    assert both.one.venue.taken > 15


def _stream(dice: random.Random, form: tuple[str, str], calm: float) -> Iterator[list[bytes]]:
    """Make blocks of one to three symbols' trades: most of them quiet, the others with any of what may happen."""
    ids = dice.choice((10_000_000, 99_999_000, 3_010_230_123))
    at_ms = MIDNIGHT_MS - dice.choice((1000, 50, 10**6))
    tapes = [
        Tape(dice, form, symbol, first_id=ids, at_ms=at_ms) for symbol in SYMBOLS[: dice.randrange(1, 4)]
    ]
    before: list[bytes] = []
    scale = dice.choice((1, 1, 1000))
    for size in dice.sample((40, 90, 500, 500, 600, 700, 700, 900), 8):
        texts = [dice.choice(tapes).write(scale=scale) for _ in range(size)]
        sent = list(texts)
        if dice.random() > calm:
            at = dice.randrange(len(texts))
            extra = dice.choice(tapes)
            trouble = dice.randrange(9)
            if trouble == 0:
                del texts[at : at + dice.randrange(1, 9)]
            elif trouble == 1:
                texts[at:at] = before[-dice.randrange(1, 200) :]
            elif trouble == 2:
                texts.insert(at, extra.write(scale=1001 - scale))
            elif trouble == 3:
                texts.insert(at, dice.choice((b"{}", b"{", diff(1, 2, 0), b'{"result":null,"id":2}')))
            elif trouble == 4:
                texts.insert(at, extra.write(scale=scale, kind="ADL"))
            elif trouble == 5:
                texts.insert(at, extra.write(scale=scale, event_time=extra.at_ms * scale - 1))
            elif trouble == 6:
                _swapped(texts, min(at, len(texts) - 2))
            elif trouble == 7:
                texts.insert(at, written(form, 5, symbol="ETHUSDT"))
            else:
                for one in tapes:
                    one.at_ms += 600
        yield texts or sent
        before = sent


@pytest.mark.parametrize("seed", range(10))
def test_a_stream_of_large_blocks_over_two_connections_is_taken_as_one_by_one(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(looks, "MOST_PASSED", 0)
    dice = random.Random(seed)
    form = dice.choice((SPOT, USDM))
    both = Both(form[0], max_rows=dice.choice((10**6, 600)))
    both.feed(Opened, "trade-0", "trade", SYMBOLS)
    waiting: dict[str, list[list[bytes]]] = {"trade-0": [], "trade-1": []}
    for texts in _stream(dice, form, calm=0.7):
        for name, blocks in waiting.items():
            blocks.append(
                texts if name == "trade-0" or dice.random() < 0.6 else texts[: len(texts) // 2] or texts
            )
            while blocks and (name == "trade-0" or dice.random() < 0.7):
                both.block(blocks.pop(0), name, after_ms=dice.choice((1, 50, 300)))
        if dice.random() < 0.3:
            both.feed(
                *dice.choice(
                    ((Opened, "trade-1", "trade", SYMBOLS), (Closed, "trade-1", "trade", SYMBOLS, "stall"))
                )
            )
    both.end()


def test_streams_of_large_blocks_are_taken_in_columns_where_they_are_quiet() -> None:
    taken = large = small = 0
    for seed in range(6):
        dice = random.Random(seed)
        both = Both("binance-usdm")
        for texts in _stream(dice, USDM, calm=1):
            taken += both.block(texts)
            if len(join(texts)) >= LEAST_BYTES:
                large += 1
            else:
                small += 1
        both.end()
    assert taken > large * 0.6
    assert small
