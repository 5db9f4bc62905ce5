"""What a run takes over from settings that are loaded anew."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from harvest.settings import Settings
from harvest.settings.reload import compare

if TYPE_CHECKING:
    from tests.settings.conftest import Asker


def test_symbols_of_the_file_are_taken_over_in_their_order(asker: Asker) -> None:
    found = compare(Settings(), asker.load('[capture]\nsymbols = ["solusdt", "BTCUSDT", "SOLUSDT"]\n'))
    assert (found.symbols, found.fixed_by, found.warnings) == (("SOLUSDT", "BTCUSDT"), None, [])


def test_a_file_that_says_nothing_of_symbols_means_the_default(asker: Asker) -> None:
    assert compare(Settings(), asker.load("")).symbols == ("BTCUSDT", "ETHUSDT")


@pytest.mark.parametrize("origin", ["--symbols", "$SYMBOLS"])
def test_symbols_that_a_flag_or_a_variable_gives_are_named_as_fixed(origin: str, asker: Asker) -> None:
    toml = '[capture]\nsymbols = ["SOLUSDT"]\n'
    flags = {"--symbols": "BNBUSDT"} if origin == "--symbols" else {}
    loaded = asker.load(toml, environ={"SYMBOLS": "ETHUSDT"}, flags=flags)
    found = compare(loaded.settings, loaded)
    assert (found.symbols, found.fixed_by) == (None, origin)


def test_every_other_setting_that_has_changed_is_named_with_both_values_and_its_place(asker: Asker) -> None:
    toml = '[capture]\nsymbols = ["SOLUSDT"]\n[streams]\nidle_s = 60\n[rotation]\nrotate_s = 60\n[log]\nlevel = "debug"\n'
    found = compare(Settings(), asker.load(toml))
    assert found.symbols == ("SOLUSDT",)
    idle, level = found.warnings
    assert "streams.idle_s = 60" in idle
    assert "settings.toml:4" in idle
    assert "goes on with 120.0" in idle
    assert "log.level = 'debug'" in level
