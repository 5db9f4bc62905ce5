"""Where values come from: a settings file, a profile, the environment, flags. Each gives what it was told."""

from __future__ import annotations

import re
import tomllib
from typing import TYPE_CHECKING, Any

import attrs

from harvest.settings.catalog import (
    BY_FLAG,
    BY_VARIABLE,
    LEGACY_VARIABLES,
    PREFIX,
    PROFILE_VARIABLE,
    SECTIONS,
    SETTINGS,
    Setting,
)
from harvest.settings.positions import key_lines
from harvest.settings.problems import Problem, closest, one_line, show
from harvest.settings.profiles import PROFILES

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

#: A variable of another program may look a little like one of ours; a slip of the pen looks more so.
NEAR_MISS = 0.85


@attrs.frozen
class Given:
    """A value as it was given: ``origin`` says where, ``is_text`` that it is yet to be parsed."""

    setting: Setting
    value: object
    origin: str
    is_text: bool = False


@attrs.define
class Told:
    """What one or all sources told: values in rising order, and what was wrong or strange about them."""

    given: list[Given] = attrs.field(factory=list)
    problems: list[Problem] = attrs.field(factory=list)
    warnings: list[str] = attrs.field(factory=list)

    def add(self, other: Told) -> None:
        """Take in what a higher source told."""
        self.given += other.given
        self.problems += other.problems
        self.warnings += other.warnings


def read_file(path: Path) -> Told:
    """Read a settings file; origins are ``<path>:<line>``. It is never an error to the caller: see ``problems``."""
    name = str(path)
    try:
        raw = path.read_bytes()
    except OSError as error:
        why = error.strerror or type(error).__name__
        return Told(problems=[Problem(name, f"the settings file cannot be read: {why}", "Check --settings.")])
    try:
        text = raw.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        what = f"not UTF-8 (byte 0x{raw[error.start]:02x})"
        return Told(problems=[Problem(f"{name}:{line}", what, "Save the file as UTF-8.")])
    try:
        document = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        return Told(problems=[_broken_toml(name, text, error)])
    lines = key_lines(text)

    def place(*key: str) -> str:
        return f"{name}:{lines[key]}" if key in lines else name

    told = Told()
    for section, values in document.items():
        if section not in SECTIONS:
            told.problems.append(_unknown_section(place(section), section, values))
        elif not isinstance(values, dict):
            what = f"[{section}] is a section, and is given as {show(values)}"
            told.problems.append(Problem(place(section), what, f"Write [{section}] on a line of its own."))
        else:
            for key, value in values.items():
                if setting := SETTINGS.get(f"{section}.{key}"):
                    told.given.append(Given(setting, value, place(section, key)))
                else:
                    told.problems.append(_unknown_key(place(section, key), section, key))
    return told


def _broken_toml(name: str, text: str, error: Exception) -> Problem:
    message = str(error)
    remedy = "Mend it: text stands in quotes, a list in brackets, one setting on a line."
    if isinstance(error, RecursionError):
        return Problem(name, "not TOML that can be read: nested too deeply", remedy)
    if found := re.fullmatch(r"(.*) \(at line (\d+), column (\d+)\)", message, re.DOTALL):
        what, line, column = found.groups()
        return Problem(f"{name}:{line}", f"not valid TOML: {what} (column {column})", remedy)
    if message.endswith(" (at end of document)"):
        line = str(text.rstrip("\n").count("\n") + 1)
        return Problem(f"{name}:{line}", f"not valid TOML: {message}", remedy)
    return Problem(name, f"not TOML that can be read: {message}", remedy)


def _unknown_section(place: str, section: str, values: object) -> Problem:
    if isinstance(values, dict):
        close = closest(section, SECTIONS)
        remedy = f"Did you mean [{close}]?" if close else f"Sections are {', '.join(SECTIONS)}."
        return Problem(place, f"unknown section [{section}]", remedy)
    if section == "profile":
        remedy = f"A profile is chosen by --profile or ${PROFILE_VARIABLE}."
        return Problem(place, "unknown key profile", remedy)
    return _unknown_key(place, None, section)


def _unknown_key(place: str, section: str | None, key: str) -> Problem:
    known = {setting.key: setting for setting in SETTINGS.values() if setting.section == section}
    what = f"unknown key {key} in [{section}]" if section else f"unknown key {key} outside of any section"
    if meant := _setting_meant(key, known):
        home = "" if meant.section == section else f" in [{meant.section}]"
        return Problem(place, what, f"Did you mean {meant.key}{home}?")
    if known:
        return Problem(place, what, f"Keys of [{section}] are {', '.join(known)}.")
    return Problem(place, what, f"Sections are {', '.join(SECTIONS)}.")


def _setting_meant(key: str, siblings: Mapping[str, Setting]) -> Setting | None:
    # The key of another section or a variable's name is a better guess than a sibling that is a bit like it.
    elsewhere = {setting.key: setting for setting in SETTINGS.values()}
    exact = elsewhere | {name.casefold(): setting for name, setting in BY_VARIABLE.items()}
    if found := exact.get(key.casefold()):
        return found
    if close := closest(key, siblings):
        return siblings[close]
    if close := closest(key, elsewhere, cutoff=0.75):
        return elsewhere[close]
    return None


def read_profile(profile: str | None, environ: Mapping[str, str]) -> Told:
    """Give the values of the profile that the flag names, or else the environment."""
    origin = "--profile"
    if profile is None:
        profile, origin = environ.get(PROFILE_VARIABLE, "").strip() or None, f"${PROFILE_VARIABLE}"
    if profile is None:
        return Told()
    if profile not in PROFILES:
        close = closest(profile, PROFILES)
        hint = f"Did you mean {close}? " if close else ""
        remedy = f"{hint}Profiles are {', '.join(PROFILES)}."
        return Told(problems=[Problem(origin, f"no profile {show(profile)}", remedy)])
    values: dict[str, Any] = PROFILES[profile]
    return Told(given=[Given(SETTINGS[path], value, f"profile {profile}") for path, value in values.items()])


def read_environment(environ: Mapping[str, str]) -> Told:
    """Give what variables say; an empty one counts as unset, an unknown one of ours as a problem."""
    told = Told()
    filled = {name: value for name, value in environ.items() if value.strip()}
    for name, setting in BY_VARIABLE.items():
        if name in filled:
            told.given.append(Given(setting, filled[name], f"${name}", is_text=True))
    ours = {name.removeprefix(PREFIX): name for name in (*BY_VARIABLE, PROFILE_VARIABLE)}
    for name in sorted(filled.keys() - BY_VARIABLE.keys() - {PROFILE_VARIABLE}):
        if name.startswith(PREFIX):
            close = closest(name.removeprefix(PREFIX), ours)
            remedy = (
                f"Did you mean {ours[close]}?"
                if close
                else "Unset it, or see settings.toml for those there are."
            )
            told.problems.append(Problem(f"${name}", "unknown variable", remedy))
        elif (meant := closest(name, LEGACY_VARIABLES, NEAR_MISS)) and meant not in filled:
            told.warnings.append(
                one_line(f"${name}: not a variable of harvest, and not read. Did you mean {meant}?")
            )
    return told


def read_flags(flags: Mapping[str, object]) -> Told:
    """Give what flags say; None is one that was not given.

    Raises:
        ValueError: a flag that is no setting's, which is a mistake of the caller, not of the user.
    """
    if unknown := sorted(flags.keys() - BY_FLAG.keys()):
        raise ValueError(f"no setting has the flags {', '.join(unknown)}")
    return Told(
        given=[
            Given(BY_FLAG[flag], value, flag, is_text=True)
            for flag, value in flags.items()
            if value is not None
        ]
    )
