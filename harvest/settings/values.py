"""From a value as it was given (TOML, or the text of a variable or flag) to the setting's own type."""

from __future__ import annotations

import math
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

import cattrs

from harvest.errors import HarvestError
from harvest.settings.problems import closest, show
from harvest.settings.remedies import NONE_WORD, origin_of, remedy, without_none

if TYPE_CHECKING:
    from harvest.settings.catalog import Setting

_TRUE: Final = ("true", "1", "yes", "on")
_FALSE: Final = ("false", "0", "no", "off")


class InvalidValueError(HarvestError):
    """A value that is not one of its setting: ``what`` is wrong, and the ``remedy``, a sentence."""

    def __init__(self, what: str, remedy: str = "") -> None:
        self.what = what
        self.remedy = remedy
        super().__init__(f"{what}. {remedy}".rstrip())


def structure(setting: Setting, given: object) -> Any:
    """Return ``given``, of TOML's types, as a value of ``setting`` within its bounds.

    Text is taken where the setting is text, and nowhere parsed: ``idle_s = "120"`` in a file is a mistake.

    Raises:
        InvalidValueError: the wrong type, or out of range; both attributes are filled.
    """
    return _structure(_from_toml, setting, given)


def parse(setting: Setting, given: object) -> Any:
    """Return the text of a variable or a flag as a value of ``setting``; what is no text, as ``structure`` does.

    Raises:
        InvalidValueError: as ``structure``.
    """
    if not isinstance(given, str):
        return _structure(_from_toml, setting, given)
    return _structure(_from_text, setting, given.strip())


def _structure(converter: cattrs.Converter, setting: Setting, given: object) -> Any:
    try:
        value = converter.structure(given, setting.kind)
    except InvalidValueError as error:
        advice = f"{error.remedy} {remedy(setting)}".strip()
        raise InvalidValueError(f"{setting.path} is {show(given)}, {error.what}", advice) from None
    if isinstance(value, int | float) and not isinstance(value, bool):
        is_low_enough = setting.most is None or value <= setting.most
        is_high_enough = setting.least is None or value >= setting.least
        is_above = setting.above is None or value > setting.above
        if not (is_low_enough and is_high_enough and is_above):
            raise InvalidValueError(f"{setting.path} is {show(given)}, out of range", remedy(setting))
    return value


def _structure_float(value: object, _kind: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidValueError("not a number")
    try:
        number = float(value)
    except OverflowError:
        raise InvalidValueError("not a number that can be held") from None
    if not math.isfinite(number):
        raise InvalidValueError("not a finite number")
    return number


def _structure_int(value: object, _kind: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidValueError("not a whole number")
    return value


def _structure_bool(value: object, _kind: object) -> bool:
    if not isinstance(value, bool):
        raise InvalidValueError("neither true nor false")
    return value


def _structure_text(value: object, _kind: object) -> str:
    if not isinstance(value, str):
        raise InvalidValueError("not text")
    if not value.strip():
        raise InvalidValueError("empty")
    return value


def _structure_path(value: object, _kind: object) -> Path:
    if not isinstance(value, str | Path):
        raise InvalidValueError("not a path")
    if not str(value).strip():
        raise InvalidValueError("empty")
    try:
        # A shell expands ~ in a variable, and nobody does in a file.
        return Path(value).expanduser()
    except RuntimeError:
        raise InvalidValueError("in a home directory that is not known") from None


def _structure_texts(value: object, _kind: object) -> tuple[str, ...]:
    if not isinstance(value, list | tuple) or not all(isinstance(item, str) for item in value):
        raise InvalidValueError("not a list of texts")
    if not value:
        raise InvalidValueError("an empty list")
    return tuple(item.strip() for item in value)


def _structure_choices(value: object, kind: Any) -> tuple[str, ...]:
    (choice, _) = get_args(kind)
    return tuple(_structure_choice(item, choice) for item in _structure_texts(value, kind))


def _structure_choice(value: object, kind: Any) -> str:
    choices: tuple[str, ...] = get_args(kind)
    if isinstance(value, str):
        folded = {choice.casefold(): choice for choice in choices}
        if found := folded.get(value.strip().casefold()):
            return found
        if close := closest(value, choices):
            raise InvalidValueError("not one of its words", f"Did you mean {close}?")
    raise InvalidValueError("not one of its words")


def _parse_float(text: str, kind: object) -> float:
    try:
        number = float(text)
    except ValueError:
        raise InvalidValueError("not a number") from None
    return _structure_float(number, kind)


def _parse_int(text: str, _kind: object) -> int:
    try:
        return int(text)
    except ValueError:
        raise InvalidValueError("not a whole number") from None


def _parse_bool(text: str, _kind: object) -> bool:
    word = text.casefold()
    if word not in (*_TRUE, *_FALSE):
        raise InvalidValueError("neither true nor false")
    return word in _TRUE


def _parse_texts(text: str, kind: object) -> tuple[str, ...]:
    return _structure_texts(text.split(",") if text else [], kind)


def _parse_choices(text: str, kind: object) -> tuple[str, ...]:
    return _structure_choices(text.split(",") if text else [], kind)


def _is_choices(kind: Any) -> bool:
    return origin_of(kind) is tuple and origin_of(get_args(kind)[0]) is Literal


def _make_converter() -> cattrs.Converter:
    converter = cattrs.Converter(detailed_validation=False)

    def structure_optional(value: object, kind: Any) -> Any:
        if value is None or (isinstance(value, str) and value.strip().casefold() == NONE_WORD):
            return None
        return converter.structure(value, without_none(kind))

    converter.register_structure_hook(float, _structure_float)
    converter.register_structure_hook(int, _structure_int)
    converter.register_structure_hook(bool, _structure_bool)
    converter.register_structure_hook(str, _structure_text)
    converter.register_structure_hook(Path, _structure_path)
    converter.register_structure_hook_func(lambda kind: origin_of(kind) is tuple, _structure_texts)
    converter.register_structure_hook_func(_is_choices, _structure_choices)
    converter.register_structure_hook_func(lambda kind: origin_of(kind) is Literal, _structure_choice)
    converter.register_structure_hook_func(lambda kind: NoneType in get_args(kind), structure_optional)
    return converter


def _make_text_converter() -> cattrs.Converter:
    converter = _make_converter()
    converter.register_structure_hook(float, _parse_float)
    converter.register_structure_hook(int, _parse_int)
    converter.register_structure_hook(bool, _parse_bool)
    converter.register_structure_hook_func(lambda kind: origin_of(kind) is tuple, _parse_texts)
    converter.register_structure_hook_func(_is_choices, _parse_choices)
    return converter


_from_toml: Final = _make_converter()
_from_text: Final = _make_text_converter()
