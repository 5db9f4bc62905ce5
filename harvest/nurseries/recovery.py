"""Recovery beside a run: what dead runs have left becomes files in a child process, while capture goes on."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import msgspec
import trio

from harvest.log import get_logger
from harvest.nurseries.child import run_child
from harvest.pipeline.dead_runs import Recovered

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from harvest.pipeline.dead_runs import DeadRun
    from harvest.pipeline.resume import Stored

log = get_logger("RECOVER")

#: A run that waits for longer goes on with what is stored: what it holds back for the recovery takes memory.
PATIENCE_S = 900.0
#: Between two tries where the disk refused: it may be full.
RETRY_S = 10.0


class Recovery:
    """Recovers ``runs``, and then lets the run ``living``, whose records begin with ``living_seq``, go on from their rows.

    ``go_on`` is called when all are recovered, with what ``look()``, in a thread, finds stored then; ``go_on_without()`` when they could not be, or the end comes first.
    """

    def __init__(
        self,
        root: Path,
        runs: Sequence[DeadRun],
        *,
        living: str,
        living_seq: int,
        look: Callable[[], Stored],
        go_on: Callable[[Stored], None],
        go_on_without: Callable[[], None],
        keeps_raw: bool = False,
    ) -> None:
        #: Set when the trades between the runs are judged, whatever became of the recovery.
        self.ended = trio.Event()
        self.succeeded = not runs
        self._root, self._runs = root, runs
        self._living, self._living_seq = living, living_seq
        self._keeps_raw = keeps_raw
        self._look, self._go_on, self._go_on_without = look, go_on, go_on_without
        self._is_disk = False
        if not runs:
            self.ended.set()

    async def run(self) -> None:
        """Recover, once; when cancelled the child is killed, and the next start goes on from there."""
        if not self._runs:
            return
        size = sum(run.size_bytes for run in self._runs)
        log.warning(
            f"{len(self._runs)} runs that did not end have left {size / 2**20:,.1f} MiB in the journal: recovering, while "
            f"capture goes on",
            runs=[run.run for run in self._runs],
            bytes=size,
        )
        is_whole = False
        try:
            with trio.move_on_after(PATIENCE_S):
                is_whole = await self._recover_when_the_disk_allows()
            if is_whole:
                self._go_on(await trio.to_thread.run_sync(self._look))
                self.succeeded = True
                log.info("all is recovered, and this run goes on from there")
        finally:
            if not self.succeeded:
                log.error(
                    f"not all is recovered: the trades between the runs are not asked for, and cvd of this run is left to the "
                    f"next start, or to `harvest recover {self._root}`"
                )
                self._go_on_without()
            self.ended.set()

    async def _recover_when_the_disk_allows(self) -> bool:
        while True:
            is_whole = await self._recover()
            if is_whole or not self._is_disk:
                return is_whole
            await trio.sleep(RETRY_S)

    async def _recover(self) -> bool:
        self._is_disk = False
        command = [
            *(sys.executable, "-m", "harvest", "recover", str(self._root), "--json"),
            *("--living", self._living, "--living-seq", str(self._living_seq)),
            *(("--keep-raw",) if self._keeps_raw else ()),
        ]
        left = b""

        def take(output: bytes) -> None:
            nonlocal left
            *lines, left = (left + output).split(b"\n")
            for line in lines:
                self._report(line)

        try:
            return await run_child(command, take) == 0
        except OSError as error:
            log.error(f"cannot start the recovery: {error.strerror}")
            return False

    def _report(self, line: bytes) -> None:
        result = msgspec.json.decode(line, type=Recovered)
        self._is_disk = result.is_disk
        say = log.info if result.error is None else log.error
        say(
            str(result),
            run=result.run,
            rows=result.rows,
            files=result.files,
            seconds=round(result.seconds, 1),
        )
        for problem in result.problems:
            log.warning(problem, run=result.run)
