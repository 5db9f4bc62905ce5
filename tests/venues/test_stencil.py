"""What a stencil reads is what the decoder reads, and what it does not fit it does not read."""

from __future__ import annotations

import random
import struct
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harvest.venues.stencil import EXACT_DIGITS, Stencil, cut

#: What stands between texts, and behind the last one: nothing that a stencil reads.
BEHIND = b"\xff" * 8


class Template(NamedTuple):
    """A JSON text, where its numbers stand by name, and what decodes it."""

    text: bytes
    spans: dict[str, tuple[int, int]]
    decoder: msgspec.json.Decoder[Any]

    def decoded(self, text: bytes) -> list[Any] | None:
        """Return the numbers of a text as the decoder reads them; None where it does not."""
        try:
            found = self.decoder.decode(text)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return None
        return [getattr(found, name) for name in self.spans]


def template_of(values: list[str]) -> Template:
    """Make an object of a field a value: a number, one in quotes with a fraction or without, or a text."""
    spans, fields, text = {}, [], b"{"
    for index, value in enumerate(values):
        name = f"k{index}"
        text += f'{"," if index else ""}"{name}":'.encode()
        bare = value.strip('"')
        if bare[0].isdigit():
            begin = len(text) + value.startswith('"')
            spans[name] = begin, begin + len(bare)
        kind = (float if "." in bare else int) if bare[0].isdigit() else str
        fields.append((name, kind))
        text += value.encode()
    struct_type = msgspec.defstruct("Made", fields)
    return Template(text + b"}", spans, msgspec.json.Decoder(struct_type, strict=False))


def laid(template: Template, texts: list[bytes]) -> list[list[Any] | None]:
    """Lay a stencil of a template on texts of its length; return the numbers of each, None where it does not fit."""
    stencil = Stencil(template.text, template.spans)
    assert {len(text) for text in texts} == {stencil.length}
    step = stencil.length + len(BEHIND)
    block = b"".join(text + BEHIND for text in texts)
    numbers, fits = stencil.lay(block, np.arange(len(texts), dtype=np.intp) * step)
    columns = [
        (numbers.decimals(name) if b"." in template.text[slice(*span)] else numbers.integers(name)).tolist()
        for name, span in template.spans.items()
    ]
    return [
        list(row) if fits is None or fits[index] else None
        for index, row in enumerate(zip(*columns, strict=True))
    ]


def bits(values: list[Any]) -> list[bytes]:
    """Return numbers so that only the same ones are equal."""
    return [struct.pack("<d", value) if isinstance(value, float) else str(value).encode() for value in values]


def read_only_as_decoded(template: Template, texts: list[bytes]) -> int:
    """Hold what a stencil reads of texts against the decoder; returns how many it reads."""
    found = laid(template, texts)
    for text, values in zip(texts, found, strict=True):
        if values is not None:
            decoded = template.decoded(text)
            assert decoded is not None, text
            assert bits(values) == bits(decoded), text
    return sum(values is not None for values in found)


def digits(dice: random.Random, count: int) -> str:
    """Make a number of so many digits, with a liking for nines and noughts."""
    first = dice.choice("123456789999") if count > 1 else dice.choice("0123456789")
    return first + "".join(dice.choice("001234567899") for _ in range(count - 1))


def number(dice: random.Random) -> str:
    """Make a number as JSON has it, or in quotes; only these have fractions."""
    if dice.random() < 0.5:
        places = dice.randrange(1, 9)
        return f'"{digits(dice, dice.randrange(1, EXACT_DIGITS - places + 1))}.{"".join(dice.choices("0123456789", k=places))}"'
    quote = dice.choice(('"', ""))
    return quote + digits(dice, dice.randrange(1, 19)) + quote


def alike(template: Template, dice: random.Random) -> bytes:
    """Make a text that differs from a template in the digits that may differ."""
    text = bytearray(template.text)
    for begin, end in template.spans.values():
        whole, _, fraction = bytes(text[begin:end]).partition(b".")
        last = digits(dice, min(len(whole), 8)).encode()
        if len(whole) > 8 and dice.random() < 0.5:
            last = b"0" + last[1:]
        text[begin : begin + len(whole)] = whole[:-8] + last
        text[end - len(fraction) : end] = bytes(dice.choices(b"0123456789", k=len(fraction)))
    return bytes(text)


values = st.lists(
    st.one_of(
        st.integers(0, 2**32).map(lambda seed: number(random.Random(seed))),
        st.text("ab7牛", max_size=9).map(lambda text: f'"x{text}"'),
    ),
    min_size=1,
    max_size=8,
).filter(lambda made: any(value.strip('"')[0].isdigit() for value in made))


@settings(deadline=None, derandomize=True, max_examples=150)
@given(values=values, seed=st.integers(0, 2**32))
def test_texts_that_differ_in_digits_are_all_read_as_decoded(values: list[str], seed: int) -> None:
    template, dice = template_of(values), random.Random(seed)
    texts = [template.text, *(alike(template, dice) for _ in range(20))]
    assert read_only_as_decoded(template, texts) == len(texts)


@settings(deadline=None, derandomize=True, max_examples=150)
@given(values=values, seed=st.integers(0, 2**32))
def test_changed_bytes_are_refused_or_read_as_decoded(values: list[str], seed: int) -> None:
    template, dice = template_of(values), random.Random(seed)
    texts = []
    for _ in range(60):
        text = bytearray(alike(template, dice))
        places = [place for span in template.spans.values() for place in range(*span)]
        for _ in range(dice.choice((1, 1, 2, 4))):
            place = dice.choice((dice.choice(places), dice.randrange(len(text))))
            text[place] = dice.choice((*b'0019.-+eE "\\:/', 0x80, 0xFF, dice.randrange(256)))
        texts.append(bytes(text))
    read_only_as_decoded(template, texts)


TRADE = template_of(['"x7"', "1723161255343", "1", '"61837.63000000"', '"0.02"', "3735683260", '"abc"'])


def may_stand(text: bytes, place: int, byte: int) -> bool:
    """Tell whether a byte may stand at a place of ``TRADE``: a digit, where digits may differ, and no 0 before others."""
    if text[place] == byte:
        return True
    for begin, end in TRADE.spans.values():
        if begin <= place < end and bytes([byte]).isdigit() and text[place] != ord("."):
            whole_end = begin + len(text[begin:end].partition(b".")[0])
            if place >= whole_end:
                return True
            begins_with_0 = byte == ord("0") and place == begin and whole_end - begin > 1
            return place >= whole_end - 8 and not begins_with_0
    return False


@pytest.mark.parametrize("behind", [b"", b"\xff", b"\x80", b"\x09", b"\x00"])
def test_any_byte_at_any_place_is_refused_unless_it_is_a_digit_among_digits(behind: bytes) -> None:
    texts, expected = [], 0
    for place in range(len(TRADE.text) - len(behind)):
        for byte in range(256):
            text = bytearray(TRADE.text)
            text[place] = byte
            # What one byte carries over must not let the next one pass.
            text[place + 1 : place + 1 + len(behind)] = behind
            texts.append(bytes(text))
            expected += not behind and may_stand(TRADE.text, place, byte)
    assert read_only_as_decoded(TRADE, texts) == expected


def test_quotients_are_the_nearest_there_are() -> None:
    dice = random.Random(7)
    for whole in range(1, EXACT_DIGITS):
        for places in range(1, min(8, EXACT_DIGITS - whole) + 1):
            made = template_of([f'"{digits(dice, whole)}.{"".join(dice.choices("0123456789", k=places))}"'])
            texts = [alike(made, dice) for _ in range(100)]
            found = laid(made, texts)
            begin, end = made.spans["k0"]
            assert [bits(one or []) for one in found] == [bits([float(text[begin:end])]) for text in texts]


@pytest.mark.parametrize("count", range(1, 19))
def test_numbers_without_a_fraction_are_read_as_integers_and_as_decimals(count: int) -> None:
    dice = random.Random(count)
    made = template_of([digits(dice, count)])
    stencil = Stencil(made.text, made.spans)
    texts = [alike(made, dice) for _ in range(100)]
    block = b"".join(texts) + BEHIND
    numbers, fits = stencil.lay(block, np.arange(100, dtype=np.intp) * stencil.length)
    expected = [int(text[slice(*made.spans["k0"])]) for text in texts]
    assert fits is None
    assert numbers.integers("k0").tolist() == expected
    assert numbers.decimals("k0").tolist() == [float(one) for one in expected]


def test_numbers_may_stand_side_by_side() -> None:
    stencil = Stencil(b"12345", {"a": (0, 2), "b": (2, 3), "c": (3, 5)})
    numbers, fits = stencil.lay(b"98765" + BEHIND, np.zeros(1, np.intp))
    assert fits is None
    assert [int(numbers.integers(name)[0]) for name in "abc"] == [98, 7, 65]


@pytest.mark.parametrize(
    ("text", "other", "fits"),
    [
        ("12", "02", False),
        ("1", "0", True),
        ("1.5", "0.0", True),
        ("10.5", "00.5", False),
        ("12345678", "01234567", False),
        ("123456789", "023456789", False),
        ("123456789", "100000000", True),
        ("123456789", "223456789", False),
        ("1234567890.12", "1200000000.99", True),
        ("1234567890.12", "1300000000.99", False),
    ],
)
def test_what_a_number_may_become(text: str, other: str, fits: bool) -> None:
    made = template_of([f'"{text}"'])
    assert read_only_as_decoded(made, [f'{{"k0":"{other}"}}'.encode()]) == fits


def test_a_text_without_numbers_fits_itself_alone() -> None:
    stencil = Stencil(b"abcdefghi", {})
    block = b"abcdefghiabcdefghxabcdefghi" + BEHIND
    _, fits = stencil.lay(block, np.arange(3, dtype=np.intp) * 9)
    assert fits is not None
    assert fits.tolist() == [True, False, True]


@pytest.mark.parametrize(
    "text",
    [
        *("", "01", "00", "1.", ".5", "-1", "+1", "1e5", "1E5", " 1", "1 ", "0x1", "1.2.3", "1_0", "NaN"),
        *("1.123456789", "12345678.12345678", "1234567890123456.1", "1234567890123456789"),
    ],
)
def test_what_cannot_be_read_exactly_is_not_cut(text: str) -> None:
    whole = f'"{text}"'.encode()
    assert cut(whole, {"n": (1, len(whole) - 1)}) is None
    with pytest.raises(ValueError, match=r"is no number|too many digits"):
        Stencil(whole, {"n": (1, len(whole) - 1)})


@pytest.mark.parametrize("text", ["0", "9" * 18, "1234567.12345678", "12345678901234.5", "0.12345678"])
def test_what_can_be_read_exactly_is_cut(text: str) -> None:
    whole = f'"{text}"'.encode()
    assert cut(whole, {"n": (1, len(whole) - 1)}) is not None
