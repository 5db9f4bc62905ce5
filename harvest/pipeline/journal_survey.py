"""What the journal of a dead run holds, seen at a glance: whether it is whole, and where its recovery may be shared.

A slice goes on with a symbol from a checkpoint. That is the state which the records before it give, so it makes no difference who goes on,
unless records are missing before it: what they hid is a break, and the book is suspect behind it, which no checkpoint knows. Nor does
one know what was kept of symbols that were removed.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict
from contextlib import suppress
from typing import TYPE_CHECKING

import attrs

from harvest.pipeline.checkpoint import CheckpointError, decode_state
from harvest.pipeline.journal_records import KINDS, decode_record
from harvest.pipeline.records import Checkpoint, Frames, Symbols
from harvest.pipeline.recover import Slice
from harvest.storage.journal import FIRST_KIND
from harvest.venues.blocks import payloads

if TYPE_CHECKING:
    from collections.abc import Iterable

    from harvest.pipeline.records import Record
    from harvest.storage.journal import Entry
    from harvest.venues.protocol import Venue

#: One block of frames in so many is looked into for how much there is of each symbol.
BLOCKS_A_SAMPLE = 64


@attrs.define
class Survey:
    """The records of a run's journal, counted; ``size_bytes`` is what they take."""

    records: int = 0
    first_seq: int = 0
    last_seq: int = 0
    size_bytes: int = 0
    #: Stretches of ``seq``, inclusive, of which there is no record.
    holes: list[tuple[int, int]] = attrs.Factory(list)
    #: The last record that says that symbols were added or removed.
    changed_seq: int = 0
    #: Of each symbol: the ``seq`` of its usable checkpoints, and the bytes of the records before each.
    checkpoints: dict[str, tuple[list[int], list[int]]] = attrs.Factory(lambda: defaultdict(lambda: ([], [])))
    #: Of a sample of the frames.
    frame_bytes: Counter[str] = attrs.Factory(Counter)

    def slices(self, count: int) -> list[Slice]:
        """Share the records among ``count`` slices of about the same size, or fewer where there are no checkpoints to begin with."""
        bounds: list[int] = []
        for number in range(1, count):
            bound = self._bound(self.size_bytes * number / count)
            if bound is not None and bound > (bounds[-1] if bounds else self.first_seq):
                bounds.append(bound)
        return [Slice(begin, end) for begin, end in zip([0, *bounds], [*bounds, None], strict=True)]

    def _bound(self, wanted_bytes: float) -> int | None:
        """Return the record from which on the symbols' next checkpoints are, on the average, behind so many bytes."""
        every = sorted(
            {seq for seqs, _ in self.checkpoints.values() for seq in seqs if seq > self.changed_seq}
        )
        if self.holes:
            every = every[: bisect_left(every, self.holes[0][0], key=self._reach)]
        place = bisect_left(every, wanted_bytes, key=self._bytes_before)
        near = every[max(place - 1, 0) : place + 1]
        return min(near, key=lambda seq: abs(self._bytes_before(seq) - wanted_bytes), default=None)

    def _reach(self, seq: int) -> int:
        """Return the last of the symbols' next checkpoints from ``seq`` on."""
        nexts = (seqs[bisect_left(seqs, seq) :][:1] for seqs, _ in self.checkpoints.values())
        return max(found[0] for found in nexts if found)

    def _bytes_before(self, seq: int) -> float:
        """Return how many bytes are before the symbols' next checkpoints from ``seq`` on, on the average."""
        total = weights = 0.0
        for symbol, (seqs, bytes_before) in self.checkpoints.items():
            place, weight = bisect_left(seqs, seq), self.frame_bytes[symbol] + 1
            total += weight * (bytes_before[place] if place < len(seqs) else self.size_bytes)
            weights += weight
        return total / weights


def survey(entries: Iterable[Entry], venue: Venue) -> Survey:
    """Look at all entries of a run once.

    Raises:
        JournalError: one of them is no record that this version knows.
    """
    found, blocks = Survey(), 0
    for entry in entries:
        if entry.kind < FIRST_KIND:
            continue
        if found.records and entry.seq > found.last_seq + 1:
            found.holes.append((found.last_seq + 1, entry.seq - 1))
        found.first_seq = found.first_seq or entry.seq
        found.last_seq = entry.seq
        found.records += 1
        if entry.kind == KINDS[Frames]:
            blocks += 1
            if blocks % BLOCKS_A_SAMPLE == 1:
                _weigh(decode_record(entry), venue, found.frame_bytes)
        elif entry.kind == KINDS[Checkpoint]:
            _note(decode_record(entry), found)
        elif entry.kind == KINDS[Symbols]:
            found.changed_seq = entry.seq
        found.size_bytes += len(entry.body)
    return found


def _weigh(record: Record, venue: Venue, frame_bytes: Counter[str]) -> None:
    assert isinstance(record, Frames)
    for frame in payloads(record.frames):
        symbol = venue.symbol_of(frame)
        if symbol is not None:
            frame_bytes[symbol] += len(frame)


def _note(record: Record, found: Survey) -> None:
    assert isinstance(record, Checkpoint)
    with suppress(CheckpointError):  # Nobody goes on from this one, and whoever recovers says so.
        decode_state(record.symbol, record.state)
        seqs, bytes_before = found.checkpoints[record.symbol]
        seqs.append(record.seq)
        bytes_before.append(found.size_bytes)
