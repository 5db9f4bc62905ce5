from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harvest.nurseries.frames import FrameSlicer
from tests.nurseries.wire import BINARY, CLOSE, CONTINUATION, PING, cut, frame

LIMIT = 100_000


def test_whole_text_frames_are_sliced_and_nothing_is_passed_on() -> None:
    texts = [b"", b"a", b"b" * 125, b"c" * 126, b"d" * 65_535, b"e" * 65_536, "牛来".encode()]
    assert FrameSlicer(LIMIT).feed(b"".join(map(frame, texts))) == (texts, b"")


@given(
    texts=st.lists(st.text(max_size=200).map(str.encode), max_size=20),
    offsets=st.lists(st.integers(0, 5000), max_size=20),
)
def test_cuts_change_nothing(texts: list[bytes], offsets: list[int]) -> None:
    slicer = FrameSlicer(LIMIT)
    sliced: list[bytes] = []
    for piece in cut(b"".join(map(frame, texts)), offsets):
        frames, passed = slicer.feed(piece)
        sliced += frames
        assert passed == b""
    assert sliced == texts


@given(data=st.binary(max_size=400), offsets=st.lists(st.integers(0, 400), max_size=9))
def test_any_bytes_are_either_sliced_or_passed_on(data: bytes, offsets: list[int]) -> None:
    slicer = FrameSlicer(40)
    size = 0
    for piece in cut(data, offsets):
        frames, passed = slicer.feed(piece)
        size += sum(len(frame(text)) for text in frames) + len(passed)
    assert size + len(slicer.flush()) == len(data)


def test_a_ping_between_texts_is_passed_on_alone() -> None:
    ping = frame(b"p", PING)
    assert FrameSlicer(LIMIT).feed(frame(b"1") + ping + frame(b"2")) == ([b"1", b"2"], ping)


def test_an_incomplete_frame_is_never_passed_on_in_parts() -> None:
    for whole in (frame(b"x" * 300, BINARY), frame(b"y" * 300, fin=False), frame(b"z" * 20, PING)):
        slicer = FrameSlicer(LIMIT)
        for offset in range(len(whole) - 1):
            assert slicer.feed(whole[offset : offset + 1]) == ([], b"")
        assert slicer.feed(whole[-1:]) == ([], whole)


def test_once_a_message_was_passed_on_everything_is_until_it_was_taken() -> None:
    slicer = FrameSlicer(LIMIT)
    binary = frame(b"b", BINARY)
    assert slicer.feed(frame(b"1") + binary + frame(b"2")) == ([b"1"], binary + frame(b"2"))
    assert slicer.untaken == 2
    slicer.take()
    assert slicer.feed(frame(b"3")) == ([], frame(b"3"))
    slicer.take()
    slicer.take()
    assert slicer.feed(frame(b"4")) == ([b"4"], b"")


def test_nothing_is_sliced_within_a_fragmented_message() -> None:
    slicer = FrameSlicer(LIMIT)
    start, end = frame(b"a", fin=False), frame(b"b", CONTINUATION)
    assert slicer.feed(start) == ([], start)
    assert slicer.untaken == 0
    assert slicer.feed(frame(b"p", PING) + end) == ([], frame(b"p", PING) + end)
    slicer.take()
    assert slicer.feed(frame(b"c")) == ([b"c"], b"")


@pytest.mark.parametrize(
    "fatal",
    [
        frame((1000).to_bytes(2), CLOSE),
        frame(b"a", rsv=4),
        frame(b"a", masked=True),
        frame(b"a" * 200, masked=True),
        frame(b"a", CONTINUATION),
        frame(b"a", 0x3),
        frame(b"p", PING, fin=False),
        bytes([0x81, 126, 0, 1]) + b"a",
        bytes([0x81, 127, 0, 0, 0, 0, 0, 0, 0, 1]) + b"a",
        bytes([0x80 | PING, 126, 0, 126]) + b"p" * 126,
        frame(b"\xff"),
    ],
)
def test_nothing_is_sliced_after_a_close_frame_or_an_error(fatal: bytes) -> None:
    slicer = FrameSlicer(LIMIT)
    assert slicer.feed(frame(b"1") + fatal + frame(b"2")) == ([b"1"], fatal + frame(b"2"))
    assert slicer.feed(frame(b"3")) == ([], frame(b"3"))


def test_what_waits_is_bounded_by_the_size_limit() -> None:
    slicer = FrameSlicer(100)
    # A header that announces nine exabytes must not make anybody wait for them.
    huge = bytes([0x81, 127]) + (2**63 - 1).to_bytes(8)
    assert slicer.feed(huge + b"x" * 50) == ([], huge + b"x" * 50)
    for _ in range(10):
        assert slicer.feed(b"x" * 1000) == ([], b"x" * 1000)
    assert slicer.flush() == b""


def test_a_frame_of_just_the_size_limit_is_sliced() -> None:
    assert FrameSlicer(100).feed(frame(b"x" * 100)) == ([b"x" * 100], b"")


def test_flush_gives_what_waited() -> None:
    slicer = FrameSlicer(LIMIT)
    piece = frame(b"abc")[:-1]
    assert slicer.feed(piece) == ([], b"")
    assert slicer.flush() == piece
    assert slicer.flush() == b""


def test_passing_all_gives_up_what_waited_first() -> None:
    slicer = FrameSlicer(LIMIT)
    piece = frame(b"abc")[:-1]
    slicer.feed(piece)
    slicer.pass_all()
    assert slicer.feed(b"c" + frame(b"d")) == ([], piece + b"c" + frame(b"d"))


def test_a_large_frame_in_many_pieces_is_joined_once() -> None:
    payload = bytes(range(32, 126)) * 10_000
    slicer = FrameSlicer(len(payload))
    wire = frame(payload)
    sliced = []
    for start in range(0, len(wire), 1000):
        sliced += slicer.feed(wire[start : start + 1000])[0]
    assert sliced == [payload]
