"""The settings as people read them, a table, and as machines do."""

from __future__ import annotations

import textwrap
import unicodedata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import attrs

from harvest.errors import SettingsError
from harvest.settings.catalog import SETTINGS, Setting
from harvest.settings.problems import one_line, show_with_unit

if TYPE_CHECKING:
    from harvest.settings.layers import Loaded, Origin

#: A longer value goes on in the next line.
VALUE_COLUMNS: Final = 40
_HEADINGS: Final = ("setting", "value", "from", "variable")


@attrs.frozen
class EffectiveValue:
    """One setting as it holds; ``text`` is the value with its unit, for people."""

    section: str
    key: str
    value: Any
    unit: str
    origin: Origin
    env: str
    help: str
    text: str


def describe(loaded: Loaded) -> list[EffectiveValue]:
    """List every setting with its value and where it came from, section by section."""
    values = []
    for path, setting in SETTINGS.items():
        value = getattr(getattr(loaded.settings, setting.section), setting.key)
        values.append(
            EffectiveValue(
                section=setting.section,
                key=setting.key,
                value=value,
                unit=setting.unit,
                origin=loaded.origins[path],
                env=setting.env,
                help=setting.help,
                text=one_line(_show_value(setting, value)),
            )
        )
    return values


def render_table(loaded: Loaded) -> str:
    """Draw the table that ``harvest check-config`` prints, without a newline at its end."""
    cells: list[tuple[str, str, str, str]] = [_HEADINGS]
    section = ""
    for value in describe(loaded):
        if value.section != section:
            section = value.section
            cells.append((f"[{section}]", "", "", ""))
        first, *more = textwrap.wrap(
            value.text, VALUE_COLUMNS, break_long_words=False, break_on_hyphens=False
        ) or [""]
        cells.append((f"  {value.key}", first, one_line(value.origin), f"${value.env}"))
        cells += [("", line, "", "") for line in more]
    widths = [max(_columns(row[index]) for row in cells) for index in range(len(_HEADINGS))]
    lines = ["  ".join(_pad(cell, width) for cell, width in zip(row, widths, strict=True)) for row in cells]
    return "\n".join(line.rstrip() for line in lines)


def to_json(outcome: Loaded | SettingsError) -> dict[str, Any]:
    """Return what ``--json`` prints, of plain JSON types: the settings, or else the problems."""
    if isinstance(outcome, SettingsError):
        return {"ok": False, "problems": list(outcome.problems)}
    settings: dict[str, dict[str, Any]] = {}
    for value in describe(outcome):
        settings.setdefault(value.section, {})[value.key] = {
            "value": _plain(value.value),
            "origin": value.origin,
            "env": value.env,
            "unit": value.unit,
        }
    return {"ok": True, "settings": settings, "warnings": list(outcome.warnings)}


def _show_value(setting: Setting, value: Any) -> str:
    if value is None:
        return setting.none
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return show_with_unit(value, setting.unit)
    return ", ".join(value) if isinstance(value, tuple) else str(value)


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return list(value)
    return str(value) if isinstance(value, Path) else value


def _columns(text: str) -> int:
    # Symbols may be in a script whose letters are two columns wide.
    return sum(2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text)


def _pad(text: str, columns: int) -> str:
    return text + " " * (columns - _columns(text))
