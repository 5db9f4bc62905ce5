"""Compaction and retention while a run goes on: a pass now and then, in a child process that yields to everybody."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import msgspec
import trio

from harvest.log import get_logger
from harvest.nurseries.child import run_child
from harvest.storage.compaction.job import Done, Job

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from harvest.settings import CompactionSettings

log = get_logger("COMPACT")

#: From the start of a run to its first pass: capture comes first.
FIRST_S = 60.0
#: Between two passes if nothing is compacted, and old dates are removed alone.
RETENTION_S = 3600.0


class Compactor:
    """Compacts the past hours and dates of ``root``, and removes what is no longer kept, every ``interval_s`` seconds.

    A pass is left out while not ``may_compact()``: where rows between stored ones are in no file yet, a file that spans both
    would say that they are.
    """

    def __init__(
        self,
        root: Path,
        settings: CompactionSettings,
        *,
        may_compact: Callable[[], bool] = lambda: True,
    ) -> None:
        self._root, self._settings = root, settings
        self._may_compact = may_compact
        self._is_first = True

    async def run(self) -> None:
        """Do a pass every now and then, until cancelled; a pass that goes on then is killed, and the next run completes it."""
        settings = self._settings
        if not settings.interval_s and settings.keep_days is None and settings.keep_bytes is None:
            return
        await trio.sleep(FIRST_S)
        while True:
            if self._may_compact():
                await self.once()
            await trio.sleep(settings.interval_s or RETENTION_S)

    async def once(self) -> None:
        """Do one pass, and say what came of it."""
        settings = self._settings
        job = Job(
            root=str(self._root),
            max_rows=settings.max_rows if settings.interval_s else None,
            keep_days=settings.keep_days,
            keep_bytes=settings.keep_bytes,
            is_first=self._is_first,
        )
        command = [sys.executable, "-m", "harvest.storage.compaction", msgspec.json.encode(job).decode()]
        output = bytearray()
        try:
            await run_child(command, output.extend)
        except OSError as error:
            log.error(f"cannot start a pass: {error.strerror}")
            return
        try:
            done = msgspec.json.decode(output, type=Done)
        except msgspec.DecodeError:
            log.error("a pass ended before it was through; the next one completes it")
            return
        self._is_first = False
        for line in done.expired:
            log.info(f"no longer kept, {line}")
        for problem in done.problems:
            log.warning(problem)
        if done.files_before:
            log.info(
                f"{done.files_before} files became {done.files_after}: {done.rows} rows in {done.seconds:.1f}s",
                files_before=done.files_before,
                files_after=done.files_after,
                rows=done.rows,
            )
