"""WebSocket frames from the server: unmasked, so a header and the payload are all."""

from __future__ import annotations

from typing import Final

_FINAL: Final = 0x80
_TEXT: Final = 0x1
_CONTINUATION: Final = 0x0
_PING: Final = 0x9


def _frame(first_byte: int, payload: bytes) -> bytes:
    size = len(payload)
    if size < 126:
        return bytes((first_byte, size)) + payload
    if size < 1 << 16:
        return bytes((first_byte, 126)) + size.to_bytes(2, "big") + payload
    return bytes((first_byte, 127)) + size.to_bytes(8, "big") + payload


def text_frame(payload: bytes) -> bytes:
    """Give a whole text message as one frame."""
    return _frame(_FINAL | _TEXT, payload)


def fragmented_text(payload: bytes, *, ping_between: bool) -> bytes:
    """Give a text message as three frames, as RFC 6455 allows; a ping may come between, and often does."""
    third = len(payload) // 3
    ping = _frame(_FINAL | _PING, b"between") if ping_between else b""
    return (
        _frame(_TEXT, payload[:third])
        + ping
        + _frame(_CONTINUATION, payload[third : 2 * third])
        + _frame(_FINAL | _CONTINUATION, payload[2 * third :])
    )
