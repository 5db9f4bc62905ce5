"""Rounds of checkpoints: who is due when, and how much of the journal a recovery needs."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from harvest.pipeline.checkpoint_rounds import CheckpointRounds, Due


def take_all(rounds: CheckpointRounds, now_s: float, seq: int) -> list[str]:
    """Take all that is due now, as the records after ``seq``."""
    taken = []
    while (due := rounds.due(now_s)) is not None:
        seq += 1
        rounds.taken(due, seq)
        taken.append(due.symbol)
    return taken


def test_the_first_round_is_due_at_once_and_the_next_one_takes_a_round():
    rounds = CheckpointRounds(["A", "B", "C"], 60.0)
    assert rounds.wait_s(100.0) == 0
    assert rounds.due(100.0) == Due("A", 1, 3)
    assert take_all(rounds, 100.0, 0) == ["A", "B", "C"]
    assert rounds.wait_s(100.0) == 20
    when = {}
    for second in range(100, 161):
        for symbol in take_all(rounds, float(second), second):
            when[symbol] = second
    assert when == {"A": 120, "B": 140, "C": 160}
    assert rounds.due(180.0) == Due("A", 3, 3)


def test_a_new_symbol_is_due_at_once_and_a_removed_one_never_again():
    rounds = CheckpointRounds(["A", "B"], 60.0)
    take_all(rounds, 0.0, 0)
    assert rounds.due(0.0) is None
    rounds.change(["B", "C"])
    assert rounds.due(0.0) == Due("C", 2, 2)
    assert take_all(rounds, 0.0, 10) == ["C"]
    assert take_all(rounds, 120.0, 20)[:2] == ["B", "B"]


def test_without_symbols_nothing_is_due():
    rounds = CheckpointRounds([], 60.0)
    assert rounds.due(0.0) is None
    assert rounds.wait_s(0.0) == 60
    rounds.change(["A"])
    assert rounds.wait_s(0.0) == 0
    assert take_all(rounds, 0.0, 0) == ["A"]


def test_the_journal_is_needed_from_the_newest_round_after_whose_end_alone_rows_are_in_no_file():
    rounds = CheckpointRounds(["A", "B"], 60.0)
    assert rounds.needed_from(10**9) == 0
    take_all(rounds, 0.0, 0)
    for seq, now_s in ((30, 30.0), (40, 60.0), (60, 90.0)):
        assert take_all(rounds, now_s, seq - 1) != []
    assert rounds.needed_from(1) == 0
    assert rounds.needed_from(39) == 1
    assert rounds.needed_from(40) == 30
    assert rounds.needed_from(1000) == 30


@given(st.data())
def test_every_symbol_has_a_checkpoint_between_what_is_needed_and_what_is_committed(data):
    names = st.lists(st.sampled_from("ABCDEF"), unique=True)
    rounds = CheckpointRounds(symbols := data.draw(names), 10.0)
    taken: list[tuple[int, str]] = []
    there_since = dict.fromkeys(symbols, 0)
    seq, now_s = 0, 0.0
    for _ in range(data.draw(st.integers(1, 40))):
        seq += data.draw(st.integers(1, 5))
        now_s += data.draw(st.floats(0, 4))
        if data.draw(st.integers(0, 5)) == 0:
            rounds.change(symbols := data.draw(names))
            there_since = {symbol: there_since.get(symbol, seq) for symbol in symbols}
        # What is new is due before all others: its rows begin with its checkpoint.
        while (due := rounds.due(now_s)) is not None:
            seq += 1
            rounds.taken(due, seq)
            taken.append((seq, due.symbol))
    committed = data.draw(st.integers(0, seq))
    needed = rounds.needed_from(committed)
    assert needed <= committed
    if needed:
        for symbol, since in there_since.items():
            if since < needed:
                assert any(needed <= at <= committed for at, name in taken if name == symbol)
