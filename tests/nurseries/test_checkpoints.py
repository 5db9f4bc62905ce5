"""Checkpoints in a run: before anything is received, then one symbol after the other; the journal is let go behind them."""

from __future__ import annotations

from typing import Any

import structlog
import trio
import trio.testing

from harvest.nurseries.checkpoints import LOOK_S, Checkpoints


class _Run:
    """An intake that takes one checkpoint a ``seq``, and a journal that releases or fails."""

    def __init__(self, symbols: list[str], *, round_s: float = 60.0) -> None:
        self.symbols = symbols
        self.taken: list[tuple[float, str, int, int]] = []
        self.committed_seq = 10**9
        self.released: list[int] = []
        self.fails = False
        self.flushes = True
        self.may_release = trio.Event()
        self.checkpoints = Checkpoints(
            self,  # type: ignore[arg-type]
            self,
            symbols=lambda: self.symbols,
            committed_seq=lambda: self.committed_seq,
            flush=self.flush,
            may_release=self.may_release,
            round_s=round_s,
        )

    def checkpoint(self, symbol: str, number: int, of: int) -> int:
        self.taken.append((trio.current_time(), symbol, number, of))
        return len(self.taken)

    async def release(self, before_seq: int) -> int:
        await trio.lowlevel.checkpoint()
        if self.fails:
            raise OSError(5, "Input/output error")
        self.released.append(before_seq)
        return 1

    async def flush(self) -> bool:
        await trio.lowlevel.checkpoint()
        return self.flushes


async def test_each_symbol_is_taken_before_anything_is_received_and_then_spread_over_a_round(
    autojump_clock: trio.testing.MockClock,
) -> None:
    run = _Run(["A", "B", "C"])
    await run.checkpoints.begin()
    assert run.taken == [(0.0, "A", 1, 3), (0.0, "B", 1, 3), (0.0, "C", 1, 3)]
    with trio.move_on_after(65):
        await run.checkpoints.run()
    assert run.taken[3:] == [(20.0, "A", 2, 3), (40.0, "B", 2, 3), (60.0, "C", 2, 3)]


async def test_a_symbol_that_comes_is_taken_at_once_and_one_that_goes_no_more(
    autojump_clock: trio.testing.MockClock,
) -> None:
    run = _Run(["A", "B"])
    await run.checkpoints.begin()
    run.symbols = ["B", "C"]
    run.checkpoints.change()
    assert run.taken[2:] == [(0.0, "C", 2, 2)]
    with trio.move_on_after(120):
        await run.checkpoints.run()
    assert {symbol for _, symbol, _, _ in run.taken[3:]} == {"B", "C"}


async def test_the_journal_goes_from_before_the_last_round_whose_rows_are_in_files(
    autojump_clock: trio.testing.MockClock,
) -> None:
    run = _Run(["A", "B"])
    await run.checkpoints.begin()
    run.committed_seq = 1
    await run.checkpoints.release()
    assert run.released == []
    run.committed_seq = 3
    with trio.move_on_after(70):
        await run.checkpoints.run()
    # Not before it may.
    assert run.released == []
    await run.checkpoints.release()
    # The second round ends with 4, but not all rows up to there are in files.
    assert run.released == [1]
    run.committed_seq = 4
    await run.checkpoints.release()
    assert run.released == [1, 3]
    run.flushes = False
    await run.checkpoints.release()
    assert run.released == [1, 3]
    run.flushes = True
    run.may_release.set()
    with trio.move_on_after(LOOK_S + 1):
        await run.checkpoints.run()
    assert run.released == [1, 3, 3]


async def test_a_disk_that_does_not_let_go_is_said_once(autojump_clock: trio.testing.MockClock) -> None:
    run = _Run(["A"])
    await run.checkpoints.begin()
    run.fails = True
    with structlog.testing.capture_logs() as lines:
        for _ in range(3):
            await run.checkpoints.release()
        run.fails = False
        await run.checkpoints.release()
    said: list[Any] = [line["event"] for line in lines if line["log_level"] == "error"]
    assert said == ["cannot remove segments whose rows are in files: Input/output error; tried again"]
    assert run.released == [1]
