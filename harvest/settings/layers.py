"""Defaults < settings file < profile < environment < flags: the values that hold, and where each came from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import attrs

from harvest.errors import SettingsError
from harvest.settings.catalog import CONCERNS, SETTINGS
from harvest.settings.checks import Effective, check
from harvest.settings.model import Settings
from harvest.settings.problems import Problem
from harvest.settings.sources import Given, Told, read_environment, read_file, read_flags, read_profile
from harvest.settings.values import InvalidValueError, parse, structure

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Read from the current directory, if it is there and no other file is named.
DEFAULT_FILE: Final = Path("settings.toml")

Origin = str
"""Where a value came from: ``default``, ``settings.toml:12``, ``profile testing``, ``$SYMBOLS``, ``--symbols``."""


@attrs.frozen
class Loaded:
    """Settings that can be run with; ``origins`` has every ``section.key``; ``warnings`` are one line each."""

    settings: Settings
    origins: dict[str, Origin]
    warnings: list[str]


def load(
    *,
    settings_file: Path | None,
    profile: str | None,
    environ: Mapping[str, str],
    flags: Mapping[str, object],
) -> Loaded:
    """Gather the settings from all layers and check them; nothing is written or created.

    Without ``settings_file``, ``settings.toml`` of the current directory is read if there is one. ``flags`` are
    by name (``--symbols``), text or typed; None is not given. Every value is checked, even one that a higher
    layer overrides.

    Raises:
        SettingsError: with every problem of every layer.
    """
    told = Told()
    if settings_file is not None or DEFAULT_FILE.is_file():
        told.add(read_file(settings_file or DEFAULT_FILE))
    told.add(read_profile(profile, environ))
    told.add(read_environment(environ))
    told.add(read_flags(flags))
    effective, refused = _lay_over(told.given)
    faults, warnings = check(effective)
    if problems := [*told.problems, *refused, *faults]:
        raise SettingsError([str(problem) for problem in problems])
    return Loaded(_build(effective.values), effective.origins, told.warnings + warnings)


def _lay_over(given_values: list[Given]) -> tuple[Effective, list[Problem]]:
    problems = []
    effective = Effective(
        values={path: setting.default for path, setting in SETTINGS.items()},
        origins=dict.fromkeys(SETTINGS, "default"),
    )
    for given in given_values:
        path = given.setting.path
        effective.broken.discard(path)
        effective.origins[path] = given.origin
        try:
            read = parse if given.is_text else structure
            effective.values[path] = read(given.setting, given.value)
        except InvalidValueError as error:
            problems.append(Problem(given.origin, error.what, error.remedy))
            effective.broken.add(path)
    return effective, problems


def _build(values: Mapping[str, Any]) -> Settings:
    sections: dict[str, dict[str, Any]] = {section: {} for section in CONCERNS}
    for path, setting in SETTINGS.items():
        sections[setting.section][setting.key] = values[path]
    return Settings(**{section: concern(**sections[section]) for section, concern in CONCERNS.items()})
