"""Files that are made anew: the old one or the new one, never half of one."""

from __future__ import annotations

import pytest

from harvest.storage.replacing import replace_file


def test_a_file_takes_the_place_of_the_old_one_and_leaves_nothing_behind(tmp_path):
    path = tmp_path / "page.html"
    replace_file(path, b"old")
    replace_file(path, b"new")
    assert path.read_bytes() == b"new"
    assert [one.name for one in tmp_path.iterdir()] == ["page.html"]


def test_what_cannot_be_written_leaves_the_old_file_as_it_is(tmp_path, monkeypatch):
    path = tmp_path / "page.html"
    replace_file(path, b"old")

    def fail(_descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OSError, match="No space"):
        replace_file(path, b"new")
    assert path.read_bytes() == b"old"
    assert [one.name for one in tmp_path.iterdir()] == ["page.html"]


def test_a_directory_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(OSError, match="No such file"):
        replace_file(tmp_path / "nowhere" / "page.html", b"new")
