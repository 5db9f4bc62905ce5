from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from harvest.settings import Settings

if TYPE_CHECKING:
    from tests.settings.conftest import Asker


def test_without_any_layer_everything_is_a_default(asker: Asker) -> None:
    loaded = asker.load()
    assert loaded.settings == Settings()
    assert set(loaded.origins.values()) == {"default"}
    assert loaded.warnings == []


def test_a_file_gives_values_with_their_lines(asker: Asker) -> None:
    loaded = asker.load('# mine\n[capture]\nsymbols = [\n "solusdt",\n]\n\n[streams]\nidle_s = 60\n')
    assert loaded.settings.capture.symbols == ("SOLUSDT",)
    assert loaded.settings.streams.idle_s == 60
    assert loaded.origins["capture.symbols"] == "settings.toml:3"
    assert loaded.origins["streams.idle_s"] == "settings.toml:8"
    assert loaded.origins["streams.backoff_max_s"] == "default"


def test_a_file_in_dotted_or_inline_form_has_its_lines_too(asker: Asker) -> None:
    loaded = asker.load("streams.idle_s = 60\nhealth = {interval_s = 7}\n")
    assert loaded.origins["streams.idle_s"] == "settings.toml:1"
    assert loaded.origins["health.interval_s"] == "settings.toml:2"


def test_a_named_file_is_read_instead_of_the_one_in_the_directory(asker: Asker, tmp_path: Path) -> None:
    other = tmp_path / "conf" / "other.toml"
    other.parent.mkdir()
    other.write_text("[streams]\nidle_s = 50\n")
    loaded = asker.load("[streams]\nidle_s = 60\n", settings_file=other)
    assert loaded.settings.streams.idle_s == 50
    assert loaded.origins["streams.idle_s"] == f"{other}:2"


def test_a_named_file_that_is_missing_is_a_problem(asker: Asker) -> None:
    problem = asker.problem(settings_file=Path("mine.toml"))
    assert (
        problem == "mine.toml: the settings file cannot be read: No such file or directory. Check --settings."
    )


def test_a_directory_for_a_file_is_a_problem(asker: Asker, tmp_path: Path) -> None:
    assert "the settings file cannot be read: " in asker.problem(settings_file=tmp_path)


@pytest.mark.parametrize(
    ("document", "problem"),
    [
        (
            "[streams]\nidle_s 120\n",
            "settings.toml:2: not valid TOML: Expected '=' after a key in a key/value pair (column 8). "
            "Mend it: text stands in quotes, a list in brackets, one setting on a line.",
        ),
        (
            "[streams]\nidle_s = 1\nidle_s = 2\n",
            "settings.toml:3: not valid TOML: Cannot overwrite a value (column 11). "
            "Mend it: text stands in quotes, a list in brackets, one setting on a line.",
        ),
        (
            '[capture]\nsymbols = ["A",\n\n',
            "settings.toml:2: not valid TOML: Invalid value (at end of document). "
            "Mend it: text stands in quotes, a list in brackets, one setting on a line.",
        ),
        (
            b"[capture]\n# caf\xe9\n",
            "settings.toml:2: not UTF-8 (byte 0xe9). Save the file as UTF-8.",
        ),
    ],
)
def test_a_file_that_is_not_toml_is_one_problem_with_its_line(
    asker: Asker, document: str | bytes, problem: str
) -> None:
    assert asker.problem(document) == problem


@pytest.mark.parametrize("document", ["a = " + "[" * 100_000, "a = " + "9" * 10_000])
def test_a_file_that_exhausts_the_reader_is_a_problem_too(asker: Asker, document: str) -> None:
    assert asker.problem(document).startswith("settings.toml: not TOML that can be read: ")


def test_a_byte_order_mark_is_no_part_of_the_file(asker: Asker) -> None:
    loaded = asker.load(b"\xef\xbb\xbf[streams]\r\nidle_s = 60\r\n")
    assert loaded.origins["streams.idle_s"] == "settings.toml:2"


@pytest.mark.parametrize(
    ("document", "problem"),
    [
        ("[stream]\nidle_s = 1\n", "settings.toml:1: unknown section [stream]. Did you mean [streams]?"),
        (
            "[x]\n",
            "settings.toml:1: unknown section [x]. "
            "Sections are capture, channels, streams, health, rotation, writer, journal, compaction, book, rest, log.",
        ),
        (
            "\n[streams]\nidle_sec = 1\n",
            "settings.toml:3: unknown key idle_sec in [streams]. Did you mean idle_s?",
        ),
        (
            "[streams]\ntrade_timeout_s = 1\n",
            "settings.toml:2: unknown key trade_timeout_s in [streams]. Did you mean trade_timeout_s in [health]?",
        ),
        (
            "[streams]\nTRADE_TIMEOUT = 1\n",
            "settings.toml:2: unknown key TRADE_TIMEOUT in [streams]. Did you mean trade_timeout_s in [health]?",
        ),
        (
            "[health]\nqqq = 1\n",
            "settings.toml:2: unknown key qqq in [health]. "
            "Keys of [health] are interval_s, trade_timeout_s, orderbook_timeout_s, "
            "channel_timeout_s.",
        ),
        (
            "STREAM_IDLE_SEC = 1\n",
            "settings.toml:1: unknown key STREAM_IDLE_SEC outside of any section. Did you mean idle_s in [streams]?",
        ),
        (
            "qqq = 1\n",
            "settings.toml:1: unknown key qqq outside of any section. "
            "Sections are capture, channels, streams, health, rotation, writer, journal, compaction, book, rest, log.",
        ),
        (
            'profile = "testing"\n',
            "settings.toml:1: unknown key profile. A profile is chosen by --profile or $HARVEST_PROFILE.",
        ),
        (
            "streams = 3\n",
            "settings.toml:1: [streams] is a section, and is given as 3. Write [streams] on a line of its own.",
        ),
        (
            "\n[[streams]]\n",
            "settings.toml:2: [streams] is a section, and is given as [{}]. Write [streams] on a line of its own.",
        ),
        (
            '[streams]\n"a\\nb" = 1\n',
            "settings.toml:2: unknown key a\\nb in [streams]. Keys of [streams] are idle_s, backoff_reset_s, "
            "backoff_initial_s, backoff_max_s, ping_interval_s, ping_timeout_s, connect_timeout_s, "
            "close_timeout_s, first_message_s, handover_s, connections, max_streams, max_message_bytes, "
            "receive_bytes, coalesce_ms, ws_url, allow_insecure.",
        ),
    ],
)
def test_an_unknown_name_in_a_file_is_a_problem_with_a_guess(
    asker: Asker, document: str, problem: str
) -> None:
    assert asker.problem(document) == problem


def test_a_profile_gives_its_values_by_name(asker: Asker) -> None:
    loaded = asker.load(profile="testing")
    assert loaded.settings.streams.idle_s == 10
    assert loaded.settings.capture.run_hours == 0.1
    assert loaded.origins["capture.run_hours"] == "profile testing"


def test_the_environment_can_name_the_profile_and_the_flag_wins(asker: Asker) -> None:
    environ = {"HARVEST_PROFILE": "testing"}
    assert asker.load(environ=environ).settings.health.interval_s == 5
    assert asker.load(environ=environ, profile="aggressive").settings.health.interval_s == 15
    assert asker.load(environ={"HARVEST_PROFILE": " "}).settings.health.interval_s == 25


@pytest.mark.parametrize("profile", ["conservative", "aggressive", "testing"])
def test_every_profile_passes_the_checks(asker: Asker, profile: str) -> None:
    assert asker.load(profile=profile).warnings == []


def test_an_unknown_profile_is_a_problem_with_a_guess(asker: Asker) -> None:
    assert asker.problem(profile="agressive") == (
        "--profile: no profile 'agressive'. Did you mean aggressive? "
        "Profiles are conservative, aggressive, testing."
    )
    assert asker.problem(environ={"HARVEST_PROFILE": "zzz"}) == (
        "$HARVEST_PROFILE: no profile 'zzz'. Profiles are conservative, aggressive, testing."
    )


def test_a_variable_gives_its_value_and_an_empty_one_counts_as_unset(asker: Asker) -> None:
    loaded = asker.load(
        environ={"SYMBOLS": "solusdt, btcusdt,SOLUSDT", "TRADE_TIMEOUT": "", "RUN_HOURS": "  "}
    )
    assert loaded.settings.capture.symbols == ("SOLUSDT", "BTCUSDT")
    assert loaded.origins["capture.symbols"] == "$SYMBOLS"
    assert loaded.origins["health.trade_timeout_s"] == "default"
    assert loaded.settings.capture.run_hours is None


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("HARVEST_VENU", "Did you mean HARVEST_VENUE?"),
        ("HARVEST_STREAM_IDLE_SEC", "Did you mean STREAM_IDLE_SEC?"),
        ("HARVEST_PROFIL", "Did you mean HARVEST_PROFILE?"),
        ("HARVEST_QQ", "Unset it, or see settings.toml for those there are."),
    ],
)
def test_an_unknown_variable_with_the_prefix_is_a_problem_with_a_guess(
    asker: Asker, name: str, remedy: str
) -> None:
    assert asker.problem(environ={name: "1"}) == f"${name}: unknown variable. {remedy}"
    assert asker.load(environ={name: ""}).warnings == []


@pytest.mark.parametrize(
    ("name", "meant"),
    [("STREAM_IDLE_SECS", "STREAM_IDLE_SEC"), ("SYMBOL", "SYMBOLS"), ("trade_timeout", "TRADE_TIMEOUT")],
)
def test_a_near_miss_of_an_old_variable_is_a_warning(asker: Asker, name: str, meant: str) -> None:
    assert asker.load(environ={name: "1"}).warnings == [
        f"${name}: not a variable of harvest, and not read. Did you mean {meant}?"
    ]


def test_a_near_miss_is_no_warning_where_the_right_variable_is_set(asker: Asker) -> None:
    assert asker.load(environ={"SYMBOL": "x", "SYMBOLS": "BTCUSDT"}).warnings == []


def test_the_environment_of_other_programs_is_left_alone(asker: Asker) -> None:
    environ = {"PATH": "/bin", "HOME": "/", "LOG_LEVEL": "x", "OUTPUT": "y", "TIMEOUT": "3", "HOURS": "1"}
    assert asker.load(environ=environ).warnings == []


def test_a_variable_that_is_not_text_of_any_encoding_is_shown_in_ascii(asker: Asker) -> None:
    problem = asker.problem(environ={"TRADE_TIMEOUT": os.fsdecode(b"\xff\nx")})
    problem.encode()
    assert problem.startswith("$TRADE_TIMEOUT: health.trade_timeout_s is '\\udcff\\nx', not a number. ")


def test_a_flag_gives_its_value_and_none_is_not_given(asker: Asker) -> None:
    loaded = asker.load(flags={"--symbols": "solusdt", "--hours": 2.5, "--venue": None})
    assert loaded.settings.capture.symbols == ("SOLUSDT",)
    assert loaded.settings.capture.run_hours == 2.5
    assert loaded.origins["capture.symbols"] == "--symbols"
    assert loaded.origins["capture.venue"] == "default"


def test_an_empty_flag_is_a_mistake_and_not_unset(asker: Asker) -> None:
    assert asker.problem(flags={"--symbols": ""}).startswith(
        "--symbols: capture.symbols is '', an empty list. "
    )


def test_a_flag_that_no_setting_has_is_a_mistake_of_the_caller(asker: Asker) -> None:
    with pytest.raises(ValueError, match="no setting has the flags --data"):
        asker.load(flags={"--data": "x"})
