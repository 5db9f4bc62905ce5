"""Malformed messages: kept as they came, up to a bound, until the disk takes them."""

from __future__ import annotations

import base64
import json

import pytest

from harvest.storage import quarantine as quarantine_module
from harvest.storage.quarantine import Quarantine


def read(quarantine):
    return [json.loads(line) for line in quarantine.path.read_text(encoding="utf-8").splitlines()]


def test_messages_are_kept_as_text_or_as_base64_with_their_facts(tmp_path):
    quarantine = Quarantine(tmp_path, "run")
    quarantine.add(5, "trade-1", "why", '{"s":"牛来USDT"}\n'.encode())
    quarantine.add(6, "rest", "not UTF-8", b"\xff\x00")
    quarantine.flush()
    assert quarantine.path == tmp_path / "_quarantine" / "run.jsonl"
    assert read(quarantine) == [
        {"recv_ns": 5, "connection": "trade-1", "why": "why", "text": '{"s":"牛来USDT"}\n'},
        {
            "recv_ns": 6,
            "connection": "rest",
            "why": "not UTF-8",
            "base64": base64.b64encode(b"\xff\x00").decode(),
        },
    ]


def test_flushes_append_and_without_messages_there_is_no_file(tmp_path):
    quarantine = Quarantine(tmp_path, "run")
    quarantine.flush()
    assert list(tmp_path.iterdir()) == []
    for number in range(3):
        quarantine.add(number, "c", "why", b"x")
        quarantine.flush()
        quarantine.flush()
    assert [one["recv_ns"] for one in read(quarantine)] == [0, 1, 2]


@pytest.mark.parametrize("raw", [b"", b"x" * 500, b"\xff" * 500], ids=["empty", "text", "bytes"])
def test_beyond_the_bound_messages_are_counted_alone(raw, tmp_path, monkeypatch):
    monkeypatch.setattr(quarantine_module, "MAX_KEPT_BYTES", 5_000)
    quarantine = Quarantine(tmp_path, "run")
    for number in range(200):
        quarantine.add(number, "c", "why", raw)
    quarantine.flush()
    assert quarantine.seen == 200
    assert 0 < len(read(quarantine)) < 200
    assert quarantine.path.stat().st_size < 6_000


def test_messages_stay_in_memory_until_the_disk_takes_them(tmp_path):
    (tmp_path / "_quarantine").write_text("in the way")
    quarantine = Quarantine(tmp_path, "run")
    quarantine.add(1, "c", "why", b"x")
    for _ in range(2):
        with pytest.raises(OSError, match="_quarantine"):
            quarantine.flush()
    quarantine.add(2, "c", "why", b"y")
    (tmp_path / "_quarantine").unlink()
    quarantine.flush()
    assert [one["text"] for one in read(quarantine)] == ["x", "y"]
