"""The slicer: takes whole text frames out of the bytes of a WebSocket server, and leaves all else untouched.

It knows the framing of RFC 6455 and nothing of sockets or tasks. What it takes is only what needs no
judgement: whole, final, unmasked text frames of valid UTF-8 within the size limit. Everything that does
goes on, byte by byte as it came, to the full protocol behind it, which answers pings, joins fragments,
judges errors and closes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from harvest.venues.blocks import SEPARATOR, count, payloads

if TYPE_CHECKING:
    from harvest.venues.blocks import Block

FINAL_TEXT = 0x81
#: First bytes of frames that begin a message, that go on with one, and that may stand anywhere. With any
#: other first byte a frame is a close frame or an error: nothing after it is a message.
OPENING = frozenset((0x01, 0x02, 0x81, 0x82))
CONTINUING = frozenset((0x00, 0x80))
PING_PONG = frozenset((0x89, 0x8A))
FINAL = 0x80
MASKED = 0x80
#: The first bytes of a text frame whose length is given by two more, which is nearly every one.
_MEDIUM = (0x81, 126)
_HEAD_BYTES = len(SEPARATOR)
_OPENING_BRACE = ord("{")
#: Less than this is taken frame by frame: to look at all of it at once has its price too.
LINES_FROM_BYTES = 16 * 1024


class FrameSlicer:
    """Split a server's frames into text payloads, and bytes to be passed on.

    Pieces of at least ``lines_from_bytes`` come as a block in one piece, where they can.

    Order is kept across both ways: once a message was passed on, everything is, until :meth:`take` was
    called for each message passed on; and nothing is sliced any more after a close frame or an error.
    A frame is passed on whole, and waits here until it is; only one that is larger than
    ``max_message_bytes`` is passed on as it comes (to be refused), so that what waits here is bounded by
    that limit and one block.
    """

    __slots__ = (
        "_chunks",
        "_held",
        "_in_message",
        "_lines_from_bytes",
        "_max_message_bytes",
        "_needed",
        "_sealed",
        "_surplus",
        "untaken",
    )

    def __init__(self, max_message_bytes: int, *, lines_from_bytes: int = LINES_FROM_BYTES) -> None:
        #: Messages that were passed on and that nobody has taken yet.
        self.untaken = 0
        self._max_message_bytes = max_message_bytes
        self._lines_from_bytes = max(lines_from_bytes, 2 * _HEAD_BYTES)
        self._chunks: list[bytes] = []
        self._held = 0
        self._needed = 0
        self._in_message = False
        self._surplus = 0
        self._sealed = False

    def feed(self, data: bytes) -> tuple[Block, bytes]:
        """Take the next bytes, and return the text payloads in them and the bytes to be passed on.

        The payloads stand before the bytes in the order of messages, always.
        """
        if self._held:
            self._chunks.append(data)
            self._held += len(data)
            if self._held < self._needed and not self._sealed:
                return [], b""
            data = self._unhold()
        if self._sealed:
            return [], data

        lines = b""
        frames: list[bytes] = []
        passed: list[bytes] = []
        pos, end = 0, len(data)
        if self._surplus:
            pos = min(self._surplus, end)
            passed.append(data[:pos])
            self._surplus -= pos
        while pos < end:
            if not (self.untaken or self._in_message):
                if not (lines or frames) and end - pos >= self._lines_from_bytes:
                    lines, pos = _slice_lines(data, pos, self._max_message_bytes)
                pos = _slice_texts(data, pos, self._max_message_bytes, frames)
            stop = self._pass_one(data, pos)
            if stop == pos:
                break
            passed.append(data[pos:stop])
            pos = stop
        if lines and frames:
            return payloads(lines) + frames, b"".join(passed)
        return lines or frames, b"".join(passed)

    def take(self) -> None:
        """Note that one of the messages passed on has reached the place where the payloads go."""
        self.untaken -= 1

    def pass_all(self) -> None:
        """Slice nothing any more: what waits here goes on with the next bytes, or by :meth:`flush`."""
        self._sealed = True

    def flush(self) -> bytes:
        """Return what waits here, for no more bytes will come."""
        self._sealed = True
        return self._unhold()

    def _unhold(self) -> bytes:
        data = b"".join(self._chunks)
        self._chunks.clear()
        self._held = self._needed = 0
        return data

    def _hold(self, data: bytes, needed: int) -> None:
        if data:
            self._chunks.append(data)
            self._held, self._needed = len(data), needed

    def _pass_one(self, data: bytes, pos: int) -> int:
        """Return where the frame at ``pos`` that is passed on ends; ``pos`` itself if it has to wait."""
        end = len(data)
        if end - pos < 2:
            self._hold(data[pos:], 2)
            return pos
        first, length = data[pos], data[pos + 1]
        start = pos + 2
        is_control = first in PING_PONG
        lawful = is_control or first in (CONTINUING if self._in_message else OPENING)
        if not lawful or length & MASKED or (is_control and length > 125):
            self._sealed = True
            return end
        if length > 125:
            start, shortest = (pos + 4, 126) if length == 126 else (pos + 10, 1 << 16)
            if start > end:
                self._hold(data[pos:], start - pos)
                return pos
            length = int.from_bytes(data[pos + 2 : start])
            if length < shortest or length >> 63:
                self._sealed = True
                return end
        stop = start + length
        if stop > end:
            if length <= self._max_message_bytes or is_control:
                self._hold(data[pos:], stop - pos)
                return pos
            self._surplus = stop - end
            stop = end
        if not is_control:
            self._in_message = not first & FINAL
            self.untaken += not self._in_message
        return stop


def _slice_lines(data: bytes, pos: int, max_message_bytes: int) -> tuple[bytes, int]:
    """Return the payloads of the text frames from ``pos`` on in one piece, and where they end; nothing where that cannot be.

    All frames at once: what looks like the head of a frame is one if it stands where the frame before it ends.
    """
    view = np.frombuffer(data, np.uint8)
    heads = np.flatnonzero(
        (view[pos:-_HEAD_BYTES] == _MEDIUM[0]) & (view[pos + 1 : 1 - _HEAD_BYTES] == _MEDIUM[1])
    )
    heads += pos
    lengths = view[heads + 2].astype(np.int64) << 8 | view[heads + 3]
    ends = heads + _HEAD_BYTES + lengths
    # What stands elsewhere is no head; from there on, and where the block cuts a frame, all is left to be taken one by one.
    elsewhere = np.flatnonzero((heads != np.concatenate(((pos,), ends[:-1]))) | (ends > len(data)))
    if len(elsewhere):
        heads, lengths, ends = (one[: elsewhere[0]] for one in (heads, lengths, ends))
    if (
        not len(heads)
        or lengths.min() < 126
        or lengths.max() > max_message_bytes
        or (view[heads + _HEAD_BYTES] != _OPENING_BRACE).any()
    ):
        return b"", pos
    stop = int(ends[-1])
    piece = bytearray(data[pos:stop])
    written = np.frombuffer(piece, np.uint8)
    for offset, byte in enumerate(SEPARATOR):
        written[heads - pos + offset] = byte
    lines = bytes(piece)
    # Else one by one: for the full protocol to see what is no UTF-8, or for a newline to be left where it stands.
    is_whole = count(lines) == len(heads) and (lines.isascii() or _is_utf8(lines))
    return (lines, stop) if is_whole else (b"", pos)


def _slice_texts(data: bytes, pos: int, max_message_bytes: int, frames: list[bytes]) -> int:
    """Append the payloads of the text frames from ``pos`` on, and return where the first other thing stands.

    This is the hot loop: a few bytecodes and one object a frame.
    """
    end = len(data)
    append = frames.append
    try:
        while pos < end and data[pos] == FINAL_TEXT:
            length = data[pos + 1]
            if length == 126:
                start = pos + 4
                length = data[pos + 2] << 8 | data[pos + 3]
                if length < 126:
                    break
            elif length < 126:
                start = pos + 2
            elif length == 127:
                start = pos + 10
                length = int.from_bytes(data[pos + 2 : start])
                if start > end or length < 1 << 16:
                    break
            else:
                break  # a server never masks: the full protocol shall refuse it
            stop = start + length
            if stop > end or length > max_message_bytes:
                break
            payload = data[start:stop]
            if not payload.isascii() and not _is_utf8(payload):
                break  # the full protocol shall see it, and close with 1007
            append(payload)
            pos = stop
    except IndexError:
        pass  # the block ends within a header; asking before each would cost a tenth of the speed
    return pos


def _is_utf8(payload: bytes) -> bool:
    try:
        payload.decode()
    except UnicodeDecodeError:
        return False
    return True
