"""Whether a directory can be written to or made, told without touching it."""

from __future__ import annotations

import os
import shutil
import stat
import sys
from pathlib import Path


def find_fault(directory: Path) -> str | None:
    """Say why files cannot be written below ``directory``, or None; it need not exist yet."""
    for place in (directory, *directory.parents):
        try:
            mode = os.stat(place).st_mode
        except (FileNotFoundError, NotADirectoryError):
            if place.is_symlink():
                return f"{_name(place, directory)} a link to nothing"
            continue
        except (OSError, ValueError) as error:
            return f"it cannot be looked at ({getattr(error, 'strerror', None) or error})"
        if not stat.S_ISDIR(mode):
            return f"{_name(place, directory)} not a directory"
        if not os.access(place, os.W_OK | os.X_OK):
            why = "on a read-only filesystem" if _is_read_only(place) else "not writable"
            return f"{_name(place, directory)} {why}"
        return None
    return "nothing of it exists"


def free_bytes(directory: Path) -> int:
    """Return the free space of the filesystem that ``directory`` is on, or would be made on."""
    for place in (directory, *directory.parents):
        if place.exists():
            return shutil.disk_usage(place).free
    return shutil.disk_usage(Path.cwd()).free


def _name(place: Path, directory: Path) -> str:
    return "it is" if place == directory else f"{place} is"


def _is_read_only(place: Path) -> bool:
    return sys.platform != "win32" and bool(os.statvfs(place).f_flag & os.ST_RDONLY)
