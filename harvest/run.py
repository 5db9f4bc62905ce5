"""The root nursery, the signals, and the end of a run in stages.

root nursery
├── signals            SIGINT, SIGTERM: end the capture, then drain; a second one: at once; SIGHUP: reload the symbols
├── writer nursery     capacity-limited flushes; outlives the rest, to drain
├── journal            its watch; what it keeps is written by two threads of its own, until the drain has ended
└── capture nursery
    ├── trade nursery      one stream task a connection: connect, receive, restart
    ├── orderbook nursery  the same
    ├── channel nurseries  the same, one for each other channel that is recorded
    ├── open interest      REST: polled, if it is recorded
    ├── backfill           REST: snapshots, under the venue's weight budget
    ├── missing trades     REST: what a gap of trades left out, those between two runs too
    ├── auditor            REST: once an hour, a fresh snapshot for each book to be held against
    ├── listing            REST: now and then the venue's instruments: what is delisted, halted, trading again
    ├── reload             SIGHUP: loads the settings anew, and adds and removes symbols
    ├── health             reads the split timestamps, warns
    ├── rotation           every 60 s, or 30 s in extreme traffic: seals the buffers
    ├── compactor          every hour, in a child process: past hours and dates become large files
    ├── recovery           in a child process: what runs that died have left in the journal becomes files
    ├── checkpoints        the state of one symbol after the other, to the journal; lets go of what that makes needless
    └── display            the live table, on a terminal
"""

from __future__ import annotations

import signal
import sys
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import attrs
import trio
from rich.console import Console

from harvest import log as logging
from harvest.errors import HarvestError
from harvest.interpreter import settle
from harvest.nurseries.display import Display
from harvest.nurseries.instruments import Instruments
from harvest.nurseries.reload import Reload
from harvest.nurseries.replay import replay_received
from harvest.nurseries.rest import RestClient
from harvest.parts import Parts, plan_connections, streaming_feeds
from harvest.pipeline.beginning import look_around
from harvest.simulator.process import simulator_process
from harvest.storage.bans import Bans
from harvest.storage.files import DataDirectory
from harvest.storage.lock import one_writer
from harvest.venues import VENUES

if TYPE_CHECKING:
    from collections.abc import Callable

    from harvest.settings import Loaded, Settings
    from harvest.simulator.config import SimulatorConfig
    from harvest.storage.lock import DirectoryLock

log = logging.get_logger("RUN")

EXIT_OK = 0
#: The end came before everything was in files; the summary names what is not.
EXIT_UNWRITTEN = 1
#: At the end of a run, how long the trades that are missing still may take to be fetched.
LAST_GAPS_S = 5.0
#: As a shell reports a process that a signal ended.
EXIT_INTERRUPTED = 130


def run_until_done(
    settings: Settings,
    *,
    simulator: SimulatorConfig | None,
    live: bool | None,
    reload: Callable[[], Loaded] | None = None,
) -> int:
    """Harvest until stopped, and return the exit code: 0, 1 if rows are left unwritten, 130 after a second signal.

    ``simulator`` is the local venue to start and to harvest; None harvests the real one. ``live`` shows the live table;
    None does on a terminal. ``reload`` loads the settings anew, from where they came; without it SIGHUP is not heard.

    Raises:
        HarvestError: it could not begin (another process writes there, an unknown symbol, the wrong trade ids), or the simulator has ended.
    """
    console = Console(stderr=True)
    shown = console if (console.is_terminal if live is None else live) else None
    logging.configure(
        log_format=settings.log.format, level=settings.log.level, stream=None if shown is None else _Late()
    )
    if reload is not None and hasattr(signal, "SIGHUP"):
        # Until it is listened to, it must not end what has just begun.
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with one_writer(settings.capture.output_dir, "run", warn=log.warning) as lock:
            return trio.run(_run, settings, simulator, shown, lock, reload)
    except BaseExceptionGroup as group:
        expected, bugs = group.split(HarvestError)
        if expected is None or bugs is not None:
            raise
        raise _first(expected) from None


def _first(group: BaseExceptionGroup[HarvestError]) -> HarvestError:
    error = group.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error


class _Late:
    """Standard error as it is at each write: the live table puts itself in its place."""

    def write(self, text: str) -> int:
        return sys.stderr.write(text)

    def flush(self) -> None:
        sys.stderr.flush()


async def _run(
    settings: Settings,
    simulator: SimulatorConfig | None,
    console: Console | None,
    lock: DirectoryLock,
    reload: Callable[[], Loaded] | None,
) -> int:
    venue = VENUES[settings.capture.venue]
    async with AsyncExitStack() as stack:
        if simulator is None:
            name = venue.name
            ws_url = settings.streams.ws_url or venue.ws_url
            rest_url = settings.rest.url or venue.rest_url
        else:
            name = f"simulated-{venue.name}"
            # A replay begins when all that will be subscribed is.
            symbols = settings.capture.symbols
            feeds = streaming_feeds(settings)
            plans = [plan for feed in feeds for plan in plan_connections(venue, settings, "", feed, symbols)]
            streams = tuple(stream for plan in plans for stream in plan.streams)
            simulator = attrs.evolve(simulator, replay_streams=streams, exit_with_parent=True)
            endpoints = await stack.enter_async_context(simulator_process(simulator))
            ws_url, rest_url = endpoints.ws_url, endpoints.rest_url
        client = RestClient(
            rest_url,
            weight_per_minute=venue.weight_per_minute,
            settings=settings.rest,
            bans=Bans(settings.capture.output_dir),
        )
        await stack.enter_async_context(client)
        instruments = Instruments(venue, client, settings.capture.symbols, settings.rest)
        await instruments.check_once()
        # Nobody else writes: what is half-written was left by the dead.
        directory = DataDirectory(settings.capture.output_dir)
        for path in await trio.to_thread.run_sync(directory.remove_stale_temporaries):
            log.info(f"removed {path}, which a run that was killed had left half-written")
        beginning = await trio.to_thread.run_sync(look_around, settings, name)
        for damage in beginning.stored.catalog.damage:
            log.warning(f"{damage.path}: {damage.why}; left as it is", path=str(damage.path))
        parts = Parts(settings, venue, venue_name=name, ws_url=ws_url, client=client, beginning=beginning)
        lock.name_run(parts.run_id)
        run = Run(settings, parts, client, instruments, reload)
        has_replay = simulator is not None and bool(simulator.replay)
        return await run.until_done(console, has_replay=has_replay)


class Run:
    """The root nursery of one run, and its end in stages."""

    def __init__(
        self,
        settings: Settings,
        parts: Parts,
        client: RestClient,
        instruments: Instruments,
        reload: Callable[[], Loaded] | None,
    ) -> None:
        self._settings = settings
        self._parts = parts
        self._client = client
        self._instruments = instruments
        self._reload = None
        if reload is not None:
            self._reload = Reload(reload, settings, parts.watchlist, parts.listing)
        self._capture_scope = trio.CancelScope()
        self._feeds_scope = trio.CancelScope()
        self._drain_scope = trio.CancelScope(shield=True)
        self._writer_done = trio.Event()
        self._stopping = False
        self._aborted = False

    async def until_done(self, console: Console | None, *, has_replay: bool) -> int:
        """Capture until stopped, drain, and print the summary; returns the exit code."""
        capture, parts = self._settings.capture, self._parts
        log.info(
            f"run {parts.run_id}: {parts.venue_name}, {len(capture.symbols)} symbols, to {capture.output_dir}",
            run=parts.run_id,
        )
        settle()
        trio.lowlevel.add_instrument(parts.lag)
        try:
            async with trio.open_nursery() as root:
                await root.start(self._watch_signals)
                root.start_soon(self._write)
                if parts.journaling is not None:
                    parts.journaling.start()
                    root.start_soon(parts.journaling.run)
                if parts.checkpoints is not None:
                    await parts.checkpoints.begin()
                try:
                    with self._capture_scope:
                        await self._capture(console, has_replay=has_replay)
                finally:
                    await self._drain()
                    if parts.journaling is not None:
                        await parts.journaling.close()
                root.cancel_scope.cancel()
        finally:
            trio.lowlevel.remove_instrument(parts.lag)
        summary = parts.summary()
        summary.print(Console())
        if parts.journaling is not None:
            is_whole = not (self._aborted or summary.unwritten) and parts.recovery.succeeded
            await parts.journaling.end(is_committed=is_whole)
        if self._aborted:
            return EXIT_INTERRUPTED
        return EXIT_UNWRITTEN if summary.unwritten else EXIT_OK

    def stop(self) -> None:
        """End the connections; the last gaps, and the drain, follow."""
        self._stopping = True
        self._feeds_scope.cancel()

    async def _watch_signals(self, task_status: trio.TaskStatus[None]) -> None:
        heard = [signal.SIGINT, signal.SIGTERM]
        # Windows has none.
        hangup = getattr(signal, "SIGHUP", None)
        if self._reload is not None and hangup is not None:
            heard.append(hangup)
        with trio.open_signal_receiver(*heard) as signals:
            task_status.started()
            async for number in signals:
                name = signal.Signals(number).name
                if self._reload is not None and number == hangup:
                    log.info(f"{name}: loading the settings anew")
                    self._reload.request()
                elif not self._stopping:
                    log.info(
                        f"{name}: ending the capture, then writing what is buffered; once more ends at once"
                    )
                    self.stop()
                else:
                    log.warning(f"{name} again: ending at once")
                    self._aborted = True
                    self._capture_scope.cancel()
                    self._drain_scope.cancel()

    async def _write(self) -> None:
        await self._parts.writer.run()
        self._writer_done.set()

    async def _capture(self, console: Console | None, *, has_replay: bool) -> None:
        settings, parts = self._settings, self._parts
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._run_feeds)
            nursery.start_soon(parts.backfill.run)
            nursery.start_soon(parts.missing_trades.run)
            nursery.start_soon(parts.auditor.run)
            if parts.open_interest is not None:
                nursery.start_soon(parts.open_interest.run)
            nursery.start_soon(parts.health.run)
            nursery.start_soon(parts.rotation.run)
            nursery.start_soon(parts.upkeep.run)
            nursery.start_soon(parts.compactor.run)
            nursery.start_soon(parts.recovery.run)
            if parts.checkpoints is not None:
                nursery.start_soon(parts.checkpoints.run)
            nursery.start_soon(self._instruments.check_until_known)
            nursery.start_soon(parts.listing.run, self._instruments.known)
            if self._reload is not None:
                nursery.start_soon(self._reload.run)
            if console is not None:
                title = f"harvest {parts.venue_name}  run {parts.run_id}"
                display = Display(console, title=title, status=parts.status, health=settings.health)
                nursery.start_soon(display.run)
            if has_replay:
                nursery.start_soon(self._stop_after_replay)
            if settings.capture.run_hours is not None:
                await trio.sleep(settings.capture.run_hours * 3600)
                log.info(f"{settings.capture.run_hours:g} hours are over: ending")
                self.stop()

    async def _run_feeds(self) -> None:
        """Run the connections until they are to end; then what they have left out has a last chance to be fetched."""
        parts = self._parts
        with self._feeds_scope:
            async with trio.open_nursery() as nursery:
                for feed in parts.watchlist.feeds:
                    nursery.start_soon(feed.run)
        with trio.move_on_after(LAST_GAPS_S):
            await parts.missing_trades.settle()
        self._capture_scope.cancel()

    async def _stop_after_replay(self) -> None:
        await replay_received(self._client, self._parts.metrics)
        log.info("the replay has ended, and everything of it has been received")
        self.stop()

    async def _drain(self) -> None:
        """Give the writer everything, and wait until it is in files, or the deadline has passed."""
        timeout_s = self._settings.capture.drain_timeout_s
        with self._drain_scope:
            self._drain_scope.deadline = trio.current_time() + timeout_s
            if self._parts.journaling is not None:
                self._parts.journaling.hurry()
            await self._parts.rotation.drain()
            self._parts.writer.close()
            await self._writer_done.wait()
            await self._parts.upkeep.flush()
        if self._drain_scope.cancelled_caught and not self._aborted:
            log.error(f"the writer did not finish within {timeout_s:g}s (drain_timeout_s)")
