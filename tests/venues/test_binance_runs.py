"""Blocks of trades that are read in columns: what is read so is what the decoder gives, and real blocks are read so."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from harvest.venues import VENUES, binance_runs, binance_spot, binance_usdm, looks
from harvest.venues.binance_runs import ALONE, LEAST_BYTES, RunReader
from harvest.venues.blocks import join, payloads
from harvest.venues.looks import FORMS as MOST_FORMS
from harvest.venues.looks import LOOKS, MOST_PASSED
from tests.pipeline.wire import T0_MS, diff, payload, trade
from tests.venues.written import FORMS, Tape, decoded, plain, strange, written

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from harvest.market import TradeRun

MODULES = {"binance-usdm": binance_usdm, "binance-spot": binance_spot}
SYMBOLS = ("BTCUSDT", "1000PEPEUSDT", "牛来USDT", "BTCUSDT_261225", "A")
EACH_FORM = pytest.mark.parametrize("form", FORMS, ids="-".join)
USDM = ("binance-usdm", "aggTrade")
#: More than LEAST_BYTES, of any form.
MANY = 420
LEAST_ALIKE, MISSES = 24, 20


class Reader:
    """A reader of its own, which counts what it decodes one by one."""

    def __init__(self, venue: str) -> None:
        self.venue = VENUES[venue]
        self._decode = msgspec.json.Decoder(MODULES[venue].Message, strict=False).decode
        self.reader = RunReader(self._counted)
        self.decoded = 0

    def _counted(self, frame: bytes) -> Any:
        self.decoded += 1
        return self._decode(frame)

    def read(self, texts: Sequence[bytes]) -> list[TradeRun] | None:
        """Read a block, and hold what is read against what the venue's decoder gives one by one."""
        lines = join(list(texts))
        assert isinstance(lines, bytes)
        self.decoded = 0
        runs = self.reader.read(lines)
        if runs is not None:
            assert plain(runs) == decoded(self.venue, texts)
        return runs


@pytest.fixture(autouse=True)
def _eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let stencils be laid where that does not pay yet, so that blocks may be small."""
    monkeypatch.setattr(binance_runs, "LEAST_ALIKE", LEAST_ALIKE)
    monkeypatch.setattr(binance_runs, "MEAN_ALIKE", 1)
    monkeypatch.setattr(looks, "MISSES", MISSES)


@pytest.fixture
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let blocks of any size be read, and two that look alike be enough."""
    monkeypatch.setattr(binance_runs, "LEAST_BYTES", 0)
    monkeypatch.setattr(binance_runs, "LEAST_ALIKE", 2)
    monkeypatch.setattr(looks, "MISSES", 10**6)
    monkeypatch.setattr(looks, "MOST_PASSED", 0)


@pytest.fixture
def _always(_small: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let all of a block be decoded alone, besides."""
    monkeypatch.setattr(binance_runs, "ALONE", 1)


@EACH_FORM
@pytest.mark.parametrize("symbol", SYMBOLS)
def test_a_block_of_trades_is_read_in_columns(form: tuple[str, str], symbol: str) -> None:
    reader, tape = Reader(form[0]), Tape(random.Random(symbol), form, symbol)
    for _ in range(3):
        assert reader.read(tape.many(MANY)) is not None
        assert reader.decoded <= MANY // ALONE + LOOKS


@EACH_FORM
def test_captured_trades_are_read_in_columns(form: tuple[str, str]) -> None:
    text = payload(*form)
    reader = Reader(form[0])
    runs = reader.read([text] * (LEAST_BYTES // len(text) + 1))
    assert runs is not None
    assert reader.decoded == 2, "the last one, and one that shows how they look"


@EACH_FORM
def test_trades_that_were_seen_are_known_again(form: tuple[str, str]) -> None:
    text = payload(*form)
    reader, texts = Reader(form[0]), [text] * (LEAST_BYTES // len(text) + 1)
    reader.read(texts)
    assert reader.read(texts) is not None
    assert reader.decoded == 1, "the last one"


@pytest.mark.parametrize("venue", sorted(VENUES))
def test_a_venue_reads_trades_in_columns(venue: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(VENUES[venue], "_runs", RunReader(MODULES[venue]._decode))
    texts = Tape(random.Random(1), (venue, "trade")).many(MANY)
    lines = join(texts)
    assert isinstance(lines, bytes)
    runs = VENUES[venue].decode_runs(lines)
    assert runs is not None
    assert plain(runs) == decoded(VENUES[venue], texts)


@EACH_FORM
def test_several_symbols_are_read_as_a_run_each(form: tuple[str, str]) -> None:
    dice, reader = random.Random(5), Reader(form[0])
    tapes = [Tape(dice, form, symbol) for symbol in ("BTCUSDT", "ETHUSDT", "牛来USDT")]
    texts = [dice.choice(tapes).write() for _ in range(900)]
    runs = reader.read(texts)
    assert runs is not None
    assert len(runs) == 3


@pytest.mark.usefixtures("_small")
def test_of_one_symbol_aggregate_and_raw_trades_or_types_are_no_runs() -> None:
    dice = random.Random(5)
    raw, aggregate = (Tape(dice, ("binance-usdm", event)) for event in ("trade", "aggTrade"))
    assert Reader("binance-usdm").read([*raw.many(90), *aggregate.many(90)]) is None
    assert Reader("binance-usdm").read([*raw.many(90), *raw.many(90, kind="ADL"), *raw.many(9)]) is None


def test_times_in_microseconds_are_read_in_columns() -> None:
    reader, tape = Reader("binance-spot"), Tape(random.Random(3), ("binance-spot", "trade"))
    assert reader.read([*tape.many(MANY, scale=1000), *tape.many(MANY)]) is not None


def _data(text: bytes, old: str, new: str) -> bytes:
    assert old.encode() in text
    return text.replace(old.encode(), new.encode(), 1)


_ODD = written(USDM, 3_010_230_123, price="100.50", qty="12.500", time=1721343600000)


@pytest.mark.usefixtures("_small")
@pytest.mark.parametrize(
    ("old", "odd", "others"),
    [
        # The decoder takes digits for truth, and integers with a fraction, or an exponent.
        ('"m":false', '"m":1', ['"m":0', '"m":1', '"m":2']),
        ('"m":false', '"m":0', ['"m":0', '"m":1', '"m":2']),
        ('"m":false', '"m":"1"', ['"m":"0"', '"m":"1"', '"m":"7"']),
        ('"a":3010230123', '"a":"3010230123.0"', ['"a":"3010230124.0"', '"a":"3010230123.5"']),
        ('"E":1721343600000', '"E":"1721343600000.0"', ['"E":"1721343600000.1"']),
        ('"T":1721343600000', '"T":"1721343600000.0"', ['"T":"1721343600000.1"']),
        ('"a":3010230123', '"a":"3e3","t":1', ['"a":"4e3","t":2']),
        ('"a":3010230123', '"a":"3010230123"', ['"a":"3010230124"', '"a":"0010230124"']),
        # The last time there is, and the one after it.
        ('"E":1721343600000', '"E":10000000000000000', ['"E":10000000000000001', '"E":10000000000000000']),
        ('"T":1721343600000', '"T":9999999999999999', ['"T":9999999999999998', '"T":1000000000000000']),
        ('"a":3010230123', '"a":9223372036854775807', ['"a":9223372036854775808']),
        ('"a":3010230123', '"a":922337203685477580', ['"a":922337203685477589']),
        ('"T":1721343600000', '"T":10000000000000000', ['"T":10000000000000001']),
        # Numbers that are none.
        ('"f":6020460246', '"f":112', ['"f":012', '"f":000', '"f":-12', '"f":1e2', '"f":0.1', '"f":9  ']),
        ('"f":6020460246', '"f":1', ['"f":0', '"f":-', '"f": ']),
        ('"p":"100.50"', '"p":"200.50"', ['"p":"000.50"', '"p":"0.5000"', '"p":"-00.50"', '"p":"1.0e10"']),
        ('"p":"100.50"', '"p":"2.5000"', ['"p":"+.5000"', '"p":"-0.500"', '"p":"2e5000"', '"p":"2.50\\u"']),
        ('"p":"100.50"', '"p":100', ['"p":200', '"p":010', '"p":1.5', '"p":1e2', '"p":"1"']),
        # Prices beyond what two floats divide exactly, and at the edge of it.
        ('"p":"100.50"', '"p":"12345678.12345678"', ['"p":"90071992.54740993"']),
        ('"p":"100.50"', '"p":"1234567.12345678"', ['"p":"9007199.25474099"', '"p":"9999999.99999999"']),
        ('"p":"100.50"', '"p":"123456789012.123"', ['"p":"123499999999.999"']),
        ('"p":"100.50"', '"p":"0.123456789"', ['"p":"0.999999999"', '"p":"0.000000001"']),
        ('"p":"100.50"', '"p":"123456789012345678"', ['"p":"123456789099999999"']),
        ('"p":"100.50"', '"p":"123456789"', ['"p":"123456780"', '"p":"023456789"', '"p":"923456789"']),
        # Doubled, in another order, or not known.
        ('"m":false', '"m":false,"p":"1.5"', ['"m":false,"p":"2.5"']),
        ('"e":"aggTrade",', '"T":1,"e":"aggTrade",', ['"T":2,"e":"aggTrade",']),
        ('"e":"aggTrade",', '"E":7,"e":"aggTrade",', ['"E":8,"e":"aggTrade",']),
        (
            '"e":"aggTrade",',
            '"x":"5","e":"aggTrade",',
            ['"x":"6","e":"aggTrade",', '"x":"a","e":"aggTrade",'],
        ),
        ('"e":"aggTrade",', '"x":{"p":5},"e":"aggTrade",', ['"x":{"p":6},"e":"aggTrade",']),
        ('"e":"aggTrade",', '"x":"\\u0030","e":"aggTrade",', ['"x":"\\u0031","e":"aggTrade",']),
        ('"e":"aggTrade",', '"\\u0070":"5","e":"aggTrade",', ['"\\u0070":"6","e":"aggTrade",']),
        ('"e":"aggTrade",', '"x1":5,"e":"aggTrade",', ['"x2":6,"e":"aggTrade",', '"p2":6,"e":"aggTrade",']),
        # Digits in texts that are not numbers.
        ('"s":"BTCUSDT"', '"s":"100"', ['"s":"200"', '"s":"100"']),
        ('"s":"BTCUSDT"', '"s":"1000PEPE"', ['"s":"2000PEPE"', '"s":"1000PEPE"']),
        ('"stream":"btcusdt@', '"stream":"btc1@', ['"stream":"btc2@', '"stream":"btc1@']),
        ('"st":1', '"st":null', ['"st":true', '"st":1234', '"st":nul1']),
        ('"data":{', '"data":{"X":"7",', ['"data":{"X":"8",', '"data":{"X":7.0,']),
    ],
)
def test_what_the_decoder_reads_otherwise_is_left_to_it(old: str, odd: str, others: list[str]) -> None:
    """A look is learned of what is odd, and the others, which may be as long, come among it."""
    texts = [_data(_ODD, old, odd)] * 4
    for other in others:
        reader = Reader("binance-usdm")
        mixed = [*texts, _data(_ODD, old, other), *texts]
        reader.read(mixed)
        reader.read(mixed * 9)


@pytest.mark.usefixtures("_small")
@EACH_FORM
def test_each_byte_of_a_trade_that_is_changed_is_read_as_decoded(form: tuple[str, str]) -> None:
    text = written(form, 3_010_230_123)
    dice, reader = random.Random(1), Reader(form[0])
    in_columns = 0
    for place in range(len(text)):
        for byte in (*b'0.-"', dice.randrange(32, 127)):
            changed = text[:place] + bytes([byte]) + text[place + 1 :]
            if changed.startswith(b"{"):
                in_columns += reader.read([text, changed, text, changed, text, text, text]) is not None
    assert in_columns > 150, "digits for digits, and texts for texts"


@pytest.mark.usefixtures("_always")
@EACH_FORM
@pytest.mark.parametrize("seed", range(6))
def test_blocks_of_changed_trades_are_read_as_decoded(form: tuple[str, str], seed: int) -> None:
    dice, reader = random.Random(seed), Reader(form[0])
    tapes = [Tape(dice, form, symbol) for symbol in SYMBOLS[:3]]
    in_columns = 0
    for _ in range(25):
        texts = [bytearray(dice.choice(tapes).write()) for _ in range(dice.randrange(2, 60))]
        for _ in range(dice.choice((0, 1, 2, 9))):
            text = dice.choice(texts)
            place = dice.randrange(1, len(text))
            if text[place] in b"0123456789" and dice.random() < 0.7:
                text[place] = dice.choice(b"0123456789")
            else:
                text[place : place + dice.choice((0, 1, 1, 1))] = dice.choice(
                    (b"0", b"9", b".", b"-", b"e5", b'"', b"\\", b" ", b":", "牛".encode(), b"\xff")
                )
        in_columns += reader.read([bytes(text) for text in texts]) is not None
    assert in_columns > 3


@pytest.mark.usefixtures("_always")
@pytest.mark.parametrize("venue", sorted(VENUES))
def test_trades_that_are_written_in_any_way_are_read_as_decoded(venue: str) -> None:
    dice, in_columns = random.Random(3), 0
    for _ in range(1500):
        reader, text = Reader(venue), strange(dice)
        if decoded(reader.venue, [text]) is None:
            continue
        digits = [place for place, byte in enumerate(text) if byte in b"0123456789"]
        texts = [text] * 3
        for _ in range(3):
            changed = bytearray(text)
            for place in dice.sample(digits, dice.choice((1, 1, 5))):
                changed[place] = dice.choice(b"0123456789")
            if decoded(reader.venue, [bytes(changed)]) is not None or dice.random() < 0.2:
                texts.append(bytes(changed))
        in_columns += reader.read([*texts, text]) is not None
    assert in_columns > 200


@pytest.mark.parametrize(
    "last",
    [
        *(b"{", b"{}", b"{" * 8, b'{"result":null,"id":1}', b'{"stream":"x@kline","data":{"e":"kline"}}'),
        *(trade(1) + trade(2), trade(1)[:-1], trade(1) + b" x", diff(1, 2, 0, symbol="ETHUSDT")),
    ],
)
@pytest.mark.parametrize("is_last", [True, False])
def test_a_block_with_what_is_no_trade_is_not_read(last: bytes, is_last: bool) -> None:
    for length in range(8):
        tape = Tape(random.Random(length), USDM, "A" * (length + 1))
        texts = tape.many(MANY)
        texts.insert(len(texts) if is_last else 7, last)
        assert Reader("binance-usdm").read(texts) is None


def test_a_block_of_few_bytes_is_not_looked_at() -> None:
    texts = Tape(random.Random(1), USDM).many(MANY)
    while len(join(texts)) >= LEAST_BYTES:
        texts.pop()
    reader = Reader("binance-usdm")
    assert reader.read(texts) is None
    assert reader.decoded == 0
    texts.append(texts[-1])
    assert reader.read(texts) is not None


def test_a_block_with_a_long_message_is_not_read() -> None:
    texts = Tape(random.Random(1), USDM).many(MANY)
    reader = Reader("binance-usdm")
    assert reader.read([*texts, _data(texts[0], '"st":1', f'"st":"{"x" * 1024}"'), *texts]) is None
    assert reader.decoded == 0


def test_after_blocks_that_are_no_runs_some_are_passed_over_and_more_each_time() -> None:
    reader, tape = Reader("binance-usdm"), Tape(random.Random(1), USDM)
    for passed in (1, 3, 7, 15, 31, MOST_PASSED, MOST_PASSED):
        assert reader.read([*tape.many(MANY), b"{}"]) is None
        for _ in range(passed):
            # Small ones do not count.
            assert reader.read(tape.many(3)) is None
            assert reader.read(tape.many(MANY)) is None
            assert reader.decoded == 0
    assert reader.read(tape.many(MANY)) is not None
    assert reader.read([*tape.many(MANY), b"{}"]) is None
    assert reader.read(tape.many(MANY)) is None
    assert reader.read(tape.many(MANY)) is not None


def test_a_block_of_trades_that_all_look_otherwise_is_given_up_soon() -> None:
    reader = Reader("binance-usdm")
    texts = [
        written(USDM, number, symbol="".join(random.Random(number).choices("ABCDEF", k=6)))
        for number in range(10**9, 10**9 + MANY)
    ]
    assert reader.read(texts) is None
    assert reader.decoded <= MISSES + 2


@pytest.mark.usefixtures("_always")
def test_the_looks_that_are_remembered_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(looks, "FORMS", 10)
    reader = Reader("binance-usdm")
    known = reader.reader._looks._known
    for block in range(5):
        texts = [
            written(USDM, 10**9 + number, symbol=f"{letter}{block}USDT")
            for letter in "ABCDEFGHIJKLMNOP"
            for number in range(4)
        ]
        assert reader.read(texts) is not None
        assert 0 < len(known) <= 10
    # In a look of the same form other digits are fixed.
    for lead in range(10, 30):
        assert reader.read([written(USDM, lead * 10**8 + number) for number in range(10)]) is not None
        assert max(map(len, known.values())) <= LOOKS
    assert MOST_FORMS > 10


@pytest.mark.usefixtures("_small")
def test_many_symbols_in_one_block_are_read_as_decoded() -> None:
    reader = Reader("binance-usdm")
    for letters in ("ABCDEFGH", "GHIJKLMN", "ABCDEFGH"):
        texts = [
            written(USDM, 10**9 + number, symbol=f"{letter}USDT")
            for number in range(60)
            for letter in letters
        ]
        runs = reader.read(texts)
        assert runs is not None
        assert [run.symbol[0] for run in runs] == list(letters)


def test_fewer_that_look_alike_than_a_stencil_pays_for_are_decoded_alone() -> None:
    reader, tape = Reader("binance-usdm"), Tape(random.Random(1), USDM, "LONGERUSDT")
    few = tape.many(1)[0]
    texts = [payload(*USDM)] * (LEAST_BYTES // 200 + 60) + [few] * (LEAST_ALIKE - 1)
    assert reader.read([*texts, texts[0]]) is not None
    assert reader.decoded == 2 + LEAST_ALIKE - 1


def blocks(seed: int) -> Iterator[list[bytes]]:
    """Make blocks as large as real ones, most of them of trades alone."""
    dice = random.Random(seed)
    for _ in range(6):
        form = dice.choice(FORMS[:2])
        tape = Tape(dice, form, dice.choice(SYMBOLS), first_id=dice.choice((10_000_000, 99_999_900, 10**15)))
        texts = tape.many(MANY + 200)
        for _ in range(dice.choice((0, 0, 3, 40))):
            at = dice.randrange(len(texts))
            texts[at] = dice.choice((tape.write(scale=1000), tape.write(price="5"), texts[at - 1]))
        yield texts


@pytest.mark.parametrize("seed", range(5))
def test_large_blocks_are_read_as_decoded(seed: int) -> None:
    reader = Reader("binance-usdm")
    assert sum(reader.read(texts) is not None for texts in blocks(seed)) == 6


def test_rows_of_a_block_are_nobody_elses() -> None:
    """The pipeline writes into them."""
    reader, tape = Reader("binance-usdm"), Tape(random.Random(1), USDM)
    texts = tape.many(MANY)
    runs = reader.read(texts)
    assert runs is not None
    for run in runs:
        run.rows["trade_id"] = -1
    assert reader.read(texts) is not None


def test_payloads_are_those_of_the_block() -> None:
    texts = Tape(random.Random(1), USDM, "牛来USDT", at_ms=T0_MS).many(3)
    assert payloads(join(texts)) == texts
