"""The options of ``python -m harvest.simulator``: one for each field of the configuration."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, Final

import attrs

from harvest.simulator.config import SimulatorConfig
from harvest.simulator.rules import RULES


def _speed(text: str) -> float | None:
    return None if text == "max" else float(text)


def _symbols(text: str) -> tuple[str, ...]:
    return tuple(symbol.strip() for symbol in text.split(",") if symbol.strip())


#: Fields whose option is not simply ``--field-name`` with a plain value.
_REPEATED: Final = {"faults": "--fault", "replay": "--replay", "replay_streams": "--replay-stream"}
_TYPES: Final[dict[str, Any]] = {
    "symbols": _symbols,
    "speed": _speed,
    "replay": Path,
    "seed": int,
    "port": int,
    "start_ns": int,
    "messages_per_s": int,
    "streams_per_connection": int,
    "attempts_in_5_min": int,
    "weight_per_minute": int,
    "ignored_429s": int,
    "send_buffer_bytes": int,
    "backlog_bytes": int,
    "rate": float,
    "settle_s": float,
    "ping_interval_s": float,
    "pong_deadline_s": float,
    "connection_life_s": float,
    "ban_s": float,
}
_HELP: Final = {
    "venue": "which venue to be",
    "symbols": "what exchangeInfo lists, with commas between (a dozen well-known ones)",
    "seed": "of the random market and of random fault times",
    "port": "0 for any",
    "speed": "of the venue's time; max, for a replay: as fast as the clients read",
    "rate": "multiplies the numbers of trades",
    "faults": "a fault script, such as 'stall trades at 10s'; may be repeated",
    "fault_file": "a TOML file of fault scripts",
    "replay": "a recording to send instead of the random market; may be repeated",
    "replay_streams": "a stream that must be subscribed before the replay begins; may be repeated",
    "sent_log": "append a JSON line for each message sent",
    "exit_with_parent": "end when stdin ends",
}


def _option(name: str) -> str:
    return _REPEATED.get(name, "--" + name.replace("_", "-"))


def make_parser() -> argparse.ArgumentParser:
    """Make the parser of the options; defaults are the configuration's own."""
    parser = argparse.ArgumentParser(prog="python -m harvest.simulator", description=__doc__)
    for field in attrs.fields(SimulatorConfig):
        name, option = field.name, _option(field.name)
        facts: dict[str, Any] = {"dest": name, "help": _HELP.get(name), "default": argparse.SUPPRESS}
        if name == "exit_with_parent":
            facts["action"] = "store_true"
        elif name in _REPEATED:
            facts["action"] = "append"
        if name == "venue":
            facts["choices"] = sorted(RULES)
        if name in _TYPES:
            facts["type"] = _TYPES[name]
        parser.add_argument(option, **facts)
    return parser


def from_arguments(arguments: list[str]) -> SimulatorConfig:
    """Read options; exits with a message on stderr where they are wrong.

    Raises:
        SimulatorError: A value is understood, and cannot be served.
    """
    return SimulatorConfig(**vars(make_parser().parse_args(arguments)))


def to_arguments(config: SimulatorConfig) -> list[str]:
    """Write the options that give this configuration; what is the default is left out."""
    arguments: list[str] = []
    for field in attrs.fields(SimulatorConfig):
        value = getattr(config, field.name)
        if value == field.default or field.name == "exit_with_parent" or value == ():
            continue
        if field.name in _REPEATED:
            arguments += [f"{_option(field.name)}={one}" for one in value]
        elif field.name == "symbols":
            arguments.append(f"{_option(field.name)}={','.join(value)}")
        else:
            text = "max" if field.name == "speed" and value is None else str(value)
            arguments.append(f"{_option(field.name)}={text}")
    return arguments
