"""Where what is thrown away soon is written: in memory, if there is such a place."""

from __future__ import annotations

import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def fast_directory() -> Iterator[Path]:
    """Make a directory, and remove it."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(
        dir=memory if memory.is_dir() else None, prefix="harvest-faults-"
    ) as directory:
        yield Path(directory)
