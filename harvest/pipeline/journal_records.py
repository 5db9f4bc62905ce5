"""Records as entries of the journal, and back.

An entry's body is the record in msgpack: an array of its fields, in the order of ``records.py``. New fields go to the end of a
class, with a default, so that older journals can be read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from harvest.pipeline.records import (
    AuditBegun,
    AuditBody,
    ChannelBody,
    Checkpoint,
    Closed,
    Frames,
    Opened,
    Overload,
    Resumed,
    SnapshotBody,
    Symbols,
    TradesBody,
    Unserved,
)
from harvest.storage.journal import JournalError

if TYPE_CHECKING:
    from harvest.pipeline.records import Record
    from harvest.storage.journal import Entry

#: The kind of entry of each record. A number is never used again for something else.
KINDS: Final[dict[type[Record], int]] = {
    Frames: 16,
    SnapshotBody: 17,
    TradesBody: 18,
    Unserved: 19,
    Opened: 20,
    Closed: 21,
    Overload: 22,
    Checkpoint: 23,
    AuditBegun: 24,
    AuditBody: 25,
    ChannelBody: 26,
    Symbols: 27,
    Resumed: 28,
}
_encode = msgspec.msgpack.Encoder().encode
_decoders = {kind: msgspec.msgpack.Decoder(record_type) for record_type, kind in KINDS.items()}


def encode_record(record: Record) -> tuple[int, int, bytes]:
    """Return the kind, the ``seq`` and the body of a record's entry."""
    return KINDS[type(record)], record.seq, _encode(record)


def decode_record(entry: Entry) -> Record:
    """Undo ``encode_record``.

    Raises:
        JournalError: it is no record that this version knows.
    """
    decoder = _decoders.get(entry.kind)
    if decoder is None:
        raise JournalError(
            f"entry {entry.seq} of the journal is of the kind {entry.kind}, which is no record"
        )
    try:
        return decoder.decode(entry.body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise JournalError(f"entry {entry.seq} of the journal cannot be understood: {error}") from error
