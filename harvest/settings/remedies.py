"""What a setting takes, in words."""

from __future__ import annotations

from pathlib import Path
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, Final, Literal, get_args, get_origin

from harvest.settings.problems import show_number

if TYPE_CHECKING:
    from harvest.settings.catalog import Setting

#: How text says None, in every layer: TOML has no null.
NONE_WORD: Final = "none"
_UNITS: Final = {"s": "seconds", "h": "hours", "ms": "milliseconds"}


def remedy(setting: Setting) -> str:
    """Say what ``setting`` takes, as a sentence."""
    kind = without_none(setting.kind)
    if origin_of(kind) is tuple:
        return _explain_list(kind, "" if kind is setting.kind else f', or "{NONE_WORD}" ({setting.none})')
    none = f', or "{NONE_WORD}" ({setting.none})' if kind is not setting.kind else ""
    default = "" if setting.default is None else f"; the default is {_show_default(setting.default)}"
    return f"Give {_show_kind(setting, kind)}{none}{default}."


def _explain_list(kind: Any, none: str) -> str:
    choices = get_args(get_args(kind)[0])
    first, second = choices[:2] or ("BTCUSDT", "ETHUSDT")
    words = f" Its words are {', '.join(choices)}." if choices else ""
    return f'Give ["{first}", "{second}"], say, in a file, and {first},{second} elsewhere{none}.{words}'


def origin_of(kind: Any) -> Any:
    """Return the generic type of ``kind`` (tuple of ``tuple[str, ...]``), or None."""
    return get_origin(kind)


def without_none(kind: Any) -> Any:
    """Return T of ``T | None``, and any other kind as it is."""
    if origin_of(kind) is not UnionType:
        return kind
    (inner,) = (part for part in get_args(kind) if part is not NoneType)
    return inner


def _show_kind(setting: Setting, kind: Any) -> str:
    if kind in (int, float):
        return f"{_show_range(setting)} {_UNITS.get(setting.unit, setting.unit)}".rstrip()
    if kind is bool:
        return "true or false"
    if origin_of(kind) is Literal:
        words = get_args(kind)
        return " or ".join(words) if len(words) == 2 else f"one of {', '.join(words)}"
    return "a path" if kind is Path else "text"


def _show_range(setting: Setting) -> str:
    most = "" if setting.most is None else show_number(setting.most)
    if setting.above is not None:
        return f"more than {show_number(setting.above)} and at most {most}"
    return "" if setting.least is None else f"{show_number(setting.least)} to {most}"


def _show_default(default: Any) -> str:
    if isinstance(default, bool):
        return str(default).lower()
    return show_number(default) if isinstance(default, int | float) else str(default)
