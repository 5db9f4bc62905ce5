"""What clients say over a WebSocket, and what the venue answers: its JSON methods, its two error shapes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Protocol

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable

_METHODS: Final = ("SUBSCRIBE", "UNSUBSCRIBE", "LIST_SUBSCRIPTIONS", "SET_PROPERTY", "GET_PROPERTY")


class Subscriber(Protocol):
    """The connection that a request is about."""

    combined: bool

    @property
    def stream_names(self) -> list[str]:
        """The names of its streams, in the order of their subscription."""
        ...

    @property
    def stream_limit(self) -> int:
        """How many streams it may have."""
        ...

    def subscribe(self, names: Iterable[str]) -> None:
        """Add streams."""
        ...

    def unsubscribe(self, names: Iterable[str]) -> None:
        """Remove streams; unknown ones are fine."""
        ...


def answer(text: str, subscriber: Subscriber) -> bytes:
    """Carry out a request, and give the venue's reply.

    An error comes flat where the venue does not know what it answers to, and wrapped with the id otherwise.
    """
    try:
        request = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return _flat(3, "Invalid JSON: expected value at line 1 column 1")
    if not isinstance(request, dict):
        return _flat(2, "Invalid request: request must be an object")
    request_id = request.get("id")
    if not _is_id(request_id):
        return _flat(2, "Invalid request: request ID must be an unsigned integer or a short string")
    return _dispatch(request, request_id, subscriber)


def _dispatch(request: dict[str, Any], request_id: int | str | None, subscriber: Subscriber) -> bytes:
    method, params = request.get("method"), request.get("params")
    if method not in _METHODS:
        known = ", ".join(f"`{name}`" for name in _METHODS)
        return _wrapped(
            2, f"Invalid request: unknown variant `{method}`, expected one of {known}", request_id
        )
    if method == "LIST_SUBSCRIPTIONS":
        return _result(subscriber.stream_names, request_id)
    if not isinstance(params, list):
        return _wrapped(2, "Invalid request: missing field `params`", request_id)
    if method == "GET_PROPERTY":
        return _result(subscriber.combined, request_id)
    if method == "SET_PROPERTY":
        match params:
            case ["combined", bool(combined)]:
                subscriber.combined = combined
                return _result(None, request_id)
        return _wrapped(1, "Property name must be a string", request_id)
    if not params or not all(isinstance(name, str) for name in params):
        return _wrapped(2, "Invalid request: params must be a non-empty array of strings", request_id)
    if method == "UNSUBSCRIBE":
        subscriber.unsubscribe(params)
        return _result(None, request_id)
    if len({*subscriber.stream_names, *params}) > subscriber.stream_limit:
        return _wrapped(2, f"Invalid request: more than {subscriber.stream_limit} streams", request_id)
    subscriber.subscribe(params)
    return _result(None, request_id)


def _is_id(value: object) -> bool:
    if value is None:
        return True
    if isinstance(value, bool):
        return False
    return (isinstance(value, int) and value >= 0) or (isinstance(value, str) and len(value) <= 36)


def _result(result: object, request_id: int | str | None) -> bytes:
    return msgspec.json.encode({"result": result, "id": request_id})


def _flat(code: int, message: str) -> bytes:
    return msgspec.json.encode({"code": code, "msg": message})


def _wrapped(code: int, message: str, request_id: int | str | None) -> bytes:
    return msgspec.json.encode({"error": {"code": code, "msg": message}, "id": request_id})
