"""How a fault of the settings is told: one line that says the place, what is wrong, and what to do."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Final

import attrs

if TYPE_CHECKING:
    from collections.abc import Iterable

    from harvest.settings.catalog import Setting

#: A value in a message is cut here; the place says where the whole of it stands.
SHOWN_CHARACTERS: Final = 80


@attrs.frozen
class Problem:
    """A fault: ``place`` is an origin such as ``settings.toml:12``; ``remedy`` is a whole sentence."""

    place: str
    what: str
    remedy: str

    def __str__(self) -> str:
        return one_line(f"{self.place}: {self.what}. {self.remedy}")


def one_line(text: str) -> str:
    """Escape what would break the line, or what a terminal cannot show."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in text
    )


def show(value: object) -> str:
    """Quote ``value`` as it was given, cut to a readable length."""
    try:
        text = repr(value)
    except ValueError:  # Python refuses to write an integer of more than 4300 digits in decimal.
        return "a number of thousands of digits"
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[: SHOWN_CHARACTERS - 3]}..."


def show_number(value: float) -> str:
    """Write a number plainly: 120 rather than 120.0, 16777216 rather than 1.67772e+07."""
    return str(int(value)) if value == int(value) and abs(value) < 1e15 else repr(value)


def show_with_unit(value: float, unit: str) -> str:
    """Write a number with its unit; whole binary multiples of bytes as KiB, MiB or GiB."""
    if unit == "bytes" and value:
        for name, size in (("GiB", 1024**3), ("MiB", 1024**2), ("KiB", 1024)):
            if value % size == 0:
                return f"{show_number(value // size)} {name}"
    return f"{show_number(value)} {unit}".rstrip()


def closest(name: str, known: Iterable[str], cutoff: float = 0.6) -> str | None:
    """Return the known name that ``name`` was probably meant to be, whatever its case."""
    folded = {candidate.casefold(): candidate for candidate in known}
    matches = difflib.get_close_matches(name.casefold(), folded, n=1, cutoff=cutoff)
    return folded[matches[0]] if matches else None


def name_setting(setting: Setting) -> str:
    """Name a setting as a remedy does: by its path and its variable."""
    return f"{setting.path} (${setting.env})"
