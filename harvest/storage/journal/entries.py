"""What a segment is made of: entries, each one framed so that it can be told from damage.

An entry is a marker, the length of what follows the CRC, the CRC32 of that, and then: one byte of kind, the ``seq``, the body.
"""

from __future__ import annotations

import struct
from typing import NamedTuple
from zlib import crc32

from harvest.errors import StorageError

#: Begins each entry. 0xFF stands in no UTF-8, so that it is in no message of a venue.
MARKER = b"\xffhj1"
_PREFIX = struct.Struct("<4sII")
_HEAD = struct.Struct("<BQ")
_BODY_AT = _PREFIX.size + _HEAD.size
_LOST = struct.Struct("<QQ")

#: The kinds that the journal itself writes; those of its caller begin at ``FIRST_KIND``.
HEADER = 0
LOST = 1
FIRST_KIND = 16
LAST_KIND = 255


class JournalError(StorageError):
    """A journal that this version of harvest cannot make sense of."""


class Entry(NamedTuple):
    """One entry, as it was appended."""

    kind: int
    seq: int
    body: bytes


def frame(kind: int, seq: int, body: bytes) -> tuple[bytes, int]:
    """Return what stands before ``body`` in the file, and the bytes of the whole entry."""
    head = _HEAD.pack(kind, seq)
    lead = _PREFIX.pack(MARKER, _HEAD.size + len(body), crc32(body, crc32(head))) + head
    return lead, _BODY_AT + len(body)


def entry_end(data: memoryview, position: int) -> int | None:
    """Return where the entry at ``position`` ends; None if there is no whole, unharmed one."""
    if len(data) - position < _BODY_AT:
        return None
    marker, length, crc = _PREFIX.unpack_from(data, position)
    start = position + _PREFIX.size
    end: int = start + length
    if marker != MARKER or length < _HEAD.size or end > len(data) or crc32(data[start:end]) != crc:
        return None
    return end


def entry_at(data: memoryview, position: int, end: int) -> Entry:
    """Return the entry between two places that ``entry_end`` has told."""
    kind, seq = _HEAD.unpack_from(data, position + _PREFIX.size)
    return Entry(kind, seq, bytes(data[position + _BODY_AT : end]))


def encode_lost(last_seq: int, count: int) -> bytes:
    """Make the body of a ``LOST`` entry, whose ``seq`` is the first that was let go: the last one, and how many they were."""
    return _LOST.pack(last_seq, count)


def decode_lost(body: bytes) -> tuple[int, int]:
    """Undo ``encode_lost``."""
    last_seq, count = _LOST.unpack(body)
    return last_seq, count
