"""What of the journal is no entry any more is kept, for whoever can read it; it goes nowhere by itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harvest.storage.filesystem import Filesystem

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
        directory.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.tmp")
        temporary.write_bytes(filesystem.read(damage.path)[damage.start : damage.end])
        filesystem.rename(temporary, path)
        filesystem.fsync_directory(directory)
