from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harvest.settings.catalog import SETTINGS, Setting
from harvest.settings.values import InvalidValueError, parse, structure


def refusal(read: Any, path: str, value: object) -> str:
    with pytest.raises(InvalidValueError) as caught:
        read(SETTINGS[path], value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("streams.idle_s", 90, 90.0),
        ("streams.idle_s", 0.5, 0.5),
        ("streams.ping_interval_s", 0, 0.0),
        ("writer.save_concurrency", 64, 64),
        ("streams.allow_insecure", True, True),
        ("capture.venue", "binance-spot", "binance-spot"),
        ("capture.trade_event", "AGGTRADE", "aggTrade"),
        ("log.level", "INFO", "info"),
        ("capture.symbols", ["btcusdt", " X "], ("btcusdt", "X")),
        ("capture.output_dir", "there", Path("there")),
        ("capture.run_hours", "none", None),
        ("capture.run_hours", 0.1, 0.1),
        ("streams.max_streams", "None", None),
        ("streams.max_streams", 7, 7),
        ("streams.ws_url", "none", None),
        ("streams.ws_url", "ws://localhost", "ws://localhost"),
        ("rest.weight_share", 1, 1.0),
    ],
)
def test_a_value_of_toml_becomes_the_settings_own_type(path: str, value: object, expected: object) -> None:
    result = structure(SETTINGS[path], value)
    assert result == expected
    assert type(result) is type(expected)


@pytest.mark.parametrize(
    ("path", "text", "expected"),
    [
        ("streams.idle_s", " 90 ", 90.0),
        ("streams.idle_s", "1.5e1", 15.0),
        ("writer.save_concurrency", "4", 4),
        ("streams.max_message_bytes", "16_777_216", 16_777_216),
        ("streams.allow_insecure", "Yes", True),
        ("streams.allow_insecure", "0", False),
        ("capture.symbols", "BTCUSDT, ethusdt", ("BTCUSDT", "ethusdt")),
        ("capture.symbols", "A,,B,", ("A", "", "B", "")),
        ("capture.output_dir", "a b", Path("a b")),
        ("capture.run_hours", "NONE", None),
        ("capture.run_hours", "2", 2.0),
        ("streams.max_streams", "200", 200),
        ("log.format", "JSON", "json"),
    ],
)
def test_text_is_parsed_into_the_settings_own_type(path: str, text: str, expected: object) -> None:
    result = parse(SETTINGS[path], text)
    assert result == expected
    assert type(result) is type(expected)


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("capture.run_hours", 2, 2.0),
        ("capture.output_dir", Path("x"), Path("x")),
        ("capture.symbols", ("A",), ("A",)),
    ],
)
def test_a_flag_that_is_typed_already_is_taken_as_it_is(path: str, value: object, expected: object) -> None:
    assert parse(SETTINGS[path], value) == expected


def test_a_home_directory_is_expanded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert structure(SETTINGS["capture.output_dir"], "~/ticks") == tmp_path / "ticks"


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (
            "streams.idle_s",
            "120",
            "streams.idle_s is '120', not a number. Give more than 0 and at most 604800 seconds; the default is 120.",
        ),
        (
            "streams.idle_s",
            True,
            "streams.idle_s is True, not a number. Give more than 0 and at most 604800 seconds; the default is 120.",
        ),
        (
            "streams.idle_s",
            math.nan,
            "streams.idle_s is nan, not a finite number. Give more than 0 and at most 604800 seconds; the default "
            "is 120.",
        ),
        (
            "streams.ping_interval_s",
            -1,
            "streams.ping_interval_s is -1, out of range. Give 0 to 604800 seconds; the default is 20.",
        ),
        (
            "writer.save_concurrency",
            2.0,
            "writer.save_concurrency is 2.0, not a whole number. Give 1 to 64 files; the default is 2.",
        ),
        (
            "writer.save_concurrency",
            True,
            "writer.save_concurrency is True, not a whole number. Give 1 to 64 files; the default is 2.",
        ),
        (
            "streams.allow_insecure",
            1,
            "streams.allow_insecure is 1, neither true nor false. Give true or false; the default is false.",
        ),
        ("capture.venue", 5, "capture.venue is 5, not text. Give text; the default is binance-usdm."),
        ("capture.venue", " ", "capture.venue is ' ', empty. Give text; the default is binance-usdm."),
        (
            "capture.symbols",
            "BTCUSDT",
            "capture.symbols is 'BTCUSDT', not a list of texts. "
            'Give ["BTCUSDT", "ETHUSDT"], say, in a file, and BTCUSDT,ETHUSDT elsewhere.',
        ),
        (
            "capture.symbols",
            [],
            "capture.symbols is [], an empty list. "
            'Give ["BTCUSDT", "ETHUSDT"], say, in a file, and BTCUSDT,ETHUSDT elsewhere.',
        ),
        (
            "capture.symbols",
            ["A", 1],
            "capture.symbols is ['A', 1], not a list of texts. "
            'Give ["BTCUSDT", "ETHUSDT"], say, in a file, and BTCUSDT,ETHUSDT elsewhere.',
        ),
        ("capture.output_dir", 1, "capture.output_dir is 1, not a path. Give a path; the default is data."),
        ("capture.output_dir", "", "capture.output_dir is '', empty. Give a path; the default is data."),
        (
            "capture.run_hours",
            0,
            "capture.run_hours is 0, out of range. "
            'Give more than 0 and at most 1000000 hours, or "none" (for ever).',
        ),
        (
            "capture.run_hours",
            "ever",
            "capture.run_hours is 'ever', not a number. "
            'Give more than 0 and at most 1000000 hours, or "none" (for ever).',
        ),
        ("streams.ws_url", 1, 'streams.ws_url is 1, not text. Give text, or "none" (the venue\'s).'),
        (
            "log.format",
            "jsn",
            "log.format is 'jsn', not one of its words. Did you mean json? Give human or json; the default is human.",
        ),
        (
            "log.level",
            3,
            "log.level is 3, not one of its words. Give one of debug, info, warning, error; the default is info.",
        ),
        (
            "rest.weight_share",
            1.5,
            "rest.weight_share is 1.5, out of range. Give more than 0 and at most 1; the default is 0.5.",
        ),
    ],
)
def test_a_wrong_value_is_refused_with_what_it_should_be(path: str, value: object, message: str) -> None:
    assert refusal(structure, path, value) == message


@pytest.mark.parametrize("text", ["nan", "inf", "-Infinity", "1e999", "12s", "", "0x10", "1,5"])
def test_text_that_is_no_finite_number_is_refused(text: str) -> None:
    assert refusal(parse, "streams.idle_s", text).startswith(f"streams.idle_s is {text!r}, not a ")


@pytest.mark.parametrize("text", ["2.0", "two", "1e3", "9" * 5000])
def test_text_that_is_no_whole_number_is_refused(text: str) -> None:
    assert ", not a whole number. Give 1 to 64 files" in refusal(parse, "writer.save_concurrency", text)


def test_an_integer_too_large_for_a_float_or_for_print_is_refused_in_words() -> None:
    assert "not a number that can be held" in refusal(structure, "streams.idle_s", 10**400)
    assert refusal(structure, "writer.save_concurrency", 1 << 20_000).startswith(
        "writer.save_concurrency is a number of thousands of digits, out of range."
    )


def test_a_long_value_is_cut_in_the_message() -> None:
    message = refusal(structure, "streams.idle_s", "x" * 10_000)
    assert len(message) < 250


def check_taken_or_refused(read: Any, setting: Setting, given: object) -> None:
    try:
        result = read(setting, given)
    except InvalidValueError as error:
        refused = error
    else:
        # What was taken is taken again, unchanged: there is one form of a value.
        assert structure(setting, result) == result
        return
    assert refused.what.startswith(f"{setting.path} is ")
    assert refused.remedy.startswith(("Give ", "Did you mean "))


json_like = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@given(st.sampled_from(list(SETTINGS.values())), json_like)
def test_any_value_at_all_is_either_one_of_the_setting_or_refused(setting: Setting, value: object) -> None:
    check_taken_or_refused(structure, setting, value)


@given(st.sampled_from(list(SETTINGS.values())), st.text() | st.integers().map(str) | st.floats().map(str))
def test_any_text_at_all_is_either_a_value_of_the_setting_or_refused(setting: Setting, text: str) -> None:
    check_taken_or_refused(parse, setting, text)
