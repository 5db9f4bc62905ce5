"""Upkeep: what a run must do now and then so that months of it stay bounded, and a full disk is noticed."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import trio

from harvest.log import get_logger
from harvest.pipeline.machine import DAYS_KEPT

if TYPE_CHECKING:
    from collections.abc import Callable

    from harvest.pipeline.machine import Pipeline
    from harvest.storage.files import DataDirectory
    from harvest.storage.quarantine import Quarantine

log = get_logger("DISK")

INTERVAL_S = 60.0
_DAY_NS = 86_400 * 10**9
#: A disk that stays low is said again this often.
REPEAT_S = 3600.0


class Upkeep:
    """Writes out what waits beside the rows, lets go of old dates, and watches the free space, once a minute.

    ``flush_ledger`` enters what could not be entered into the ledger before.
    """

    def __init__(
        self,
        directory: DataDirectory,
        pipeline: Pipeline,
        quarantine: Quarantine,
        flush_ledger: Callable[[], object] = lambda: None,
        *,
        min_free_bytes: int,
    ) -> None:
        self._directory = directory
        self._pipeline = pipeline
        self._quarantine = quarantine
        self._flush_ledger = flush_ledger
        self._min_free_bytes = min_free_bytes
        self._free_bytes: int | None = None
        self._warned_at = -float("inf")

    @property
    def free_text(self) -> str:
        """Free space at the last look, for people."""
        return "unknown" if self._free_bytes is None else f"{self._free_bytes / 2**30:,.1f} GiB"

    async def run(self) -> None:
        """Look after everything once a minute, until cancelled."""
        while True:
            await self._watch_disk()
            await self.flush()
            self._pipeline.forget_before(time.time_ns() // _DAY_NS - DAYS_KEPT)
            await trio.sleep(INTERVAL_S)

    async def flush(self) -> bool:
        """Write the quarantine out; what cannot be written stays in memory, is tried again, and False is returned.

        What waits for the ledger is entered, too.
        """
        await trio.to_thread.run_sync(self._flush_ledger)
        try:
            await trio.to_thread.run_sync(self._quarantine.flush)
        except OSError as error:
            log.error(
                f"cannot write {self._quarantine.path}: {error.strerror}; malformed messages wait in memory"
            )
            return False
        return True

    async def _watch_disk(self) -> None:
        try:
            self._free_bytes = await trio.to_thread.run_sync(self._directory.free_bytes)
        except OSError as error:
            self._free_bytes = None
            log.error(f"cannot tell the free space of {self._directory.root}: {error.strerror}")
            return
        now = trio.current_time()
        if self._free_bytes < self._min_free_bytes and now - self._warned_at >= REPEAT_S:
            self._warned_at = now
            log.warning(
                f"only {self.free_text} free at {self._directory.root}, less than min_free_bytes",
                free_bytes=self._free_bytes,
            )
