"""Blocks in one piece: what the slicer gives is byte by byte what it gives frame by frame, whatever comes."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harvest.nurseries.frames import FrameSlicer
from harvest.venues.blocks import SEPARATOR, join, payloads
from tests.nurseries.wire import BINARY, CLOSE, PING, cut, frame

LIMIT = 70_000
NEVER = 2**40


def text(number: int, size: int = 195) -> bytes:
    return b'{"a":"%d","b":"' % number + b"x" * size + b'"}'


#: Texts that are taken in one piece, and those that must not be.
TEXTS = st.one_of(
    st.integers(0, 10**12).map(text),
    st.integers(0, 900).map(lambda size: text(1, size)),
    st.text(max_size=300).map(lambda one: b'{"' + one.encode() + b'":' + b" " * 130 + b"1}"),
    st.sampled_from(
        [
            b"{" + b"\n" * 200 + b"}",
            SEPARATOR * 50,
            b"{" + SEPARATOR * 50 + b"}",
            b" " * 200,
            b"[" + b"1" * 200 + b"]",
            b"{}",
            b"",
            # What the head of a frame looks like, within one.
            b"{" + "\u0041~".encode() * 90 + b"}",
            b"{" + b"\xc2\x81~\x00\xc3" * 60 + b"}",
            text(1, 33_150 - 18),
            text(1, 65_000),
        ]
    ),
)
OTHERS = st.sampled_from(
    [
        frame(b"p", PING),
        frame(b"b" * 200, BINARY),
        frame(b"{" + b"\xff" * 200 + b"}"),
        frame(text(7), fin=False),
        frame(b"", CLOSE),
        b"\x81\x7e",
        b"\x81\xfe\x00\xc3",
        b"\x81\x7e\x00\x10",
    ]
)


@settings(deadline=None)
@given(
    wire=st.lists(st.one_of(TEXTS.map(frame), TEXTS.map(frame), TEXTS.map(frame), OTHERS), max_size=30).map(
        b"".join
    ),
    offsets=st.lists(st.integers(0, 100_000), max_size=10),
)
def test_in_one_piece_or_frame_by_frame_is_the_same(wire: bytes, offsets: list[int]) -> None:
    lines, loop = FrameSlicer(LIMIT, lines_from_bytes=0), FrameSlicer(LIMIT, lines_from_bytes=NEVER)
    for piece in cut(wire, offsets):
        block, passed = lines.feed(piece)
        assert (payloads(block), passed) == loop.feed(piece)
        assert lines.untaken == loop.untaken
    assert lines.flush() == loop.flush()


@settings(deadline=None)
@given(wire=st.lists(st.binary(max_size=300).map(lambda data: b"\x81\x7e" + data), max_size=9).map(b"".join))
def test_what_only_looks_like_frames_is_the_same_too(wire: bytes) -> None:
    lines, loop = FrameSlicer(LIMIT, lines_from_bytes=0), FrameSlicer(LIMIT, lines_from_bytes=NEVER)
    block, passed = lines.feed(wire)
    assert (payloads(block), passed) == loop.feed(wire)


def test_a_block_of_trades_comes_in_one_piece() -> None:
    texts = [text(number) for number in range(300)]
    block, passed = FrameSlicer(LIMIT).feed(b"".join(map(frame, texts)))
    assert isinstance(block, bytes)
    assert (payloads(block), passed) == (texts, b"")
    assert block == join(texts)


def test_what_is_not_utf_8_ends_the_piece_before_it() -> None:
    bad = frame(b"{" + b"\xff" * 200 + b"}")
    wire = b"".join(frame(text(number)) for number in range(200))
    block, passed = FrameSlicer(LIMIT).feed(wire + bad + wire)
    assert payloads(block) == [text(number) for number in range(200)]
    assert passed.startswith(bad)


@pytest.mark.parametrize("frames", [[b"{}", b"[]"], [b""], [b"{\n}"], [b"{}", b" {}"]])
def test_what_cannot_be_joined_stays_a_list(frames: list[bytes]) -> None:
    assert join(frames) is frames


def test_joined_payloads_come_apart_again() -> None:
    dice = random.Random(1)
    frames = [b"{" + bytes(dice.choices(b' {}"\t\r\x00\xff', k=dice.randrange(200))) for _ in range(500)]
    block = join(frames)
    assert isinstance(block, bytes)
    assert payloads(block) == frames
