"""The settings as a list: what each is called in a file, in the environment and on the command line."""

from __future__ import annotations

from typing import Any, Final

import attrs

from harvest.settings.model import Settings

#: Chooses the profile, as --profile does; the only variable that is not a setting.
PROFILE_VARIABLE: Final = "HARVEST_PROFILE"
#: What harvest's own variables begin with, so that an unknown one can be told.
PREFIX: Final = "HARVEST_"


@attrs.frozen
class Setting:
    """One setting: ``section`` and ``key`` in a file, ``env`` and ``flag`` elsewhere, and its bounds.

    ``kind`` is its type; ``least`` and ``most`` are inclusive, ``above`` is not; ``none`` says in words what
    None means.
    """

    section: str
    key: str
    kind: Any
    default: Any
    env: str
    unit: str
    help: str
    flag: str | None
    least: float | None
    most: float | None
    above: float | None
    none: str

    @property
    def path(self) -> str:
        """Return ``section.key``."""
        return f"{self.section}.{self.key}"


def _concerns() -> dict[str, Any]:
    return {field.name: field.type for field in attrs.fields(attrs.resolve_types(Settings))}


def _catalogue() -> dict[str, Setting]:
    settings = {}
    for section, concern in CONCERNS.items():
        for field in attrs.fields(attrs.resolve_types(concern)):
            facts = field.metadata
            setting = Setting(
                section=section,
                key=field.name,
                kind=field.type,
                default=field.default,
                env=facts["env"],
                unit=facts["unit"],
                help=facts["help"],
                flag=facts.get("flag"),
                least=facts.get("min"),
                most=facts.get("max"),
                above=facts.get("above"),
                none=facts.get("none", "none"),
            )
            settings[setting.path] = setting
    return settings


#: The class of each section, in the order of a file.
CONCERNS: Final = _concerns()
#: Every setting by its path, in the order of the classes.
SETTINGS: Final = _catalogue()
SECTIONS: Final = tuple(CONCERNS)
BY_VARIABLE: Final = {setting.env: setting for setting in SETTINGS.values()}
BY_FLAG: Final = {setting.flag: setting for setting in SETTINGS.values() if setting.flag}
#: The variables of the recorder that harvest replaces: without the prefix.
LEGACY_VARIABLES: Final = tuple(name for name in BY_VARIABLE if not name.startswith(PREFIX))
