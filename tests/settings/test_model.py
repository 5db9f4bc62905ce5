from __future__ import annotations

from pathlib import Path
from typing import get_args

import attrs
import pytest

from harvest.settings import CaptureSettings, RestSettings, Settings, StreamSettings
from harvest.settings.catalog import BY_FLAG, BY_VARIABLE, CONCERNS, LEGACY_VARIABLES, SETTINGS, Setting
from harvest.settings.profiles import PROFILES
from harvest.settings.values import structure

#: The names and defaults that users of the replaced recorder have in their scripts.
LEGACY = {
    "STREAM_IDLE_SEC": 120,
    "TRADE_TIMEOUT": 150,
    "ORDERBOOK_TIMEOUT": 180,
    "HEALTH_CHECK_INTERVAL": 25,
    "SAVE_CONCURRENCY": 2,
    "PARQUET_ROTATE_SEC": 60,
    "EXTREME_TRAFFIC_THRESHOLD": 30_000,
    "EXTREME_ROTATE_SEC": 30,
    "RUN_HOURS": None,
    "SYMBOLS": ("BTCUSDT", "ETHUSDT"),
    "OUTPUT_DIR": Path("data"),
    "MAX_ROWS_PER_FILE": 200_000,
    "BACKOFF_RESET_SECS": 300,
    "WSS_PING_INTERVAL": 20,
}


def test_the_variables_of_the_replaced_recorder_keep_their_names_and_defaults() -> None:
    assert {name: BY_VARIABLE[name].default for name in LEGACY_VARIABLES} == LEGACY


def test_every_other_variable_has_the_prefix_and_a_name_of_its_own() -> None:
    assert len(BY_VARIABLE) == len(SETTINGS)
    assert all(name in LEGACY or name.startswith("HARVEST_") for name in BY_VARIABLE)
    for setting in SETTINGS.values():
        if setting.unit == "s" and setting.env.startswith("HARVEST_"):
            assert setting.env.endswith("_SEC")


def test_the_flags_are_those_of_the_command_line() -> None:
    assert set(BY_FLAG) == {
        "--venue",
        "--symbols",
        "--output-dir",
        "--hours",
        "--keep-days",
        "--keep-raw",
        "--trade-event",
        "--depth-interval-ms",
        "--channels",
        "--connections",
        "--log-format",
        "--log-level",
    }


@pytest.mark.parametrize("setting", SETTINGS.values(), ids=SETTINGS)
def test_every_setting_has_a_default_within_its_bounds_and_says_what_it_is(setting: Setting) -> None:
    given = list(setting.default) if isinstance(setting.default, tuple) else setting.default
    assert structure(setting, given) == setting.default
    assert setting.help
    assert not setting.help.endswith(".")
    if setting.kind in (int, float) or {int, float} & set(get_args(setting.kind)):
        assert setting.most is not None
        assert (setting.least is None) != (setting.above is None)
    if setting.key.endswith(("_s", "_bytes", "_ms", "_rows", "_hours")):
        assert setting.unit
    if setting.default is None:
        assert setting.none != "none"


def test_the_profiles_have_the_numbers_that_the_documentation_gives() -> None:
    paths = (
        "streams.idle_s",
        "health.trade_timeout_s",
        "health.orderbook_timeout_s",
        "health.channel_timeout_s",
        "health.interval_s",
        "writer.save_concurrency",
        "rotation.extreme_threshold_rows",
    )
    numbers = {name: tuple(values[path] for path in paths) for name, values in PROFILES.items()}
    assert numbers == {
        "conservative": (120, 150, 180, 180, 25, 2, 30_000),
        "aggressive": (60, 90, 120, 120, 15, 4, 20_000),
        "testing": (10, 15, 20, 20, 5, 3, 1_000),
    }
    assert [set(values) - set(paths) for values in PROFILES.values()] == [
        set(),
        set(),
        {"capture.run_hours", "channels.open_interest_s"},
    ]
    assert PROFILES["testing"]["capture.run_hours"] == 0.1


def test_the_conservative_profile_is_the_defaults() -> None:
    assert all(SETTINGS[path].default == value for path, value in PROFILES["conservative"].items())


def test_settings_are_frozen() -> None:
    settings = Settings()
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        settings.streams.idle_s = 1  # type: ignore[misc]
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        settings.streams = StreamSettings()  # type: ignore[misc]


def test_a_concern_can_be_made_by_itself_with_some_values_changed() -> None:
    assert StreamSettings(idle_s=3).idle_s == 3
    assert CONCERNS["streams"] is StreamSettings


def test_symbols_are_upper_case_and_unique_in_their_order() -> None:
    assert CaptureSettings(symbols=("ethusdt", "BTCUSDT", "ETHUSDT", "牛来usdt")).symbols == (
        "ETHUSDT",
        "BTCUSDT",
        "牛来USDT",
    )


def test_a_url_ends_without_a_slash_so_that_paths_can_follow() -> None:
    assert StreamSettings(ws_url="ws://localhost:1/").ws_url == "ws://localhost:1"
    assert RestSettings(url="http://localhost:1").url == "http://localhost:1"
