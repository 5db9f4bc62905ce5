"""What must hold for the channels that are recorded, and how they are given."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.settings.conftest import Asker


def test_no_channel_is_recorded_unless_it_is_asked_for(asker: Asker) -> None:
    assert asker.load("").settings.channels.record is None
    assert asker.load('[channels]\nrecord = "none"\n').settings.channels.record is None


def test_channels_are_given_as_a_list_or_with_commas_and_counted_once(asker: Asker) -> None:
    in_file = asker.load('[channels]\nrecord = ["mark", "bbo", "mark"]\n')
    assert in_file.settings.channels.record == ("mark", "bbo")
    asked = asker.load(environ={"HARVEST_CHANNELS": "bbo, Partial_Depth"})
    assert asked.settings.channels.record == ("bbo", "partial_depth")
    assert asker.load(flags={"--channels": "bbo"}).settings.channels.record == ("bbo",)


def test_a_word_that_is_no_channel_is_a_problem_with_a_guess(asker: Asker) -> None:
    (problem,) = asker.problems('[channels]\nrecord = ["liquidation"]\n')
    assert "Did you mean liquidations?" in problem


def test_what_the_venue_does_not_have_is_a_problem_that_names_what_it_has(asker: Asker) -> None:
    document = '[capture]\nvenue = "binance-spot"\n[channels]\nrecord = ["bbo", "mark", "open_interest"]\n'
    assert asker.problems(document) == [
        "settings.toml:4: channels.record has mark, open_interest, which binance-spot does not have. "
        "Give bbo or partial_depth."
    ]


def test_partial_depth_has_the_levels_and_intervals_of_the_venue_if_it_is_recorded(asker: Asker) -> None:
    wrong = "[channels]\npartial_levels = 7\npartial_interval_ms = 1000\n"
    asker.load(wrong)
    assert asker.problems(f'{wrong}record = ["partial_depth"]\n') == [
        "settings.toml:2: channels.partial_levels is 7 levels, which binance-usdm does not serve. Give 5, 10 or 20.",
        "settings.toml:3: channels.partial_interval_ms is 1000 ms, which binance-usdm does not serve. "
        "Give 100, 250 or 500.",
    ]


def test_health_is_slower_than_the_watchdog_and_the_questions_if_channels_are_recorded(asker: Asker) -> None:
    late = "[health]\nchannel_timeout_s = 50\n"
    asker.load(late)
    found = asker.problems(f'{late}[channels]\nrecord = ["bbo"]\n')
    assert len(found) == 1
    assert "streams.idle_s (120 s, default) is not below health.channel_timeout_s" in found[0]
    found = asker.problems(f'{late}[streams]\nidle_s = 40\n[channels]\nrecord = ["open_interest"]\n')
    assert len(found) == 1
    assert "health would warn between two questions" in found[0]
