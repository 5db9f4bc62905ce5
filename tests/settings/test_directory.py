from __future__ import annotations

import errno
import os
import shutil
import sys
from pathlib import Path

import pytest

from harvest.settings import directory
from harvest.settings.directory import find_fault, free_bytes

IS_ROOT = sys.platform != "win32" and os.geteuid() == 0


def test_a_directory_that_exists_or_can_be_made_has_no_fault(tmp_path: Path) -> None:
    assert find_fault(tmp_path) is None
    assert find_fault(tmp_path / "a" / "b") is None
    assert find_fault(Path("relative")) is None
    assert find_fault(Path()) is None
    assert find_fault(Path("..") / "beside") is None


def test_a_file_is_no_directory(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert find_fault(tmp_path / "file") == "it is not a directory"
    assert find_fault(tmp_path / "file" / "a" / "b") == f"{tmp_path / 'file'} is not a directory"


def test_a_link_to_nothing_is_a_fault_and_a_link_to_a_directory_is_none(tmp_path: Path) -> None:
    (tmp_path / "nowhere").symlink_to(tmp_path / "gone")
    (tmp_path / "there").symlink_to(tmp_path)
    assert find_fault(tmp_path / "nowhere") == "it is a link to nothing"
    assert find_fault(tmp_path / "nowhere" / "a") == f"{tmp_path / 'nowhere'} is a link to nothing"
    assert find_fault(tmp_path / "there" / "a") is None


def test_a_link_to_itself_cannot_be_looked_at(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    assert find_fault(tmp_path / "loop") == f"it cannot be looked at ({os.strerror(errno.ELOOP)})"


@pytest.mark.parametrize("name", ["x" * 300, "a\0b"])
def test_a_name_that_no_directory_can_have_is_a_fault(tmp_path: Path, name: str) -> None:
    fault = find_fault(tmp_path / name)
    assert fault is not None
    assert fault.startswith("it cannot be looked at (")


@pytest.mark.skipif(IS_ROOT, reason="nothing is unwritable for root")
def test_a_directory_without_permission_is_a_fault(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o555)
    assert find_fault(closed) == "it is not writable"
    assert find_fault(closed / "a") == f"{closed} is not writable"


def test_a_directory_that_the_system_says_is_not_writable_is_a_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(directory.os, "access", lambda _path, _mode: False)
    assert find_fault(tmp_path) == "it is not writable"
    monkeypatch.setattr(directory, "_is_read_only", lambda _path: True)
    assert find_fault(tmp_path / "a") == f"{tmp_path} is on a read-only filesystem"


@pytest.mark.skipif(
    not Path("/sys/kernel").is_dir() or os.access("/sys", os.W_OK), reason="no read-only /sys"
)
def test_a_read_only_filesystem_is_named() -> None:
    assert find_fault(Path("/sys/ticks")) == "/sys is on a read-only filesystem"


def test_looking_creates_nothing(tmp_path: Path) -> None:
    find_fault(tmp_path / "a" / "b")
    assert list(tmp_path.iterdir()) == []


def test_free_space_is_that_of_the_nearest_directory_there_is(tmp_path: Path) -> None:
    expected = shutil.disk_usage(tmp_path).free
    assert abs(free_bytes(tmp_path / "a" / "b") - expected) < 2**30
    assert free_bytes(Path("relative")) > 0
