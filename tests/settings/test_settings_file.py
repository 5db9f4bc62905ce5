"""settings.toml and the model say the same, both ways."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from harvest.settings import Settings
from harvest.settings.catalog import CONCERNS, SETTINGS, Setting

if TYPE_CHECKING:
    from tests.settings.conftest import Asker

SHIPPED = Path(__file__).resolve().parents[2] / "settings.toml"
UNITS = {"s": "seconds", "h": "hours", "ms": "milliseconds"}


def documented() -> dict[str, list[str]]:
    """The comment above each setting in the file, by path."""
    comments: dict[str, list[str]] = {}
    section, above = "", []
    for line in SHIPPED.read_text(encoding="utf-8").splitlines():
        if header := re.match(r"\[(\w+)\]", line):
            section, above = header[1], []
        elif setting := re.match(r"#(\w+) = ", line):
            comments[f"{section}.{setting[1]}"] = above
            above = []
        elif line.startswith("# "):
            above.append(line.removeprefix("# "))
        else:
            assert not line, f"neither a comment, a setting, a section nor blank: {line}"
            above = []
    return comments


def uncommented() -> str:
    return re.sub(r"^#(?=\w)", "", SHIPPED.read_text(encoding="utf-8"), flags=re.MULTILINE)


def test_as_shipped_it_changes_nothing(asker: Asker) -> None:
    loaded = asker.load(settings_file=SHIPPED)
    assert loaded.settings == Settings()
    assert set(loaded.origins.values()) == {"default"}


def test_its_settings_are_those_of_the_model_in_the_same_order() -> None:
    assert list(documented()) == list(SETTINGS)
    assert list(tomllib.loads(SHIPPED.read_text(encoding="utf-8"))) == list(CONCERNS)


def test_uncommented_it_gives_exactly_the_defaults_each_from_its_line(asker: Asker) -> None:
    document = uncommented()
    loaded = asker.load(document)
    assert loaded.settings == Settings()
    lines = document.splitlines()
    for path, origin in loaded.origins.items():
        name, line = origin.rsplit(":", 1)
        assert name == "settings.toml"
        assert lines[int(line) - 1].startswith(f"{SETTINGS[path].key} = ")


@pytest.mark.parametrize("setting", SETTINGS.values(), ids=SETTINGS)
def test_each_setting_says_what_it_is_with_its_unit_and_its_names(setting: Setting) -> None:
    *about, names = documented()[setting.path]
    none = f" (none: {setting.none})" if setting.default is None else ""
    assert " ".join(about).lower() == f"{setting.help}{none}.".lower()
    called = ", ".join(name for name in (f"${setting.env}", setting.flag) if name)
    unit = UNITS.get(setting.unit, setting.unit)
    assert names == (f"{unit}; {called}" if unit else called)


def test_each_section_says_what_it_is_for() -> None:
    text = SHIPPED.read_text(encoding="utf-8")
    for name, concern in CONCERNS.items():
        assert f"[{name}]  # {concern.__doc__.splitlines()[0]}\n" in text
