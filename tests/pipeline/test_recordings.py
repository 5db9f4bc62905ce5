"""The collector's line format, and everything that can be wrong with it."""

from __future__ import annotations

import gzip
import io
import json
import random
import threading

import pytest

from harvest.errors import RecordingError
from harvest.pipeline import recordings
from harvest.pipeline.recordings import SCAN_LINES, Line, PlainLines, in_order, read, read_at_once, scan
from tests.pipeline.wire import diff, snapshot, trade

STAMP = 1_721_347_021_434_994_132


def line(frame: bytes, at: int = STAMP) -> bytes:
    return b"%d %s\n" % (at, frame)


def lines_of(content: bytes):
    return list(read(io.BytesIO(content)))


WHOLE = b"".join(line(trade(number), STAMP + number) for number in range(100))


def test_lines_have_their_number_their_receive_time_and_their_frame():
    first, second = lines_of(line(trade(1)) + line(trade(2), STAMP + 1))
    assert (first.number, first.recv_ns, first.frame) == (1, STAMP, trade(1))
    assert (second.number, second.recv_ns, second.frame) == (2, STAMP + 1, trade(2))
    assert first.why is second.why is None


def test_gzip_is_known_by_its_first_bytes_whatever_the_name():
    assert lines_of(gzip.compress(WHOLE)) == lines_of(WHOLE)


def test_several_gzip_members_one_after_the_other_are_one_recording():
    assert lines_of(gzip.compress(WHOLE[:700]) + gzip.compress(WHOLE[700:])) == lines_of(WHOLE)


def test_windows_line_ends_are_no_part_of_a_frame():
    assert lines_of(WHOLE.replace(b"\n", b"\r\n")) == lines_of(WHOLE)


def test_last_line_without_an_end_is_taken_if_it_is_whole():
    assert lines_of(WHOLE[:-1]) == lines_of(WHOLE)


@pytest.mark.parametrize("cut", [5, 19, 20, 25, 60])
def test_torn_last_line_says_so_and_spoils_nothing_before_it(cut):
    torn = lines_of(WHOLE + line(trade(100))[:cut])
    assert [(one.frame, one.why) for one in torn[:-1]] == [(one.frame, None) for one in lines_of(WHOLE)]
    assert torn[-1].why


def test_line_that_is_none_comes_with_its_number_and_the_reason():
    content = line(trade(1)) + b"# a comment\n" + b"\n" + b"123 {}\n" + line(trade(2))
    found = lines_of(content)
    assert [one.number for one in found] == [1, 2, 4, 5]
    assert [one.why is None for one in found] == [True, False, False, True]


def test_bytes_that_are_not_utf8_are_named():
    (found,) = lines_of(line(b'{"stream":"\xff\xfe"}'))
    assert "UTF-8" in found.why


def test_text_beyond_ascii_is_fine():
    (found,) = lines_of(line(trade(1, symbol="牛来USDT")))
    assert found.why is None


def test_snapshot_is_told_from_a_message():
    found = lines_of(line(snapshot(5)) + line(diff(1, 2, 0)))
    assert [one.is_snapshot for one in found] == [True, False]


@pytest.mark.parametrize("cut", [11, 200, -1])
def test_truncated_gzip_gives_what_is_there_and_then_says_that_it_is_damaged(cut):
    packed = gzip.compress(WHOLE)
    found = lines_of(packed[:cut])
    whole = lines_of(WHOLE)
    assert found[:-1] == whole[: len(found) - 1]
    assert "damaged" in found[-1].why
    if cut == -1:
        assert len(found) == 101


def test_gzip_with_flipped_bytes_says_that_it_is_damaged():
    packed = bytearray(gzip.compress(WHOLE))
    packed[-6] ^= 0xFF  # in the checksum: all lines are there
    found = lines_of(bytes(packed))
    assert [one.frame for one in found[:-1]] == [one.frame for one in lines_of(WHOLE)]
    assert "damaged" in found[-1].why
    packed[40] ^= 0xFF
    assert any(one.why and "damaged" in one.why for one in lines_of(bytes(packed)))


ODD = (
    b"# a comment",
    b"",
    b"123 {}",
    b"17213470214349941x2 {}",
    b"9999999999999999999 {}",
    b"%d" % STAMP,
    b"%d " % STAMP,
    b"%d {}\r" % STAMP,
    b'%d {"stream":"\xff"}' % STAMP,
    "%d 牛".encode() % STAMP,
    b"%d %s" % (STAMP, snapshot(5)),
)


@pytest.mark.parametrize("is_packed", [False, True])
def test_lines_that_are_read_at_once_are_those_that_are_looked_at_one_by_one(monkeypatch, is_packed):
    monkeypatch.setattr(recordings, "PLAIN_BYTES", 700)
    monkeypatch.setattr(recordings, "READ_BYTES", 50)
    at_once = 0
    for seed in range(60):
        chaos = random.Random(seed)
        plain = [
            line(trade(number), STAMP + chaos.randrange(10**6))[:-1] for number in range(chaos.randrange(40))
        ]
        for _ in range(seed % 3):
            plain.insert(chaos.randrange(len(plain) + 1), chaos.choice(ODD))
        content = b"\n".join(plain) + chaos.choice((b"", b"\n"))
        file = io.BytesIO(gzip.compress(content) if is_packed else content)
        found = list(read_at_once(file, ahead=seed % 2 == 0))
        at_once += sum(isinstance(one, PlainLines) for one in found)
        assert list(read(io.BytesIO(file.getvalue()))) == recordings._one_by_one(content, 1)
        flat = [
            Line(one.first + place, recv_ns, frame)
            for lines in found
            if isinstance(lines, PlainLines)
            for one in lines.parts(7)
            for place, (recv_ns, frame) in enumerate(zip(one.recv_ns, one.frames, strict=True))
        ]
        others = [one for lines in found if not isinstance(lines, PlainLines) for one in lines]
        assert sorted([*flat, *others], key=lambda one: one.number) == recordings._one_by_one(content, 1)
    assert at_once > 50


def test_parts_begin_where_the_number_of_a_line_says():
    lines = PlainLines(5, list(range(20)), [b"%d" % number for number in range(20)])
    parts = list(lines.parts(8))
    assert [(part.first, len(part.frames), len(part.recv_ns)) for part in parts] == [
        (5, 3, 3),
        (8, 8, 8),
        (16, 8, 8),
        (24, 1, 1),
    ]
    assert [recv_ns for part in parts for recv_ns in part.recv_ns] == lines.recv_ns


def test_all_that_comes_before_a_damaged_byte_is_there():
    chaos = random.Random(1)
    whole = b"".join(line(chaos.randbytes(30).hex().encode(), STAMP + number) for number in range(8_000))
    packed = bytearray(gzip.compress(whole))
    at = len(packed) // 2
    packed[at : at + 200] = bytes(200)
    found = lines_of(bytes(packed))
    assert "damaged" in found[-1].why
    lines = lines_of(whole)
    sound = next(place for place, (one, other) in enumerate(zip(found, lines, strict=False)) if one != other)
    assert 3_950 < sound < 4_050


def test_zeros_between_and_behind_gzip_members_are_passed_over():
    packed = gzip.compress(WHOLE[:700]) + bytes(9) + gzip.compress(WHOLE[700:]) + bytes(1000)
    assert lines_of(packed) == lines_of(WHOLE)


def test_what_is_no_gzip_behind_a_member_is_damage():
    found = lines_of(gzip.compress(WHOLE) + b"nonsense")
    assert found[:-1] == lines_of(WHOLE)
    assert "damaged" in found[-1].why


def test_reading_ahead_ends_with_its_reader(monkeypatch):
    monkeypatch.setattr(recordings, "PLAIN_BYTES", 100)
    reading = read_at_once(io.BytesIO(WHOLE), ahead=True)
    next(reading)
    assert any(thread.name.startswith("recording") for thread in threading.enumerate())
    reading.close()
    assert not any(thread.name.startswith("recording") for thread in threading.enumerate())


def test_scan_names_the_symbols_the_events_and_the_first_receive_time(tmp_path):
    path = tmp_path / "a.gz"
    content = line(trade(1), STAMP) + line(diff(1, 2, 0, symbol="ETHUSDT")) + line(snapshot(5))
    path.write_bytes(gzip.compress(content))
    found = scan(path)
    assert (found.first_recv_ns, found.symbols, found.events) == (
        STAMP,
        ("BTCUSDT", "ETHUSDT"),
        {"trade", "depth"},
    )
    assert found.size_bytes == path.stat().st_size


def test_blanks_between_json_tokens_hide_nothing(tmp_path):
    path = tmp_path / "a.txt"
    frames = [json.dumps(json.loads(frame)).encode() for frame in (trade(1), diff(1, 2, 0), snapshot(5))]
    path.write_bytes(b"".join(map(line, frames)))
    found = scan(path)
    assert (found.symbols, found.events) == (("BTCUSDT",), {"trade", "depth"})
    assert [one.is_snapshot for one in lines_of(path.read_bytes())] == [False, False, True]


def test_scan_looks_no_further_than_it_says(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"".join(line(trade(n)) for n in range(SCAN_LINES)) + line(trade(1, symbol="ETHUSDT")))
    assert scan(path).symbols == ("BTCUSDT",)


@pytest.mark.parametrize(
    ("content", "number", "why"),
    [
        (b"", 0, "empty"),
        (b"\n\n", 0, "empty"),
        (gzip.compress(b""), 0, "empty"),
        (b"\x1f\x8b", 1, "damaged"),
        (b"\x1f\x8bnonsense", 1, "damaged"),
        (b"hello\n", 1, "19-digit"),
        (b"\n" + line(trade(1))[:-5], 2, "torn"),
        (bytes(range(256)), 1, "19-digit"),
    ],
)
def test_what_is_no_recording_is_refused_with_its_line(content, number, why, tmp_path):
    path = tmp_path / "a.gz"
    path.write_bytes(content)
    with pytest.raises(RecordingError) as caught:
        scan(path)
    assert caught.value.line == number
    assert why in caught.value.why
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("make", [lambda path: None, lambda path: path.mkdir()], ids=["missing", "directory"])
def test_what_cannot_be_read_is_refused(make, tmp_path):
    make(tmp_path / "a.gz")
    with pytest.raises(RecordingError, match=r"a\.gz"):
        scan(tmp_path / "a.gz")


def test_recordings_are_put_in_the_order_of_their_first_receive_time(tmp_path):
    paths = []
    for name, at in (("b", 3), ("c", 1), ("a", 2), ("d", 1)):
        paths.append(tmp_path / name)
        paths[-1].write_bytes(line(trade(1), STAMP + at))
    assert [one.path.name for one in in_order(paths)] == ["c", "d", "a", "b"]
