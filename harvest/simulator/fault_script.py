"""The language of faults: a script of one line says what goes wrong, and when.

Times are wall seconds from the first acknowledged subscription: ``10s``, ``500ms``, ``2m``, ``1h``, a bare
number is seconds, and ``5s..20s`` is a seeded random one between them. Any fault may be repeated:
``every 30s``, or ``every 20s..40s``; without ``at`` it then begins after the first such time.

| script | what happens |
|---|---|
| ``stall trades|orderbook|all|SYMBOL [trades|orderbook] at T [for D]`` | the open connections carry these no more, for good; new ones flow, with ``for`` only after it |
| ``forget trades|orderbook|all|SYMBOL [trades|orderbook] at T`` | the open connections lose these subscriptions without a word; subscribing again helps |
| ``cut [trades|orderbook|all|SYMBOL] at T [with CODE|hard]`` | the connections that carry any are closed with a code (1001), or reset |
| ``mute route public|market at T [for D]`` | this route acknowledges, and is silent |
| ``delist SYMBOL at T`` | it is listed no more: REST does not know it, its streams are silent |
| ``halt SYMBOL at T [for D]`` | exchangeInfo does not say TRADING, its streams are silent; REST has what they leave out |
| ``shutdown at T [notice D]`` | ``serverShutdown`` everywhere, and after the notice (5 s) a cut |
| ``no-pong at T [for D]`` | pings of clients are not answered |
| ``reject connections at T for D [hard]`` | WebSocket handshakes get a 503, or a reset |
| ``gap|duplicate|swap [trades|orderbook] [SYMBOL] at T [skip N]`` | the next N messages (1) are lost, come twice, or change places with their next |
| ``drop level [SYMBOL] at T [skip N]`` | N diffs of a book (1) come without one level that the first of them changes |
| ``malformed [trades|orderbook] [SYMBOL] at T [skip N]`` | N broken messages come before the next good ones |
| ``unknown event [trades|orderbook] [SYMBOL] at T [skip N]`` | N events of a type that nobody knows come likewise |
| ``fragment at T for D`` | messages come in fragments |
| ``burst xN at T for D`` | the venue's time runs N times faster, and then at half its speed until it is even |
| ``pause at T for D`` | the whole server stands still: no data, pongs, answers |
| ``ban at T for D``, ``throttle at T for D`` | REST answers 418 or 429 |
| ``rest down at T for D`` | REST answers 503 |
| ``slow rest by D at T for D`` | REST answers that much later |

``on one`` behind any of those about connections strikes only the oldest connection that it would strike.
``trades`` are the streams of raw and aggregate trades, ``orderbook`` those of diffs and partial books;
``channels``, wherever these may stand, are best quotes, mark prices and liquidations.
A TOML file holds ``faults = ["…", …]`` and may set ``seed``.
"""

from __future__ import annotations

import re
import tomllib
from typing import TYPE_CHECKING, Final, Literal

import attrs

from harvest.errors import SimulatorError
from harvest.simulator.fault import Action, Fault, FaultScriptError, Span, Target

if TYPE_CHECKING:
    from pathlib import Path


_FEEDS: Final = {
    "trades": "trades",
    "trade": "trades",
    "orderbook": "orderbook",
    "depth": "orderbook",
    "channels": "other",
}
_UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "": 1.0}
_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|)")


@attrs.frozen
class _Shape:
    """What may follow an action: a target, and which clauses; ``for`` may be needed."""

    target: Literal["no", "may", "must"]
    clauses: frozenset[str]
    needs_for: bool = False


def _shape(target: Literal["no", "may", "must"], clauses: str = "", *, needs_for: bool = False) -> _Shape:
    both = {"at", "every", *clauses.split()} | ({"for"} if needs_for else set())
    return _Shape(target, frozenset(both), needs_for)


_SHAPES: Final[dict[Action, _Shape]] = {
    "stall": _shape("must", "for on"),
    "forget": _shape("must", "on"),
    "cut": _shape("may", "with hard on"),
    "mute route": _shape("no", "for"),
    "delist": _shape("must"),
    "halt": _shape("must", "for"),
    "shutdown": _shape("no", "notice on"),
    "no-pong": _shape("no", "for"),
    "reject connections": _shape("no", "hard", needs_for=True),
    "gap": _shape("may", "skip on"),
    "duplicate": _shape("may", "skip on"),
    "swap": _shape("may", "skip on"),
    "drop level": _shape("may", "skip on"),
    "malformed": _shape("may", "skip on"),
    "unknown event": _shape("may", "skip on"),
    "fragment": _shape("no", needs_for=True),
    "burst": _shape("no", needs_for=True),
    "pause": _shape("no", needs_for=True),
    "ban": _shape("no", needs_for=True),
    "throttle": _shape("no", needs_for=True),
    "rest down": _shape("no", needs_for=True),
    "slow rest": _shape("no", "by", needs_for=True),
}
_CLAUSES: Final = frozenset().union(*(shape.clauses for shape in _SHAPES.values()))


class _Parser:
    """Reads one script, word by word."""

    def __init__(self, script: str) -> None:
        self._script = script
        self._words = [(found.group(), found.start() + 1) for found in re.finditer(r"\S+", script)]
        self._next = 0

    def parse(self) -> Fault:
        action = self._action()
        shape = _SHAPES[action]
        facts: dict[str, object] = {}
        if action == "mute route":
            facts["route"] = self._one_of("public", "market")
        elif action == "burst":
            facts["times"] = self._times()
        target = self._target(shape)
        if action in ("delist", "halt") and (target.symbol is None or target.feed is not None):
            raise self._error(f"'{action}' needs a symbol, and nothing else", back=1)
        seen: set[str] = set()
        while (word := self._peek()) is not None:
            if word not in shape.clauses:
                raise self._error(f"expected one of {', '.join(sorted(shape.clauses))}; got {word!r}")
            if word in seen:
                raise self._error(f"{word!r} comes twice")
            seen.add(word)
            self._next += 1
            self._clause(word, facts)
        if shape.needs_for and "for" not in seen:
            raise self._error(f"'{action}' needs 'for' and how long, such as 'for 30s'")
        if action == "slow rest" and "by" not in seen:
            raise self._error("'slow rest' needs 'by' and how much, such as 'by 2s'")
        at = facts.pop("at", facts.get("every"))
        if at is None:
            raise self._error("says no time: add 'at 10s' or 'every 30s'")
        return Fault(self._script, action, at, target=target, **facts)  # type: ignore[arg-type]

    def _action(self) -> Action:
        one = self._peek()
        if one is None:
            raise self._error("is empty")
        two = f"{one} {self._words[1][0]}" if len(self._words) > 1 else one
        for action in _SHAPES:
            if action in (one, two):
                self._next = len(action.split())
                return action
        raise self._error(f"expected one of {', '.join(_SHAPES)}; got {one!r}")

    def _target(self, shape: _Shape) -> Target:
        feed: str | None = None
        symbol: str | None = None
        named = False
        while shape.target != "no" and (word := self._peek()) is not None and word not in _CLAUSES:
            if word == "all" and not named:
                self._next += 1
                return Target()
            if word in _FEEDS and feed is None:
                feed = _FEEDS[word]
            elif word not in _FEEDS and symbol is None:
                symbol = word.upper()
            else:
                raise self._error(f"expected a time ('at 10s'), got {word!r}")
            named = True
            self._next += 1
        if shape.target == "must" and not named:
            raise self._error("expected trades, orderbook, channels, all or a symbol")
        return Target(feed, symbol)

    def _clause(self, word: str, facts: dict[str, object]) -> None:
        match word:
            case "at" | "every":
                facts[word] = self._span(least_s=0.0 if word == "at" else 0.001)
            case "for" | "by" | "notice":
                facts[f"{word}_s"] = self._duration()
            case "with":
                facts["code"] = self._integer(1000, 4999)
            case "skip":
                facts["count"] = self._integer(1, 1_000_000)
            case "hard":
                facts["hard"] = True
            case _:
                self._one_of("one")
                facts["on_one"] = True

    def _span(self, least_s: float) -> Span:
        word = self._take("a time such as 10s or 5s..20s")
        low, dots, high = word.partition("..")
        first = self._seconds(low)
        last = self._seconds(high) if dots else first
        if not least_s <= first <= last:
            raise self._error(
                f"{word!r} is not a time from {least_s:g}s on, or its end lies before its start", back=1
            )
        return Span(first, last)

    def _duration(self) -> float:
        return self._seconds(self._take("a duration such as 30s"))

    def _seconds(self, text: str) -> float:
        found = _DURATION.fullmatch(text)
        if found is None:
            raise self._error(f"expected a duration such as 10s, 500ms or 2m; got {text!r}", back=1)
        return float(found[1]) * _UNITS[found[2]]

    def _times(self) -> float:
        word = self._take("how many times faster, such as x10")
        if not re.fullmatch(r"x\d+(\.\d+)?", word) or not 1.0 < float(word[1:]) <= 1000.0:
            raise self._error(f"expected x2 to x1000, got {word!r}", back=1)
        return float(word[1:])

    def _integer(self, least: int, most: int) -> int:
        word = self._take(f"a number from {least} to {most}")
        if not word.isascii() or not word.isdecimal() or not least <= int(word) <= most:
            raise self._error(f"expected a number from {least} to {most}, got {word!r}", back=1)
        return int(word)

    def _one_of(self, *choices: str) -> str:
        word = self._take(" or ".join(choices))
        if word not in choices:
            raise self._error(f"expected {' or '.join(choices)}, got {word!r}", back=1)
        return word

    def _peek(self) -> str | None:
        return self._words[self._next][0] if self._next < len(self._words) else None

    def _take(self, what: str) -> str:
        word = self._peek()
        if word is None:
            raise self._error(f"expected {what}")
        self._next += 1
        return word

    def _error(self, why: str, back: int = 0) -> FaultScriptError:
        at = self._next - back
        column = self._words[at][1] if at < len(self._words) else len(self._script) + 1
        return FaultScriptError(self._script, column, why)


def parse_fault(script: str) -> Fault:
    """Read one fault script.

    Raises:
        FaultScriptError: It cannot be understood; the error names the column.
    """
    return _Parser(script).parse()


def load_fault_file(path: Path) -> tuple[list[Fault], int | None]:
    """Read a TOML file of faults; give them and its seed, if it sets one.

    Raises:
        SimulatorError: The file cannot be read, or holds anything else.
        FaultScriptError: A script in it cannot be understood.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SimulatorError(f"{path}: cannot be read as a TOML file of faults: {error}") from error
    scripts, seed = content.pop("faults", []), content.pop("seed", None)
    if content:
        raise SimulatorError(f"{path}: unknown key {next(iter(content))!r}; it may hold faults and seed")
    if not isinstance(scripts, list) or not all(isinstance(script, str) for script in scripts):
        raise SimulatorError(f"{path}: faults is to be a list of strings")
    if seed is not None and not isinstance(seed, int):
        raise SimulatorError(f"{path}: seed is to be an integer")
    return [parse_fault(script) for script in scripts], seed
