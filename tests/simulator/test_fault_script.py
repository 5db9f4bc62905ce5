from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harvest.errors import SimulatorError
from harvest.simulator import FaultScriptError, SimulatorConfig, parse_fault
from harvest.simulator.director import read_faults
from harvest.simulator.fault import Fault, Span, Target
from harvest.simulator.streams import StreamKey

if TYPE_CHECKING:
    from pathlib import Path


def at(seconds: float) -> Span:
    return Span(seconds, seconds)


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("stall trades at 10s", Fault("", "stall", at(10), target=Target("trades"))),
        (
            "stall BTCUSDT trades at 500ms for 2m",
            Fault("", "stall", at(0.5), target=Target("trades", "BTCUSDT"), for_s=120.0),
        ),
        ("stall 牛来USDT at 3", Fault("", "stall", at(3), target=Target(None, "牛来USDT"))),
        ("stall all at 1h", Fault("", "stall", at(3600))),
        ("forget orderbook at 1s", Fault("", "forget", at(1), target=Target("orderbook"))),
        ("cut trades every 30s", Fault("", "cut", at(30), every=at(30), target=Target("trades"))),
        ("cut at 2s with 1012", Fault("", "cut", at(2), code=1012)),
        ("cut orderbook hard at 2s", Fault("", "cut", at(2), target=Target("orderbook"), hard=True)),
        ("mute route market at 1s for 5s", Fault("", "mute route", at(1), route="market", for_s=5.0)),
        ("delist ETHUSDT at 10s", Fault("", "delist", at(10), target=Target(None, "ETHUSDT"))),
        (
            "halt BTCUSDT for 20s at 5s",
            Fault("", "halt", at(5), target=Target(None, "BTCUSDT"), for_s=20.0),
        ),
        ("shutdown at 1s notice 2s", Fault("", "shutdown", at(1), notice_s=2.0)),
        ("no-pong at 1s", Fault("", "no-pong", at(1))),
        ("reject connections at 5s..9s for 3s", Fault("", "reject connections", Span(5, 9), for_s=3.0)),
        (
            "gap depth btcusdt at 3s skip 7",
            Fault("", "gap", at(3), target=Target("orderbook", "BTCUSDT"), count=7),
        ),
        (
            "duplicate trades at 1s on one",
            Fault("", "duplicate", at(1), target=Target("trades"), on_one=True),
        ),
        ("swap ETHUSDT at 1s", Fault("", "swap", at(1), target=Target(None, "ETHUSDT"))),
        (
            "drop level ETHUSDT at 10s skip 9",
            Fault("", "drop level", at(10), target=Target(None, "ETHUSDT"), count=9),
        ),
        ("malformed at 1s", Fault("", "malformed", at(1))),
        ("unknown event at 1s", Fault("", "unknown event", at(1))),
        ("ban at 1s for 2s", Fault("", "ban", at(1), for_s=2.0)),
        ("throttle at 1s for 2s", Fault("", "throttle", at(1), for_s=2.0)),
        ("rest down at 1s for 2s", Fault("", "rest down", at(1), for_s=2.0)),
        ("slow rest by 2s at 1s for 9s", Fault("", "slow rest", at(1), by_s=2.0, for_s=9.0)),
        ("fragment at 1s for 9s", Fault("", "fragment", at(1), for_s=9.0)),
        ("burst x10 at 1s for 9s", Fault("", "burst", at(1), times=10.0, for_s=9.0)),
        ("pause at 1s for 9s", Fault("", "pause", at(1), for_s=9.0)),
    ],
)
def test_every_fault_is_understood(script: str, expected: Fault) -> None:
    import attrs

    assert parse_fault(script) == attrs.evolve(expected, script=script)


@pytest.mark.parametrize(
    ("script", "column", "word"),
    [
        ("", 1, "empty"),
        ("stahl trades at 10s", 1, "stall"),
        ("stall at 10s", 7, "a symbol"),
        ("stall trades", 13, "time"),
        ("stall trades at tenish", 17, "tenish"),
        ("stall trades at 10s at 11s", 21, "twice"),
        ("stall trades 10s", 17, "says no time"),
        ("stall trades BTCUSDT ETHUSDT at 1s", 22, "ETHUSDT"),
        ("delist at 1s", 8, "a symbol"),
        ("delist all at 1s", 8, "needs a symbol"),
        ("halt BTCUSDT trades at 1s", 14, "nothing else"),
        ("cut at 1s with 42", 16, "1000"),
        ("mute route left at 1s", 12, "public or market"),
        ("burst 10 at 1s for 2s", 7, "x2"),
        ("burst x10 at 1s", 16, "needs 'for'"),
        ("slow rest at 1s for 2s", 23, "needs 'by'"),
        ("gap at 1s with 1000", 11, "skip"),
        ("gap at 9s..5s", 8, "before its start"),
        ("cut every 0s", 11, "0.001"),
        ("gap at 1s on two", 14, "one"),
    ],
)
def test_what_is_not_understood_is_named_with_its_column(script: str, column: int, word: str) -> None:
    with pytest.raises(FaultScriptError) as caught:
        parse_fault(script)
    assert (caught.value.column, word in str(caught.value)) == (column, True), str(caught.value)


@given(
    script=st.text(max_size=40)
    | st.lists(st.sampled_from(["stall", "cut", "trades", "at", "for", "1s", "every", "gap", "x9"])).map(
        " ".join
    )
)
def test_any_text_is_a_fault_or_a_clear_error(script: str) -> None:
    column = 1
    try:
        assert parse_fault(script).script == script
    except FaultScriptError as error:
        column = error.column
    assert 1 <= column <= len(script) + 1


def test_a_fault_file_adds_its_faults_and_its_seed(tmp_path: Path) -> None:
    path = tmp_path / "faults.toml"
    path.write_text('seed = 5\nfaults = ["cut at 1s..2s", "pause at 3s for 1s"]\n')
    config = SimulatorConfig(faults=("stall all at 1s",), fault_file=path)
    faults = read_faults(config)
    assert [fault.action for fault, _ in faults] == ["stall", "cut", "pause"]
    drawn = [fault.at.draw(dice) for fault, dice in faults]
    assert drawn == [fault.at.draw(dice) for fault, dice in read_faults(config)]
    path.write_text('seed = 6\nfaults = ["cut at 1s..2s", "pause at 3s for 1s"]\n')
    assert drawn != [fault.at.draw(dice) for fault, dice in read_faults(config)]


@pytest.mark.parametrize("text", ["faults = 1", "falts = []", "faults = [1]", "seed = 'x'", "not toml"])
def test_a_fault_file_that_holds_anything_else_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "faults.toml"
    path.write_text(text)
    with pytest.raises(SimulatorError, match=str(path)):
        read_faults(SimulatorConfig(fault_file=path))
    with pytest.raises(SimulatorError, match="nowhere"):
        read_faults(SimulatorConfig(fault_file=tmp_path / "nowhere"))


def test_a_target_hits_what_it_names() -> None:
    trade, diff, ticker = (StreamKey("BTCUSDT", kind) for kind in ("aggTrade", "depth", "bookTicker"))
    assert [Target("trades").hits(key) for key in (trade, diff, ticker)] == [True, False, False]
    assert [Target("orderbook").hits(key) for key in (trade, diff, ticker)] == [False, True, False]
    assert [Target().hits(key) for key in (trade, diff, ticker)] == [True, True, True]
    assert not Target(None, "ETHUSDT").hits(trade)


def test_a_span_is_drawn_from_its_dice() -> None:
    assert Span(2, 2).draw(random.Random(1)) == 2
    assert 2 <= Span(2, 3).draw(random.Random(1)) <= 3
