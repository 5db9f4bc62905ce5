"""Files that are made anew each time: the new one takes the place of the old one at one stroke, or not at all."""

from __future__ import annotations

import contextlib
import os
import secrets
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def replace_file(path: Path, data: bytes) -> None:
    """Write ``data`` to ``path``, durably; whoever reads meanwhile sees the old file or the new one. It blocks on the disk.

    Raises:
        OSError: the old file, if there is one, is as it was.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):  # What cannot be removed is hidden; the error is what matters.
            temporary.unlink(missing_ok=True)
        raise
