"""Binance's events in the combined envelope, as texts: where the numbers of a flat one stand."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from harvest.venues.stencil import Span

#: The name of an event stands within so many bytes: symbols have 64 characters at most.
EVENT_WITHIN = 384
_BEFORE_STREAM = b'{"stream":"'
_VALUE = rb'"[^"\\]*"|[0-9]+|true|false|null'
_ONE_FIELD = rb'"[A-Za-z]+":(?:%b)' % _VALUE
#: A flat event in its envelope, without escapes.
_EVENT = re.compile(rb'\{"stream":"[^"\\]*","data":\{(%b(?:,%b)*)\}\}' % (_ONE_FIELD, _ONE_FIELD))
_FIELD = re.compile(rb'"([A-Za-z]+)":(?:"([^"]*)"|([^",]*))')
#: What may follow the last list of levels.
_TAIL = re.compile(rb"((?:,%b)*)\}\}" % _ONE_FIELD)
_NUMBER = re.compile(rb"[0-9]+(?:\.[0-9]+)?")
#: What is no number, though it may look like one: the decoder takes a digit for the truth of ``m``, too.
_TEXTS = frozenset(("e", "s", "X", "m"))


def number_spans(event: bytes) -> dict[str, Span] | None:
    """Return where the numbers of an event stand, by their names; None where it is written in a way that is not known."""
    found = _EVENT.fullmatch(event)
    if found is None:
        return None
    spans: dict[str, Span] = {}
    names: set[str] = set()
    for field in _FIELD.finditer(event, *found.span(1)):
        name, value = field[1].decode(), 3 if field[2] is None else 2
        if name in names:
            # Of two the decoder takes the last.
            return None
        names.add(name)
        if name not in _TEXTS and _NUMBER.fullmatch(field[value]):
            spans[name] = field.span(value)
    return spans


def symbol_keys(block: bytes, starts: NDArray[np.intp]) -> NDArray[np.uint64]:
    """Return numbers that are the same for events of one symbol: the first letters of their streams."""
    words = np.ndarray((len(block) - 7,), "<u8", block, strides=(1,))
    found: NDArray[np.uint64] = words[starts + len(_BEFORE_STREAM)]
    return found


def tail_names(tail: bytes) -> list[str] | None:
    """Return the names of the fields in what follows a list, to the end of an event; None where it is written in another way."""
    found = _TAIL.fullmatch(tail)
    return None if found is None else [field[1].decode() for field in _FIELD.finditer(found[1])]
