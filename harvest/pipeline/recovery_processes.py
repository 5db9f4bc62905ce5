"""The slices of a dead run, each in a process: what they share is the data directory, and that no two make the same row.

A process that is killed has lost nothing: what it has published is whole, and its slice is done again here.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from contextlib import suppress
from itertools import dropwhile
from typing import TYPE_CHECKING, NamedTuple

import attrs

from harvest.errors import HarvestError, StorageError
from harvest.parent import end_with_parent_process
from harvest.pipeline.journal_records import decode_record
from harvest.pipeline.recover import RecoveryReport, RunFacts, Slice, recover
from harvest.storage.catalog import scan
from harvest.storage.files import DataDirectory
from harvest.storage.journal import FIRST_KIND, read_run_from
from harvest.venues import VENUES

if TYPE_CHECKING:
    from collections.abc import Sequence
    from multiprocessing.connection import Connection
    from multiprocessing.context import SpawnProcess
    from pathlib import Path

    from harvest.storage.filesystem import Filesystem
    from harvest.storage.journal import SegmentFile
    from harvest.storage.parquet import Provenance

#: Of the machine, for each process: one takes about a third of that, and the run beside it wants some.
JOB_MEMORY_BYTES = 2**30


@attrs.frozen
class Work:
    """All that it takes to recover a run. ``venue`` is the name of what decodes it, which rows need not lie under."""

    root: Path
    venue: str
    provenance: Provenance
    facts: RunFacts
    segments: list[SegmentFile]
    first_seq: int
    filesystem: Filesystem
    seal_bytes: int


class _Child(NamedTuple):
    part: Slice
    process: SpawnProcess
    outcome: Connection


def most_jobs() -> int:
    """Return how many processes may share a recovery on this machine: one a core, as long as each has ``JOB_MEMORY_BYTES``."""
    cores = os.cpu_count() or 1
    try:
        memory_bytes = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):  # Windows does not say so here.
        return cores
    return max(min(cores, memory_bytes // JOB_MEMORY_BYTES), 1)


def recover_slices(work: Work, parts: Sequence[Slice]) -> RecoveryReport:
    """Recover the slices of one run at once, the first in this process; returns what became of them together.

    Where one fails the others go on to their ends.

    Raises:
        OSError: the disk has refused one of them.
        HarvestError: one of them could not be recovered.
    """
    context = multiprocessing.get_context("spawn")  # Not fork: the caller may have threads.
    children: list[_Child] = []
    ours, *others = parts
    try:
        for part in others:
            receiving, sending = context.Pipe(duplex=False)
            process = context.Process(target=_recover_there, args=(work, part, sending), daemon=True)
            process.start()
            sending.close()
            children.append(_Child(part, process, receiving))
        outcomes = [_attempt(work, ours)]
        for child in children:
            try:
                outcomes.append(child.outcome.recv())
            except EOFError:
                outcomes.append(_attempt(work, child.part))
    finally:
        for child in children:
            child.process.kill()
            child.process.join()
            child.outcome.close()
    return _together(outcomes)


def _together(outcomes: Sequence[RecoveryReport | OSError | HarvestError]) -> RecoveryReport:
    errors = [outcome for outcome in outcomes if not isinstance(outcome, RecoveryReport)]
    if errors:
        # What cannot be recovered at all is not tried again because of the disk.
        raise next((error for error in errors if not isinstance(error, OSError)), errors[0])
    reports = [outcome for outcome in outcomes if isinstance(outcome, RecoveryReport)]
    for other in reports[1:]:
        reports[0].add(other)
    return reports[0]


def _attempt(work: Work, part: Slice) -> RecoveryReport | OSError | HarvestError:
    try:
        return _recover_slice(work, part)
    except (OSError, HarvestError) as error:
        return error


def _recover_slice(work: Work, part: Slice) -> RecoveryReport:
    entries = (entry for entry in read_run_from(work.segments, part.from_seq) if entry.kind >= FIRST_KIND)
    ours = dropwhile(lambda entry: entry.seq < part.from_seq, entries)
    return recover(
        map(decode_record, ours),
        venue=VENUES[work.venue],
        facts=work.facts,
        catalog=scan(work.root, work.provenance.venue),
        directory=DataDirectory(work.root, filesystem=work.filesystem),
        provenance=work.provenance,
        part=part,
        first_seq=work.first_seq,
        seal_bytes=work.seal_bytes,
    )


def _recover_there(work: Work, part: Slice, outcome: Connection) -> None:
    """Recover a slice in a process that was started for it."""
    end_with_parent_process()
    # A Ctrl-C at the terminal is the parent's to judge.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    result = _attempt(work, part)
    if isinstance(result, HarvestError):
        # As text: not every error can be sent whole.
        result = StorageError(str(result))
    with suppress(BrokenPipeError):  # The parent has just ended, and so do we.
        outcome.send(result)
