"""The writer nursery: sealed tables become files, a few at once, each in a thread; none is lost, none written twice."""

from __future__ import annotations

import errno
import math
import threading
import time
from collections import Counter
from typing import TYPE_CHECKING

import attrs
import trio

from harvest.errors import StorageError
from harvest.log import get_logger
from harvest.nurseries.backoff import Backoff
from harvest.storage.parquet import encode

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from harvest.settings import WriterSettings
    from harvest.storage.files import DataDirectory
    from harvest.storage.parquet import EncodedFile, Provenance
    from harvest.storage.tables import Sealed

#: While flushes fail, the log says so at once and then this often.
REPEAT_LOG_S = 60.0
#: A disk that fails and works by turns is no reason to flood the log.
FLAPPING_LOG_S = 5.0


@attrs.define(eq=False)
class WriterStats:
    """What the writer has published since it was made. The writer's threads write it, everybody reads."""

    files: int = 0
    bytes: int = 0
    #: Rows by kind and symbol.
    rows: Counter[tuple[str, str]] = attrs.Factory(Counter)
    #: Attempts that failed, over all flushes.
    failures: int = 0
    last_path: Path | None = None
    #: Seconds that the last flush took: encoding and publishing, without waits between attempts.
    last_duration_s: float | None = None
    #: Monotonic clock, seconds, when the last flush was done.
    last_done_s: float | None = None


@attrs.frozen
class Unwritten:
    """Rows that were sealed but are in no file."""

    kind: str
    symbol: str
    rows: int
    first_seq: int
    last_seq: int

    @classmethod
    def of(cls, sealed: Sealed) -> Unwritten:
        """Name the rows of ``sealed``."""
        return cls(sealed.kind.name, sealed.symbol, sealed.count, sealed.first_seq, sealed.last_seq)

    def __str__(self) -> str:
        """Say it to people."""
        return f"{self.rows:,} rows of {self.kind} {self.symbol}, seq {self.first_seq} to {self.last_seq}"


@attrs.frozen
class Pending:
    """What waits in the writer at one moment."""

    #: Tables accepted and not yet published, those in flight and those that failed among them.
    tables: int
    in_flight: int
    #: Memory that they take.
    bytes: int
    #: Tables whose last attempt failed, since when (seconds ago), and how.
    failing: int
    failing_for_s: float | None
    last_error: str | None


class _Flush:
    """One table on its way to the disk. Once encoded, the packed rows are let go: the file is many times smaller."""

    def __init__(self, sealed: Sealed, path: Path) -> None:
        self.facts = Unwritten.of(sealed)
        self.path = path
        self.sealed: Sealed | None = sealed
        self.encoded: EncodedFile | None = None
        self.failing_since: float | None = None

    @property
    def size_bytes(self) -> int:
        sealed, encoded = self.sealed, self.encoded
        return (sealed.size_bytes if sealed else 0) + (encoded.size_bytes if encoded else 0)


class Writer:
    """Publishes sealed tables, ``settings.save_concurrency`` at once.

    At most ``settings.queue_tables`` tables wait, failing ones included; further ones are refused, and stay with the
    caller. A flush that fails is tried again for ever, and keeps nobody else from the disk meanwhile. ``provenance`` may
    be replaced at any time; a file gets what it is when its rows are encoded. ``on_published`` is called in the flush's
    thread once a file is published, and must not raise. ``wait_durable`` is called there before, with the last ``seq`` of a
    file, and returns when the records up to it need not be in memory any more. A file that would leave less than
    ``room_bytes`` of the disk waits: that is the journal's.
    """

    def __init__(
        self,
        *,
        directory: DataDirectory,
        provenance: Provenance,
        settings: WriterSettings,
        stats: WriterStats | None = None,
        on_published: Callable[[EncodedFile], None] = lambda _file: None,
        room_bytes: int = 0,
        wait_durable: Callable[[int], None] = lambda _seq: None,
    ) -> None:
        self.provenance = provenance
        self.stats = stats or WriterStats()
        self._directory = directory
        self._on_published = on_published
        self._wait_durable = wait_durable
        self._settings = settings
        self._room_bytes = room_bytes
        self._send, self._receive = trio.open_memory_channel[_Flush](settings.queue_tables)
        self._limiter = trio.CapacityLimiter(settings.save_concurrency)
        #: Accepted and not known to be published; threads remove from it what they have published.
        self._unwritten: dict[Path, _Flush] = {}
        self._accounts = threading.Lock()
        self._room = trio.Event()
        self._hurry = trio.Event()
        self._closed = False
        self._logged_at = -math.inf
        self._recovery_is_news = False
        self._last_error: str | None = None
        self._log = get_logger("FLUSH")

    def submit_nowait(self, sealed: Sealed) -> bool:
        """Take a table over; returns False, and takes nothing, when as many as may wait do.

        Raises:
            trio.ClosedResourceError: the writer was closed.
        """
        if self._closed:
            raise trio.ClosedResourceError("the writer was closed")
        if len(self._unwritten) >= self._settings.queue_tables:
            return False
        path = self._directory.path_of(sealed, venue=self.provenance.venue, run=self.provenance.run)
        flush = _Flush(sealed, path)
        self._unwritten[path] = flush
        self._send.send_nowait(flush)
        return True

    async def submit(self, sealed: Sealed) -> None:
        """Take a table over as soon as there is room; a cancelled call has taken nothing."""
        await trio.lowlevel.checkpoint()
        while not self.submit_nowait(sealed):
            await self.wait_for_room()

    async def wait_for_room(self) -> None:
        """Return when ``submit_nowait`` may take a table, or was told to take no more."""
        await trio.lowlevel.checkpoint()
        if len(self._unwritten) >= self._settings.queue_tables:
            await self._room.wait()

    def close(self) -> None:
        """Accept nothing more: ``run`` returns when all is published. What waits to be tried again is tried at once."""
        self._closed = True
        self._send.close()
        self._hurry.set()
        self._room.set()

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Publish what is submitted, until ``close`` was called and everything is published.

        When cancelled it returns at once. A thread that is publishing then goes on by itself, and what it publishes
        is whole; ``unwritten`` names the rest.
        """
        task_status.started()
        async with trio.open_nursery() as nursery:
            async for flush in self._receive:
                nursery.start_soon(self._publish, flush)

    def pending(self) -> Pending:
        """Say what waits now; call it from a Trio task."""
        flushes = list(self._unwritten.values())
        since = [flush.failing_since for flush in flushes if flush.failing_since is not None]
        return Pending(
            tables=len(flushes),
            in_flight=self._limiter.borrowed_tokens,
            bytes=sum(flush.size_bytes for flush in flushes),
            failing=len(since),
            failing_for_s=trio.current_time() - min(since) if since else None,
            last_error=self._last_error if since else None,
        )

    @property
    def waiting_bytes(self) -> int:
        """Memory of all tables accepted and not yet published."""
        return sum(flush.size_bytes for flush in list(self._unwritten.values()))

    def unwritten(self) -> list[Unwritten]:
        """Name what was accepted and is in no file, in the order of its arrival."""
        return [flush.facts for flush in list(self._unwritten.values())]

    async def _publish(self, flush: _Flush) -> None:
        settings = self._settings
        backoff = Backoff(initial_s=settings.retry_initial_s, max_s=settings.retry_max_s, reset_s=math.inf)
        while True:
            try:
                await trio.to_thread.run_sync(
                    self._publish_in_thread, flush, abandon_on_cancel=True, limiter=self._limiter
                )
            except (OSError, StorageError, MemoryError) as error:
                await self._note_failure(flush, error)
            else:
                break
            await self._wait(backoff.next_wait_s(0))
        self._note_success(flush)

    def _publish_in_thread(self, flush: _Flush) -> None:
        begun = time.monotonic()
        if flush.encoded is None:
            assert flush.sealed is not None
            flush.encoded = encode(flush.sealed, self.provenance)
            flush.sealed = None
        encoded = flush.encoded
        if self._room_bytes and self._directory.free_bytes() < self._room_bytes + encoded.size_bytes:
            raise OSError(
                errno.ENOSPC, f"less than {self._room_bytes / 2**20:.1f} MiB would be left for the journal"
            )
        self._wait_durable(flush.facts.last_seq)
        self._directory.publish(flush.path, encoded.data)
        # Before it counts as committed: what the journal has of it may go then.
        self._directory.read_back(flush.path, encoded.data)
        self._on_published(encoded)
        done = time.monotonic()
        # In the thread, so that it counts also where nobody waits for the thread any more.
        with self._accounts:
            del self._unwritten[flush.path]
            stats = self.stats
            stats.files += 1
            stats.bytes += encoded.size_bytes
            stats.rows[flush.facts.kind, flush.facts.symbol] += encoded.rows
            stats.last_path, stats.last_duration_s, stats.last_done_s = flush.path, done - begun, done

    async def _wait(self, wait_s: float) -> None:
        """Wait before another attempt: shorter once the disk works again, or the end is near."""
        if self._closed:
            wait_s = min(wait_s, self._settings.retry_initial_s)
            await trio.sleep(wait_s)
        else:
            with trio.move_on_after(wait_s):
                await self._hurry.wait()

    async def _note_failure(self, flush: _Flush, error: Exception) -> None:
        now = trio.current_time()
        quiet_s = REPEAT_LOG_S if self._failing() else FLAPPING_LOG_S
        if flush.failing_since is None:
            flush.failing_since = now
        self.stats.failures += 1
        reason = (
            (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
        )
        self._last_error = reason
        if now - self._logged_at < quiet_s:
            return
        self._logged_at = now
        self._recovery_is_news = True
        free_bytes = await trio.to_thread.run_sync(self._free_bytes, abandon_on_cancel=True)
        free = "unknown" if free_bytes is None else f"{free_bytes / 2**20:.0f} MiB"
        failing = self._failing()
        self._log.error(
            f"cannot write {flush.path}: {reason} (free: {free}); its rows stay in memory, as those of "
            f"{len(failing) - 1} other files, and are tried again until it works",
            path=str(flush.path),
            errno=getattr(error, "errno", None),
            free_bytes=free_bytes,
            failing_files=len(failing),
        )

    def _note_success(self, flush: _Flush) -> None:
        self._room.set()
        if not self._closed:
            self._room = trio.Event()
        if flush.failing_since is None:
            return
        # The disk works again: whoever waits for another attempt need not wait on.
        self._hurry.set()
        if not self._closed:
            self._hurry = trio.Event()
        if self._recovery_is_news and not self._failing():
            self._recovery_is_news = False
            failed_for_s = trio.current_time() - flush.failing_since
            self._log.warning(
                f"writing again after {failed_for_s:.1f}s: {flush.path}",
                path=str(flush.path),
                failed_for_s=round(failed_for_s, 1),
            )

    def _failing(self) -> list[_Flush]:
        return [flush for flush in list(self._unwritten.values()) if flush.failing_since is not None]

    def _free_bytes(self) -> int | None:
        try:
            return self._directory.free_bytes()
        except OSError:
            return None  # The failure that is being logged says more about the disk than this one.
