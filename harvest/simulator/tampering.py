"""What a fault does to the messages of one connection: lost, doubled, swapped, short of a level, broken, unknown."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Final

import attrs
import msgspec

if TYPE_CHECKING:
    from harvest.simulator.fault import Action, Target
    from harvest.simulator.streams import StreamKey

TAMPERING: Final = frozenset({"gap", "duplicate", "swap", "drop level", "malformed", "unknown event"})


@attrs.frozen
class Outgoing:
    """A message on its way: its stream's name, its text, its id; None where it is none of the market's."""

    name: str
    text: bytes
    stream_id: int | None


@attrs.define
class _Pending:
    action: Action
    target: Target
    left: int
    #: The side and the price of the level that is left out, as soon as one is chosen.
    level: tuple[str, str] | None = None

    def hits(self, key: StreamKey, message: Outgoing) -> bool:
        if not self.target.hits(key):
            return False
        # A level is dropped from diffs, and chosen from one that has any.
        return self.action != "drop level" or (
            key.kind == "depth" and (self.level is not None or _some_level(message.text) is not None)
        )


class Tampering:
    """The faults that wait for the next messages of one connection."""

    def __init__(self, seed: int) -> None:
        self._pending: list[_Pending] = []
        self._held: dict[StreamKey, Outgoing] = {}
        self._dice = random.Random(seed)

    def __bool__(self) -> bool:
        return bool(self._pending or self._held)

    def add(self, action: Action, target: Target, count: int) -> None:
        """Let a fault strike the next ``count`` messages that it is about."""
        self._pending.append(_Pending(action, target, count))

    def apply(self, key: StreamKey, message: Outgoing) -> list[Outgoing]:
        """Give what is sent instead of a message, in order."""
        held = self._held.pop(key, None)
        if held is not None:
            return [message, held]
        pending = next((one for one in self._pending if one.hits(key, message)), None)
        if pending is None:
            return [message]
        pending.left -= 1
        if not pending.left:
            self._pending.remove(pending)
        match pending.action:
            case "gap":
                return []
            case "duplicate":
                return [message, message]
            case "swap":
                self._held[key] = message
                return []
            case "drop level":
                if pending.level is None:
                    pending.level = _some_level(message.text)
                return [attrs.evolve(message, text=_without(message.text, pending.level))]
            case "malformed":
                return [Outgoing(message.name, self._break(message.text), None), message]
            case _:
                return [Outgoing(message.name, _unknown(key), None), message]

    def _break(self, text: bytes) -> bytes:
        breaks = (
            text[: len(text) // 2].decode(errors="ignore").encode(),
            text.replace(b'"p":"', b'"p":"x', 1).replace(b'[["', b'[["x', 1),
            text.replace(b'"q":"', b'"q":"-', 1).replace(b'[["', b'[["-', 1),
            text.replace(b'"p":"', b'"p":"NaN","was":"', 1).replace(b'[["', b'[["NaN","1"],["', 1),
            text.replace(b'"s":"', b'"s":{"was":"', 1),
            b"null",
            b"[]",
        )
        changed = [broken for broken in breaks if broken != text]
        return self._dice.choice(changed)


def _some_level(text: bytes) -> tuple[str, str] | None:
    """Choose a level of a diff, its side and its price: rather far from the touch, where it crosses nothing."""
    diff = msgspec.json.decode(text)
    for side, best_is_last in (("b", True), ("a", False)):
        if levels := diff[side]:
            far = len(levels) // 4
            return side, levels[far if best_is_last else -1 - far][0]
    return None


def _without(text: bytes, level: tuple[str, str] | None) -> bytes:
    if level is None:
        return text
    side, price = level
    diff = msgspec.json.decode(text)
    diff[side] = [one for one in diff[side] if one[0] != price]
    return msgspec.json.encode(diff)


def _unknown(key: StreamKey) -> bytes:
    symbol = key.symbol or "BTCUSDT"
    return f'{{"e":"tradingPhase","E":1,"s":"{symbol}","phase":"CONTINUOUS","next":null}}'.encode()
