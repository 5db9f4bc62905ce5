"""Texts that differ in nothing but digits, read all at once.

A venue writes its messages by one form, and those of one instrument differ in the digits of their numbers alone. A stencil is cut from one
of them, and laid on many: what is not a digit must be the same byte for byte, and what may differ must be a digit. So nothing is read that the
decoder would read otherwise: what a stencil does not fit is left to the decoder.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

Span = tuple[int, int]
"""Where a number stands in a text: its first character, and the one after its last."""

#: Digits that are read at once.
_WORD = 8
_ROW_WORDS = 64
#: Fewer bytes than these are read beyond the end of a text.
REACH = _WORD
#: Numbers of at most so many digits are exact as float64, and so is what a power of ten makes of them by one division.
EXACT_DIGITS = 15
_NUMBER = re.compile(rb"(0|[1-9][0-9]*)(?:\.([0-9]+))?")
_ANY_BYTE, _NO_DIGIT, _DIGIT = 0x00, 0x7F, 0x76
_HIGH_BITS = np.uint64(0x8080808080808080)
#: Two digits become one number, then two of these, then two of these: the digits of a word, the first in its lowest byte.
_STEPS = (
    (np.uint64(10 << 8 | 1), np.uint64(8), np.uint64(0x00FF00FF00FF00FF)),
    (np.uint64(100 << 16 | 1), np.uint64(16), np.uint64(0x0000FFFF0000FFFF)),
    (np.uint64(10_000 << 32 | 1), np.uint64(32), np.uint64(0xFFFFFFFF)),
)


class _Part(NamedTuple):
    """At most eight digits of a number: the word they are in, and by how many bits it is moved to bare them."""

    offset: int
    up: int
    bare: int
    #: What it has to be at least, for its first digit not to be 0: JSON knows no number that begins with one.
    least: int


class _Number(NamedTuple):
    """A number of a text: ``lead`` is what digits before the last eight of its whole part make, which are the same in all texts."""

    whole: int
    lead: int
    fraction: int | None
    places: int


class Stencil:
    """Reads the numbers of all texts that look like one; ``spans`` says where they stand in it, by name.

    Raises:
        ValueError: one of these is not a number that can be read exactly.
    """

    def __init__(self, text: bytes, spans: Mapping[str, Span]) -> None:
        #: Of each text, in bytes.
        self.length = len(text)
        self._count = -(-len(text) // _WORD)
        self._size = self._count * _WORD
        fixed = bytearray(text.ljust(self._size, b"\0"))
        limits = bytearray([_NO_DIGIT] * len(text)).ljust(self._size, bytes([_ANY_BYTE]))
        parts: list[tuple[Span, int]] = []
        self._numbers: dict[str, _Number] = {}
        for name, (begin, end) in spans.items():
            number, spent = _parse(text[begin:end])
            whole_end = begin + spent
            whole_begin = max(begin, whole_end - _WORD)
            has_lead = whole_begin > begin
            digits = whole_end - whole_begin
            parts.append(((whole_begin, whole_end), 0 if has_lead or digits == 1 else 10 ** (digits - 1)))
            fraction = None
            if number.places:
                fraction = len(parts)
                parts.append(((end - number.places, end), 0))
            self._numbers[name] = number._replace(
                whole=len(parts) - 1 - bool(number.places), fraction=fraction
            )
            for part, _ in parts[-2:] if number.places else parts[-1:]:
                fixed[slice(*part)] = b"0" * (part[1] - part[0])
                limits[slice(*part)] = bytes([_DIGIT]) * (part[1] - part[0])
        #: Short texts are looked at several in a row: numpy is slow over short rows.
        self._abreast = -(-_ROW_WORDS // self._count)
        # As one number, with 0 for each digit that may be another.
        self._alike = int.from_bytes(bytes(0xFF if limit == _NO_DIGIT else 0 for limit in limits), "little")
        self._same = int.from_bytes(fixed, "little") & self._alike
        self._fixed = np.frombuffer(bytes(fixed) * self._abreast, "<u8")
        self._limits = np.frombuffer(bytes(limits) * self._abreast, "<u8")
        beyond = 8 * (self._size - len(text))
        self._last_mask = np.uint64((1 << 64) - 1 >> beyond)
        self._parts = [_part(span, least, limits) for span, least in parts]
        self._least = np.array([part.least for part in self._parts], np.uint64).reshape(-1, 1)

    def is_like(self, text: bytes) -> bool:
        """Tell whether a text is the same but for the digits; whether these are digits it does not tell."""
        return len(text) == self.length and int.from_bytes(text, "little") & self._alike == self._same

    def read(self, text: bytes) -> Numbers | None:
        """Read one text; None where it does not fit."""
        numbers, fits = self.lay(text + bytes(REACH), np.zeros(1, np.intp))
        return numbers if fits is None else None

    def lay(self, block: bytes, starts: NDArray[np.int64]) -> tuple[Numbers, NDArray[np.bool_] | None]:
        """Read the texts of a block that begin at ``starts``, of the length of this one, with ``REACH`` bytes behind each.

        Returns their numbers, and which of them are what this stencil fits: None if all are. Those of others mean nothing.
        """
        size = self._size
        windows = np.ndarray((len(block) - size + 1,), f"V{size}", block, strides=(1,))
        words = windows[starts].view("<u8").reshape(-1, self._count)
        # Where the texts are alike, nothing is left but the values of the digits.
        self._abreast_of(words, np.bitwise_xor, self._fixed, words)
        words[:, -1] &= self._last_mask
        # The highest bit of a byte tells that it is more than it may be.
        beyond = np.empty_like(words)
        self._abreast_of(words, np.add, self._limits, beyond)
        beyond |= words
        beyond &= _HIGH_BITS
        misfits = np.zeros(len(starts), np.bool_)
        if beyond.any():
            misfits |= beyond.any(axis=1)
        values = np.empty((len(self._parts), len(starts)), np.uint64)
        for value, part in zip(values, self._parts, strict=True):
            word = np.ndarray((len(starts),), "<u8", words, part.offset, (size,))
            if part.up:
                np.left_shift(word, np.uint64(part.up), out=value)
            else:
                value[:] = word
            if part.bare:
                value >>= np.uint64(part.bare)
                value <<= np.uint64(part.bare)
        for factor, shift, mask in _STEPS:
            values *= factor
            values >>= shift
            values &= mask
        small = values < self._least
        if small.any():
            misfits |= small.any(axis=0)
        return Numbers(values, self._numbers), ~misfits if misfits.any() else None

    def _abreast_of(
        self,
        words: NDArray[np.uint64],
        operation: np.ufunc,
        constants: NDArray[np.uint64],
        out: NDArray[np.uint64],
    ) -> None:
        """Apply an operation to the words of all texts and those of ``constants``, which are the same for each text."""
        even = len(words) - len(words) % self._abreast
        shape = (-1, len(constants))
        operation(words[:even].reshape(shape), constants, out=out[:even].reshape(shape))
        operation(words[even:], constants[: self._count], out=out[even:])


class Numbers:
    """The numbers of texts, one a text."""

    __slots__ = ("_numbers", "_values")

    def __init__(self, values: NDArray[np.uint64], numbers: dict[str, _Number]) -> None:
        self._values, self._numbers = values, numbers

    def only(self, which: NDArray[np.bool_]) -> Numbers:
        """Return those of some texts."""
        return Numbers(self._values[:, which], self._numbers)

    def integers(self, name: str) -> NDArray[np.int64]:
        """Return the numbers of a name that have no fraction."""
        number = self._numbers[name]
        whole: NDArray[np.int64] = self._values[number.whole].view(np.int64)
        return whole + number.lead

    def decimals(self, name: str) -> NDArray[np.float64]:
        """Return the numbers of a name, each the nearest there is."""
        number = self._numbers[name]
        whole = self.integers(name)
        if number.fraction is None:
            return whole.astype(np.float64)
        scale = 10**number.places
        units = whole * scale
        units += self._values[number.fraction].view(np.int64)
        # Both are exact, so that the quotient is what a decimal text is read as.
        found: NDArray[np.float64] = units / float(scale)
        return found


def _parse(text: bytes) -> tuple[_Number, int]:
    """Return what is to know of a number but the places of its parts, and how many digits its whole part has."""
    found = _NUMBER.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} is no number")
    whole, fraction = found[1], found[2] or b""
    if len(whole) + len(fraction) > (EXACT_DIGITS if fraction else 18) or len(fraction) > _WORD:
        raise ValueError(f"{text!r} has too many digits")
    lead = int(whole[:-_WORD] or b"0") * 10**_WORD
    return _Number(0, lead, None, len(fraction)), len(whole)


def _part(span: Span, least: int, limits: bytearray) -> _Part:
    begin, end = span
    offset = max(end - _WORD, 0)
    up = 8 * (_WORD - (end - offset))
    # Digits of other numbers that stand before it in the same word; all else there is 0.
    has_others = _DIGIT in limits[offset:begin]
    return _Part(offset, up, 8 * (_WORD - (end - begin)) if has_others else 0, least)


def cut(text: bytes, spans: Mapping[str, Span]) -> Stencil | None:
    """Return a stencil of a text, None where its numbers cannot be read exactly."""
    try:
        return Stencil(text, spans)
    except ValueError:
        return None
