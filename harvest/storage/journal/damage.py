"""What of the journal is no entry any more is kept, for whoever can read it; it goes nowhere by itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harvest.storage.directories import make_directories
from harvest.storage.filesystem import Filesystem
from harvest.storage.replacing import replace_file

if TYPE_CHECKING:
    from pathlib import Path

    from harvest.storage.journal.reading import RunContents


def keep_damage(root: Path, contents: RunContents, *, filesystem: Filesystem | None = None) -> None:
    """Copy the damaged bytes of a run, which has been read to its end, to ``<root>/_quarantine``, a file a place.

    Raises:
        OSError: some of them are not there; call again.
    """
    filesystem = filesystem or Filesystem()
    directory = root / "_quarantine"
    for damage in contents.damage:
        path = directory / f"{damage.path.stem}-{damage.start}-{damage.end}.bytes"
        if filesystem.exists(path):
            continue
        make_directories(directory, filesystem)
        # The segment goes soon after: what is kept of it must be on the medium by then.
        damaged = memoryview(filesystem.read(damage.path))[damage.start : damage.end]
        replace_file(path, damaged, filesystem=filesystem)
