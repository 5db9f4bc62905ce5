from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harvest.errors import SettingsError
from harvest.settings import load

if TYPE_CHECKING:
    from pathlib import Path

    from tests.settings.conftest import Asker


def test_layers_rise_from_defaults_to_flags(asker: Asker) -> None:
    toml = '[capture]\nvenue = "binance-spot"\nrun_hours = 1\n[streams]\nidle_s = 30\n'
    loaded = asker.load(toml)
    assert (loaded.settings.capture.run_hours, loaded.origins["capture.run_hours"]) == (1, "settings.toml:3")

    loaded = asker.load(toml, profile="testing")
    assert (loaded.settings.capture.run_hours, loaded.origins["capture.run_hours"]) == (
        0.1,
        "profile testing",
    )
    assert (loaded.settings.capture.venue, loaded.origins["capture.venue"]) == (
        "binance-spot",
        "settings.toml:2",
    )

    environ = {"RUN_HOURS": "3"}
    loaded = asker.load(toml, profile="testing", environ=environ)
    assert (loaded.settings.capture.run_hours, loaded.origins["capture.run_hours"]) == (3, "$RUN_HOURS")

    loaded = asker.load(toml, profile="testing", environ=environ, flags={"--hours": "4"})
    assert (loaded.settings.capture.run_hours, loaded.origins["capture.run_hours"]) == (4, "--hours")


def test_a_higher_layer_can_say_none(asker: Asker) -> None:
    loaded = asker.load(profile="testing", environ={"RUN_HOURS": "none"})
    assert loaded.settings.capture.run_hours is None
    assert loaded.origins["capture.run_hours"] == "$RUN_HOURS"


def test_the_conservative_profile_wins_over_the_file(asker: Asker) -> None:
    loaded = asker.load("[streams]\nidle_s = 30\n", profile="conservative")
    assert loaded.settings.streams.idle_s == 120


def test_all_problems_of_all_layers_are_told_at_once(asker: Asker) -> None:
    problems = asker.problems(
        '[streams]\nidle = 3\nbackoff_max_s = "x"\n[rotation]\nextreme_rotate_s = 60\n',
        profile="tasting",
        environ={"HARVEST_FOO": "1", "SAVE_CONCURRENCY": "0"},
        flags={"--symbols": "../x,BTCUSDT,a b", "--log-level": "loud"},
    )
    places = [problem.split(": ")[0] for problem in problems]
    assert places == [
        "settings.toml:2",
        "--profile",
        "$HARVEST_FOO",
        "settings.toml:3",
        "$SAVE_CONCURRENCY",
        "--log-level",
        "settings.toml:5",
        "--symbols",
        "--symbols",
    ]


def test_a_wrong_value_is_told_even_where_a_higher_layer_overrides_it(asker: Asker) -> None:
    assert asker.problem('[streams]\nidle_s = "x"\n', environ={"STREAM_IDLE_SEC": "60"}).startswith(
        "settings.toml:2: streams.idle_s is 'x', not a number."
    )


def test_a_wrong_value_brings_no_second_problem_by_what_stands_below_it(asker: Asker) -> None:
    problem = asker.problem("[streams]\nidle_s = 500\n", environ={"STREAM_IDLE_SEC": "x"})
    assert problem.startswith("$STREAM_IDLE_SEC: ")


def test_a_value_over_a_wrong_one_is_checked_against_the_others(asker: Asker) -> None:
    first, second = asker.problems('[streams]\nidle_s = "x"\n', environ={"STREAM_IDLE_SEC": "160"})
    assert first.startswith("settings.toml:2: streams.idle_s is 'x', not a number.")
    assert second.startswith(
        "$STREAM_IDLE_SEC: streams.idle_s (160 s, $STREAM_IDLE_SEC) is not below health."
    )


def test_loading_creates_nothing(asker: Asker, tmp_path: Path) -> None:
    asker.load(environ={"OUTPUT_DIR": "a/b/c"})
    assert list(tmp_path.iterdir()) == []


names = st.sampled_from(
    ["SYMBOLS", "OUTPUT_DIR", "TRADE_TIMEOUT", "HARVEST_WS_URL", "HARVEST_VENUE", "RUN_HOURS"]
)


@given(st.dictionaries(names, st.text()), st.text())
def test_whatever_the_environment_says_it_loads_or_tells_printable_lines(
    environ: dict[str, str], symbols: str
) -> None:
    try:
        loaded = load(settings_file=None, profile=None, environ=environ, flags={"--symbols": symbols})
    except SettingsError as error:
        problems = error.problems
    else:
        assert all(symbol and "/" not in symbol for symbol in loaded.settings.capture.symbols)
        return
    assert problems
    assert all(problem.isprintable() for problem in problems)


@pytest.mark.parametrize("seconds", [10, 1000])
def test_loading_twice_gives_the_same(asker: Asker, seconds: int) -> None:
    environ = {"ORDERBOOK_TIMEOUT": str(seconds + 150)}
    assert asker.load(environ=environ) == asker.load(environ=environ)
