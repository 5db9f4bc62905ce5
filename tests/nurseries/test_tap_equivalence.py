"""The same bytes, with the tap and without it, give the same messages, the same answers and the same close."""

from __future__ import annotations

import os
from typing import Any

import attrs
import pytest
import trio
from hypothesis import example, given, settings
from hypothesis import strategies as st
from trio_websocket import ConnectionClosed, wrap_client_stream

from harvest.nurseries.tap import Tap
from tests.nurseries.wire import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    ScriptedStream,
    cut,
    frame,
    unmask,
)

LIMIT = 300
#: How deep the fuzz goes; the long run is for whoever changes the tap.
EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "400"))


@attrs.frozen
class Seen:
    messages: list[bytes]
    answers: list[tuple[int, bytes]]
    close: tuple[int, str | None] | None


async def _receive(stream: Any, script: ScriptedStream, tap: Tap | None, messages: list[bytes]) -> Seen:
    close = None
    async with trio.open_nursery() as nursery:
        websocket = await wrap_client_stream(nursery, stream, "venue", "/", max_message_size=LIMIT)
        while True:
            try:
                message = await websocket.get_message()
            except ConnectionClosed as closed:
                if tap is not None:
                    tap.pass_all()
                if closed.reason is not None:
                    close = closed.reason.code, closed.reason.reason
                    # Python's words for bad UTF-8 name the position in the piece: it depends on the cuts.
                    if close[1] is not None and close[1].startswith("'utf-8' codec"):
                        close = close[0], "not UTF-8"
                break
            if tap is not None:
                tap.deliver(message)
            else:
                messages.append(message.encode() if isinstance(message, str) else message)
    return Seen(messages, unmask(script.sent), close)


def receive_plain(pieces: list[bytes], *, with_answer: bool = False) -> Seen:
    script = ScriptedStream(pieces, with_answer=with_answer)
    return trio.run(_receive, script, script, None, [])


def receive_tapped(pieces: list[bytes], *, with_answer: bool = False) -> Seen:
    script = ScriptedStream(pieces, with_answer=with_answer)
    messages: list[bytes] = []
    tap = Tap(script, lambda frames, _recv_ns, _mono_ns: messages.extend(frames), max_message_bytes=LIMIT)
    return trio.run(_receive, tap, script, tap, messages)


short_text = st.text(max_size=12).map(str.encode)
long_text = st.one_of(
    st.integers(120, LIMIT).map(lambda size: b"a" * size),
    # More bytes than the limit, fewer characters.
    st.integers(LIMIT // 2 - 20, LIMIT).map(lambda size: "é".encode() * size),
)
too_large = st.sampled_from([b"b" * (LIMIT + 1), b"b" * 70_000])
bad_text = st.sampled_from(
    [b"\xff", b"ok\xc3", b"\xed\xa0\x80", b"\xf4\x90\x80\x80 tail", b"a" * 150 + b"\x80"]
)
text = st.one_of(short_text, short_text, short_text, long_text)


def _fragmented(parts: list[bytes], controls: list[bytes], opcode: int) -> bytes:
    wire = b""
    for i, part in enumerate(parts):
        wire += frame(part, opcode if i == 0 else CONTINUATION, fin=i == len(parts) - 1)
        if i < len(controls):
            wire += controls[i]
    return wire


part = st.one_of(short_text, st.just("é".encode() * (LIMIT // 4)))
control = st.builds(frame, st.binary(max_size=8), st.sampled_from([PING, PONG]))
usual = st.one_of(
    st.builds(frame, text),
    st.builds(frame, text),
    st.builds(frame, st.binary(max_size=20), st.just(BINARY)),
    control,
    st.builds(
        _fragmented, st.lists(part, min_size=2, max_size=4), st.lists(control, max_size=3), st.just(TEXT)
    ),
    # Cut in the middle of characters.
    st.just(_fragmented([b"\xc3", b"\xa9\xe2\x82", b"\xac"], [], TEXT)),
    st.builds(
        _fragmented, st.lists(st.binary(max_size=9), min_size=2, max_size=3), st.just([]), st.just(BINARY)
    ),
)
unlawful = st.one_of(
    st.builds(frame, text, rsv=st.sampled_from([1, 2, 4, 7])),
    st.builds(frame, text, masked=st.just(True)),
    st.builds(frame, st.binary(max_size=4), st.sampled_from([3, 5, 7, 11, 15])),
    st.builds(frame, bad_text),
    st.builds(frame, bad_text, fin=st.just(False)),
    st.builds(_fragmented, st.tuples(short_text, bad_text, short_text).map(list), st.just([]), st.just(TEXT)),
    st.builds(frame, text, st.just(CONTINUATION)),
    st.builds(lambda first, second: frame(first, fin=False) + frame(second), text, text),
    st.builds(frame, st.binary(max_size=4), st.just(PING), fin=st.just(False)),
    st.just(bytes([0x80 | PING, 126, 0, 130]) + b"p" * 130),
    # Lengths that are longer than they need to be.
    st.just(bytes([0x81, 126, 0, 5]) + b"short"),
    st.just(bytes([0x81, 127, 0, 0, 0, 0, 0, 0, 0, 200]) + b"s" * 200),
    st.just(bytes([0x81, 127, 0x80, 0, 0, 0, 0, 0, 0, 1]) + b"s"),
    # Unfinished.
    st.just(bytes([0x81, 126, 1])),
    st.just(frame(b"a" * 200)[:-1]),
    st.just(frame(b"\xff" * 200)[:-1]),
    st.just(frame(b"abc", fin=False)),
)
close = st.one_of(
    st.builds(
        lambda code, reason: frame(code.to_bytes(2) + reason, CLOSE),
        st.sampled_from([1000, 1001, 1008, 1011, 1012, 1013, 3000, 4999, 1005, 1006, 999, 5000, 2500]),
        st.sampled_from([b"", b"bye", "né".encode(), b"\xff"]),
    ),
    st.just(frame(b"", CLOSE)),
    st.just(frame(b"x", CLOSE)),
)
# After a message that is too large only messages follow: for what else may come, trio-websocket has two errors to
# choose from, and by itself names now the one, now the other.
oversized = st.one_of(
    st.builds(frame, too_large),
    st.builds(frame, too_large, st.just(BINARY)),
    st.builds(
        _fragmented, st.just([b"c" * (LIMIT - 1), b"cc", b"c"]), st.just([]), st.sampled_from([TEXT, BINARY])
    ),
)
conversation = st.builds(
    lambda before, ends, after: b"".join([*before, *ends, *after]),
    st.lists(usual, max_size=8),
    st.lists(st.one_of(unlawful, close), max_size=2),
    st.lists(st.one_of(usual, st.binary(max_size=12)), max_size=3),
) | st.builds(
    lambda before, end, after: b"".join([*before, end, *after]),
    st.lists(usual, max_size=8),
    oversized,
    st.lists(st.builds(frame, text), max_size=3),
)

# Any header at all, and a little behind it.
any_header = st.builds(
    lambda before, header, rest: b"".join([*before, bytes(header), rest]),
    st.lists(usual, max_size=3),
    st.tuples(st.integers(0, 255), st.integers(0, 255)),
    st.binary(max_size=12),
)

EVERYTHING = b"".join(
    [
        frame(b'{"a":1}'),
        frame(b"", TEXT),
        frame(b"ping", PING),
        frame(b"a" * 130),
        frame("é牛".encode()),
        frame(b"\x00\x01", BINARY),
        frame(b"right after"),
        frame(b"frag", fin=False),
        frame(b"in between", PING),
        frame(b"ment", CONTINUATION),
        frame(b"then"),
        frame(b"unasked", PONG),
        frame("é".encode() * 200),
        frame(b"after a large one"),
        frame(b"last"),
        frame((1001).to_bytes(2) + b"bye", CLOSE),
        frame(b"nobody reads this"),
    ]
)


@settings(max_examples=EXAMPLES, deadline=None)
@given(
    wire=conversation | any_header, cuts=st.lists(st.integers(0, 700), max_size=8), with_answer=st.booleans()
)
@example(wire=EVERYTHING, cuts=[], with_answer=True)
# What waits for its end when there is none.
@example(wire=frame(b"1") + frame(b"\xff" * 200)[:-1], cuts=[20], with_answer=False)
@example(wire=frame(b"1") + frame(b"ok", CLOSE)[:-1], cuts=[], with_answer=False)
@example(wire=frame(b"1") + frame(b"\xff", fin=False), cuts=[], with_answer=False)
def test_any_conversation_cut_anywhere_is_the_same_with_and_without_the_tap(
    wire: bytes, cuts: list[int], with_answer: bool
) -> None:
    pieces = cut(wire, cuts)
    plain = receive_plain(pieces, with_answer=with_answer)
    assert receive_tapped(pieces, with_answer=with_answer) == plain


def test_a_conversation_with_everything_cut_at_every_offset_is_the_same_as_without_the_tap() -> None:
    plain = receive_plain([EVERYTHING])
    assert len(plain.messages) == 11
    assert plain.close == (1001, "bye")
    for offset in range(len(EVERYTHING)):
        assert receive_tapped(cut(EVERYTHING, [offset])) == plain, offset


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64])
def test_a_conversation_in_small_pieces_is_the_same_as_without_the_tap(size: int) -> None:
    pieces = cut(EVERYTHING, range(0, len(EVERYTHING), size))
    assert receive_tapped(pieces) == receive_plain(pieces)


@settings(max_examples=EXAMPLES // 4, deadline=None)
@given(wire=conversation | any_header)
def test_the_cuts_do_not_change_what_the_tap_gives(wire: bytes) -> None:
    whole = receive_tapped([wire] if wire else [])
    assert receive_tapped(cut(wire, range(len(wire)))).messages == whole.messages
