"""Blocks of Binance's diffs, read by stencils: what stands before the levels of each, and level by level."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec
import numpy as np

from harvest.errors import MalformedMessageError
from harvest.market import DIFF, DiffRun
from harvest.venues import blocks
from harvest.venues.binance_events import EVENT_WITHIN, number_spans, symbol_keys, tail_names
from harvest.venues.binance_wire import WireLevel
from harvest.venues.looks import Looks, Trials
from harvest.venues.stencil import Stencil, cut

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from harvest.market import BookDiff
    from harvest.venues.looks import Places
    from harvest.venues.stencil import Numbers, Span

    Integers = NDArray[np.int64]
    Floats = NDArray[np.float64]

#: Blocks with fewer diffs are decoded otherwise.
LEAST_DIFFS = 48
#: Diffs of one book from which on it is worth to follow them at once.
LEAST_HEADS = 40
#: Levels have to look alike in such numbers for a stencil, and one in so many may be decoded alone.
LEAST_LEVELS, ALONE = 64, 32
#: No level is longer, and nothing that stands before levels.
MOST_LEVEL_BYTES, MOST_HEAD_BYTES = 64, 1024
#: No integer of a diff has more digits: with one more a time may be later than the decoder takes.
MOST_DIGITS = 16
#: Behind the last diff, for what reads beyond it.
PADDING = 64
#: The fields of a diff that are integers, by their names on the wire.
FIELDS: Final = {
    "event_time": "E",
    "trade_time": "T",
    "first_update_id": "U",
    "last_update_id": "u",
    "prev_update_id": "pu",
}
_NAMES = frozenset((*FIELDS.values(), "e", "s", "b", "a"))
_OPEN, _CLOSE, _COMMA = b"[],"
_LEVEL = re.compile(rb'"([0-9.]+)","([0-9.]+)"')
_BETWEEN = Stencil(b',"a":', {})
_decode_level = msgspec.json.Decoder(WireLevel, strict=False).decode


class HeadLook(NamedTuple):
    """How diffs of one book look before their levels; ``fields`` are those that are there."""

    stencil: Stencil
    symbol: str
    fields: tuple[str, ...]


class LevelLook(NamedTuple):
    """How levels look."""

    stencil: Stencil


class Lists(NamedTuple):
    """The lists of levels in a block: of each the bracket that opens it, the one that closes it, and how many levels it has.

    Of each level, where its text begins and how long that is.
    """

    opened: Places
    closed: Places
    counts: Integers
    starts: Places
    lengths: Integers


def find_lists(block: NDArray[np.uint8]) -> Lists | None:
    """Find the lists of levels; None where brackets stand otherwise than around levels, separated by commas, in lists."""
    at = np.flatnonzero(((block - np.uint8(_OPEN)) & np.uint8(0xFF - (_CLOSE - _OPEN))) == 0)
    opens = block[at] == _OPEN
    gaps = at[1:] - at[:-1] - 1
    # A level is what stands between an opening bracket and the closing one that comes next.
    is_level = opens[:-1] & ~opens[1:] & (gaps > 0)
    levels, opened = np.flatnonzero(is_level), np.flatnonzero(opens[:-1] & ~is_level)
    if not len(opened):
        return None
    counts = np.diff(np.append(np.searchsorted(levels, opened), len(levels)))
    some = counts > 0
    closed = opened + 1 + 2 * counts
    is_whole = (
        opened[0] == 0
        and closed[-1] == len(at) - 1
        and not opens[-1]
        and (closed[:-1] + 1 == opened[1:]).all()
        # A list's first level begins where it does, its last one ends where it does, and between them there are commas.
        and not gaps[opened[some]].any()
        and not gaps[closed[some] - 1].any()
        and np.count_nonzero(block[at[levels + 1] + 1] == _COMMA) == len(levels) - np.count_nonzero(some)
        and (gaps[levels + 1] < 2).all()
    )
    return Lists(at[opened], at[closed], counts, at[levels] + 1, gaps[levels]) if is_whole else None


class DiffReader:
    """Reads blocks of diffs; ``decode`` is the venue's, for one message.

    It remembers how diffs and levels look, and for how long to leave blocks alone: nothing that decides what is read.
    """

    def __init__(self, decode: Callable[[bytes], Any]) -> None:
        self._decode = decode
        self._heads: Looks[HeadLook] = Looks(self._learn_head, least=LEAST_HEADS, alone=ALONE)
        self._levels: Looks[LevelLook] = Looks(_learn_level, least=LEAST_LEVELS, alone=ALONE)
        self._tail: tuple[bytes, Stencil] | None = None
        self._trials = Trials()

    def read(self, lines: bytes) -> list[DiffRun] | None:
        """Return the diffs of a block in one piece, a run a book; None where it is to be decoded otherwise."""
        # Most blocks hold trades: the first bytes tell.
        if lines.find(b'"depthUpdate"', 0, EVENT_WITHIN) < 0 or not self._trials.may():
            return None
        starts, ends = blocks.bounds(lines)
        if len(starts) < LEAST_DIFFS:
            return None
        runs = self._read(lines + bytes(PADDING), starts, ends)
        self._trials.ended(well=runs is not None)
        return runs

    def _read(self, block: bytes, starts: Places, ends: Places) -> list[DiffRun] | None:
        lists = find_lists(np.frombuffer(block, np.uint8))
        if lists is None or len(lists.opened) != 2 * len(starts):
            return None
        opened, closed = lists.opened.reshape(-1, 2), lists.closed.reshape(-1, 2)
        heads = opened[:, 0] - starts
        if heads.min() < 0 or heads.max() > MOST_HEAD_BYTES or (closed[:, 1] >= ends).any():
            return None
        tail = self._tail_like(block[starts[0] : opened[0, 0]], block[closed[0, 1] + 1 : ends[0]])
        if tail is None or not _are_all(tail, block, closed[:, 1] + 1, ends):
            return None
        if not _are_all(_BETWEEN, block, closed[:, 0] + 1, opened[:, 1]):
            return None
        found = self._heads.find(block, starts, heads, symbol_keys(block, starts))
        if found is None or found[1]:
            return None
        diffs = _Heads(len(starts))
        for look, places, numbers in found[0]:
            diffs.add(look, places, numbers)
        levels = self._read_levels(block, lists) if diffs.are_of_one_look_each else None
        return None if levels is None else diffs.runs(lists.counts, *levels)

    def _tail_like(self, head: bytes, text: bytes) -> Stencil | None:
        """Return the stencil of what stands behind the levels of a diff; None where that is malformed, or might say more of it."""
        if self._tail is None or self._tail[0] != text:
            names = tail_names(text)
            # Of two fields of one name the decoder takes the last.
            if names is None or len(names) != len(set(names)) or not _NAMES.isdisjoint(names):
                return None
            if self._decode_diff(head + b'[],"a":[]' + text) is None:
                return None
            self._tail = text, Stencil(text, {})
        return self._tail[1]

    def _learn_head(self, text: bytes) -> HeadLook | None:
        spans = number_spans(text + b'0,"a":0}}')
        diff = self._decode_diff(text + b'[],"a":[]}}')
        if spans is None or diff is None or not text.endswith(b',"b":'):
            return None
        fields = {field: getattr(diff, field, None) for field in FIELDS}
        there = tuple(field for field, value in fields.items() if value is not None)
        stencil = None
        if all(_is_plain(text, spans.get(FIELDS[field])) for field in there):
            stencil = cut(text, {name: span for name, span in spans.items() if name not in "ba"})
        if stencil is None:
            return None
        numbers = stencil.read(text)
        # It must read from its own text what the decoder does.
        is_right = numbers is not None and all(
            numbers.integers(FIELDS[field])[0] == fields[field] for field in there
        )
        return HeadLook(stencil, diff.symbol, there) if is_right else None

    def _decode_diff(self, text: bytes) -> BookDiff | None:
        try:
            diff = self._decode(text)
        except MalformedMessageError:
            return None
        return diff if diff.shape == DIFF else None

    def _read_levels(self, block: bytes, lists: Lists) -> tuple[Floats, Floats] | None:
        px, qty = np.empty(len(lists.starts)), np.empty(len(lists.starts))
        if len(px) and lists.lengths.max() > MOST_LEVEL_BYTES:
            return None
        found = self._levels.find(block, lists.starts, lists.lengths)
        if found is None:
            return None
        for _, places, numbers in found[0]:
            px[places], qty[places] = numbers.decimals("px"), numbers.decimals("qty")
        for place in found[1]:
            start = int(lists.starts[place])
            level = _decode_alone(block[start : start + int(lists.lengths[place])])
            if level is None:
                return None
            px[place], qty[place] = level
        return px, qty


def _are_all(stencil: Stencil, block: bytes, starts: Places, ends: Places) -> bool:
    """Tell whether the texts between bounds all look alike."""
    return not (ends - starts != stencil.length).any() and stencil.lay(block, starts)[1] is None


def _is_plain(text: bytes, span: Span | None) -> bool:
    """Tell whether what stands there is an integer that stays within its bounds whatever its digits are."""
    return span is not None and span[1] - span[0] <= MOST_DIGITS and text[slice(*span)].isdigit()


def _decode_alone(text: bytes) -> tuple[float, float] | None:
    try:
        level: tuple[float, float] = _decode_level(b"[" + text + b"]")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return level


def _learn_level(text: bytes) -> LevelLook | None:
    found, level = _LEVEL.fullmatch(text), _decode_alone(text)
    stencil = None if found is None else cut(text, {"px": found.span(1), "qty": found.span(2)})
    if level is None or stencil is None:
        return None
    numbers = stencil.read(text)
    if numbers is None or (numbers.decimals("px")[0], numbers.decimals("qty")[0]) != level:
        return None
    return LevelLook(stencil)


class _Heads:
    """What stands before the levels of the diffs of a block, as it is found."""

    def __init__(self, count: int) -> None:
        self._columns = {field: np.empty(count, np.int64) for field in FIELDS}
        self._owners: list[tuple[str, tuple[str, ...]]] = []
        self._of = np.empty(count, np.int16)

    def add(self, look: HeadLook, places: Places, numbers: Numbers) -> None:
        """Take the fields of the diffs at ``places``."""
        owner = look.symbol, look.fields
        if owner not in self._owners:
            self._owners.append(owner)
        self._of[places] = self._owners.index(owner)
        for field in look.fields:
            self._columns[field][places] = numbers.integers(FIELDS[field])

    @property
    def are_of_one_look_each(self) -> bool:
        """Tell whether diffs of one symbol have the same fields."""
        return len(dict(self._owners)) == len(self._owners)

    def runs(self, counts: Integers, px: Floats, qty: Floats) -> list[DiffRun]:
        """Return the diffs of each owner in their order; ``counts`` are those of both sides in turn, as are the levels."""
        count = len(self._of)
        # The lists by owner and side, within these in their order.
        order = np.lexsort((np.tile([0, 1], count), np.repeat(self._of, 2)))
        before = np.cumsum(counts) - counts
        moved = counts[order]
        levels = np.repeat(before[order] - np.cumsum(moved) + moved, moved) + np.arange(len(px))
        px, qty = px[levels], qty[levels]
        runs, done = [], 0
        for index, (symbol, fields) in enumerate(self._owners):
            ours = self._of == index
            columns: dict[str, Any] = {
                field: self._columns[field][ours] if field in fields else None for field in FIELDS
            }
            sides: list[Any] = []
            for side in range(2):
                of_side = counts[side::2][ours]
                here = slice(done, done + int(of_side.sum()))
                sides += [of_side, px[here], qty[here]]
                done = here.stop
            runs.append(DiffRun(symbol, *columns.values(), *sides))
        return runs
