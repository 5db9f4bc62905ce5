"""On which line of a TOML document each key stands. ``tomllib`` reads the values, and tells no lines."""

from __future__ import annotations

import re
import tomllib
from typing import Final, Literal

Key = tuple[str, ...]

# In a string the closing quotes may follow up to two quotes of the text itself.
_TOKEN: Final = re.compile(
    r"""
    (?P<string> \"{3}(?:\\.|[^\\])*?\"{3}\"{0,2} | '{3}.*?'{3}'{0,2} | "(?:\\.|[^"\\])*" | '[^']*' )
  | (?P<skip>   [ \t\r]+ | \#[^\n]* )
  | (?P<mark>   [\[\]{}=,.\n] )
  | (?P<bare>   [^\s\#\[\]{}=,.'"]+ )
    """,
    re.DOTALL | re.VERBOSE,
)


def key_lines(document: str) -> dict[Key, int]:
    """Return the line (from 1) on which each key and each table header of ``document`` first stands.

    Keys are paths from the root, unquoted; those in inline tables and in arrays of tables are among them, the
    latter without an index. A dotted key also places the tables that it implies. ``document`` must be valid TOML.
    """
    lines: dict[Key, int] = {}
    line = started = 1
    table: Key = ()
    parts: list[str] = []
    # What encloses the present token: arrays and inline tables, each with the path of the key that holds it.
    open_brackets: list[tuple[Literal["[", "{"], Key]] = []
    state: Literal["key", "header", "value"] = "key"
    value_key: Key = ()
    for token in _TOKEN.finditer(document):
        text = token.group()
        is_mark = token.lastgroup == "mark"
        if token.lastgroup in ("string", "bare") and state != "value":
            if not parts:
                started = line
            parts.append(_unquote(text) if token.lastgroup == "string" else text)
        elif is_mark and state == "key" and text == "[":
            state, table = "header", ()
        elif is_mark and state == "header" and text == "]":
            if parts:
                table = tuple(parts)
                _place(lines, (), parts, started)
                parts = []
        elif is_mark and state == "key" and text == "=":
            prefix = open_brackets[-1][1] if open_brackets else table
            value_key = _place(lines, prefix, parts, started)
            parts, state = [], "value"
        elif is_mark and text in ("[", "{") and state == "value":
            open_brackets.append(("[" if text == "[" else "{", value_key))
            state = "value" if text == "[" else "key"
        elif is_mark and text in ("]", "}"):
            _, value_key = open_brackets.pop()
            state = "value"
        elif is_mark and text == "," and open_brackets:
            bracket, value_key = open_brackets[-1]
            state = "key" if bracket == "{" else "value"
        elif is_mark and text == "\n" and not open_brackets:
            state = "key"
        line += text.count("\n")
    return lines


def _place(lines: dict[Key, int], prefix: Key, parts: list[str], line: int) -> Key:
    for length in range(1, len(parts) + 1):
        lines.setdefault((*prefix, *parts[:length]), line)
    return (*prefix, *parts)


def _unquote(string: str) -> str:
    text: str = tomllib.loads(f"key = {string}")["key"]
    return text
