"""Checkpoints in a run: each symbol's state goes to the journal now and then, and what no recovery needs any more is let go."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import trio

from harvest.log import get_logger
from harvest.pipeline.checkpoint_rounds import CheckpointRounds

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from harvest.nurseries.journaling import Journaling

log = get_logger("JOURNAL")

#: Between two looks at what may be let go, and at which symbols are recorded.
LOOK_S = 10.0


class TakesCheckpoints(Protocol):
    """Where checkpoints become records: the intake."""

    def checkpoint(self, symbol: str, number: int, of: int) -> int:
        """Record the state of ``symbol``, one of ``of`` in the round ``number``; returns its ``seq``."""
        ...


class Checkpoints:
    """Takes the checkpoints that are due, one symbol at a time, and releases the journal behind them.

    Nothing is released before ``may_release``. ``symbols()`` are those that are recorded. ``committed_seq()`` says up to where everything is in files; ``flush()`` writes
    what else the journal stands for (the quarantine), and returns False where that could not be done.
    """

    def __init__(
        self,
        journaling: Journaling,
        intake: TakesCheckpoints,
        *,
        symbols: Callable[[], Iterable[str]],
        committed_seq: Callable[[], int],
        flush: Callable[[], Awaitable[bool]],
        may_release: trio.Event,
        round_s: float,
    ) -> None:
        self._journaling = journaling
        self._intake = intake
        self._symbols = symbols
        self._committed_seq = committed_seq
        self._flush = flush
        self._may_release = may_release
        self._rounds = CheckpointRounds(symbols(), round_s)
        self._is_failing = False

    async def begin(self) -> None:
        """Take the first of each symbol. Call it before anything is received: what is not checkpointed is not recovered."""
        while self._take_due():
            await trio.lowlevel.checkpoint()

    def change(self) -> None:
        """Take the first checkpoint of each symbol that has come since, at once."""
        self._rounds.change(self._symbols())
        while self._rounds.has_new and self._take_due():
            pass

    async def run(self) -> None:
        """Take checkpoints as they become due, and let go of what they make needless, until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._take)
            nursery.start_soon(self._release)

    async def _take(self) -> None:
        while True:
            self._rounds.change(self._symbols())
            self._take_due()
            await trio.sleep(min(self._rounds.wait_s(trio.current_time()), LOOK_S))

    def _take_due(self) -> bool:
        due = self._rounds.due(trio.current_time())
        if due is None:
            return False
        self._rounds.taken(due, self._intake.checkpoint(*due))
        return True

    async def _release(self) -> None:
        await self._may_release.wait()
        while True:
            await trio.sleep(LOOK_S)
            await self.release()

    async def release(self) -> None:
        """Remove the segments that no recovery would need: a later round of checkpoints is there, and rows are in files."""
        needed_from = self._rounds.needed_from(self._committed_seq())
        if not needed_from or not await self._flush():
            return
        try:
            released = await self._journaling.release(needed_from)
        except OSError as error:
            if not self._is_failing:
                log.error(f"cannot remove segments whose rows are in files: {error.strerror}; tried again")
            self._is_failing = True
            return
        self._is_failing = False
        if released:
            log.debug(f"{released} segments are no longer needed: seq {needed_from} on is kept")
