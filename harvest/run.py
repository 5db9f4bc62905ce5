"""The root nursery, the signals, and the end of a run in stages.

root nursery
├── signals            SIGINT, SIGTERM: end the capture, then drain; a second one: at once
├── writer nursery     capacity-limited flushes; outlives the rest, to drain
└── capture nursery
    ├── trade nursery      one stream task a connection: connect, receive, restart
    ├── orderbook nursery  the same
    ├── backfill           REST: snapshots, under the venue's weight budget
    ├── health             reads the split timestamps, warns
    ├── rotation           every 60 s, or 30 s in extreme traffic: seals the buffers
    └── display            the live table, on a terminal
"""

from __future__ import annotations

import signal
import sys
import time
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import attrs
import trio
from rich.console import Console

from harvest import log as logging
from harvest.errors import HarvestError
from harvest.metrics import Metrics
from harvest.nurseries.backfill import Backfill
from harvest.nurseries.display import Display
from harvest.nurseries.feeds import run_feed
from harvest.nurseries.health import Health
from harvest.nurseries.instruments import Instruments
from harvest.nurseries.intake import Intake
from harvest.nurseries.lag import LagSensor
from harvest.nurseries.replay import replay_received
from harvest.nurseries.rest import RestClient
from harvest.nurseries.rotation import Rotation
from harvest.nurseries.status import FEEDS, Status, feed_ages
from harvest.nurseries.upkeep import Upkeep
from harvest.nurseries.writer import Writer
from harvest.pipeline.machine import Pipeline
from harvest.pipeline.resume import ResumeCvd, check_id_space, resume_cvd
from harvest.pipeline.summary import Summary
from harvest.simulator.process import simulator_process
from harvest.storage.catalog import Catalog, scan
from harvest.storage.files import DataDirectory
from harvest.storage.layout import new_run_id
from harvest.storage.parquet import Provenance
from harvest.storage.quarantine import Quarantine
from harvest.storage.tables import DAY_US
from harvest.venues import VENUES
from harvest.venues.protocol import StreamOptions

if TYPE_CHECKING:
    from harvest.market import Feed
    from harvest.settings import Settings
    from harvest.simulator.config import Endpoints, SimulatorConfig
    from harvest.venues.protocol import ConnectionPlan, Venue

log = logging.get_logger("RUN")

EXIT_OK = 0
#: The end came before everything was in files; the summary names what is not.
EXIT_UNWRITTEN = 1
#: As a shell reports a process that a signal ended.
EXIT_INTERRUPTED = 130


def run_until_done(settings: Settings, *, simulator: SimulatorConfig | None, live: bool | None) -> int:
    """Harvest until stopped, and return the exit code: 0, 1 if rows are left unwritten, 130 after a second signal.

    ``simulator`` is the local venue to start and to harvest; None harvests the real one. ``live`` shows the live table;
    None does on a terminal.

    Raises:
        HarvestError: it could not begin (an unknown symbol, the wrong trade ids), or the simulator has ended.
    """
    console = Console(stderr=True)
    shown = console if (console.is_terminal if live is None else live) else None
    logging.configure(
        log_format=settings.log.format, level=settings.log.level, stream=None if shown is None else _Late()
    )
    try:
        return trio.run(_run, settings, simulator, shown)
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


async def _run(settings: Settings, simulator: SimulatorConfig | None, console: Console | None) -> int:
    async with AsyncExitStack() as stack:
        venue = VENUES[settings.capture.venue]
        endpoints = None
        if simulator is not None:
            # A replay begins when all that will be subscribed is.
            streams = tuple(
                stream
                for feed in FEEDS
                for plan in _plans(venue, feed, settings, "")
                for stream in plan.streams
            )
            simulator = attrs.evolve(simulator, replay_streams=streams, exit_with_parent=True)
            endpoints = await stack.enter_async_context(simulator_process(simulator))
        rest_url = endpoints.rest_url if endpoints else settings.rest.url or venue.rest_url
        client = RestClient(rest_url, weight_per_minute=venue.weight_per_minute, settings=settings.rest)
        await stack.enter_async_context(client)
        instruments = Instruments(venue, client, settings.capture.symbols, settings.rest)
        await instruments.check_once()
        run = await Run.begin(settings, venue, client, endpoints)
        has_replay = simulator is not None and bool(simulator.replay)
        return await run.until_done(instruments, console, has_replay=has_replay)


def _plans(venue: Venue, feed: Feed, settings: Settings, ws_url: str) -> list[ConnectionPlan]:
    options = StreamOptions(settings.capture.trade_event, settings.capture.depth_interval_ms)
    max_streams = min(settings.streams.max_streams or venue.max_streams, venue.max_streams)
    return venue.connections(feed, settings.capture.symbols, options, ws_url=ws_url, max_streams=max_streams)


class Run:
    """One run: everything it needs, wired together once."""

    def __init__(
        self,
        settings: Settings,
        venue: Venue,
        client: RestClient,
        endpoints: Endpoints | None,
        catalog: Catalog,
        resume: ResumeCvd,
    ) -> None:
        self._settings = settings
        self._started_s = time.monotonic()
        name = venue.name if endpoints is None else f"simulated-{venue.name}"
        self._venue_name = name
        self._run_id = new_run_id(time.time_ns())
        ws_url = endpoints.ws_url if endpoints else settings.streams.ws_url or venue.ws_url
        self._plans = {feed: _plans(venue, feed, settings, ws_url) for feed in FEEDS}
        self._metrics = Metrics()
        self._lag = LagSensor()
        id_space = venue.id_space(settings.capture.trade_event)
        check_id_space(catalog, settings.capture.symbols, id_space)
        self._pipeline = Pipeline(
            venue,
            metrics=self._metrics,
            levels=settings.book.levels,
            max_rows=settings.rotation.max_rows_per_file,
            max_pending_diffs=settings.book.max_pending_diffs,
            resume_cvd=resume,
            symbols=settings.capture.symbols,
            id_space=id_space,
        )
        directory = DataDirectory(settings.capture.output_dir)
        self._writer = Writer(
            directory=directory,
            provenance=Provenance(name, self._run_id, trade_ids=id_space),
            settings=settings.writer,
        )
        self._rotation = Rotation(
            tables=self._pipeline.tables,
            writer=self._writer,
            settings=settings.rotation,
            symbols=lambda: settings.capture.symbols,
            stamps=lambda symbol: feed_ages(self._metrics, symbol),
        )
        quarantine = Quarantine(settings.capture.output_dir, self._run_id)
        self._upkeep = Upkeep(
            directory, self._pipeline, quarantine, min_free_bytes=settings.writer.min_free_bytes
        )
        self._status = Status(
            metrics=self._metrics,
            tables=self._pipeline.tables,
            writer=self._writer,
            rotation=self._rotation,
            upkeep=self._upkeep,
        )
        self._intake = Intake(
            self._pipeline,
            next_seq=catalog.next_seq,
            quarantine=quarantine,
            max_buffered_bytes=settings.writer.max_buffered_bytes,
            buffered_bytes=self._status.buffered_bytes,
            want_snapshot=lambda symbol: self._backfill.want(symbol),
        )
        self._backfill = Backfill(
            venue,
            client,
            deliver=self._intake.snapshot,
            metrics=self._metrics,
            book=settings.book,
            rest=settings.rest,
        )
        self._health = Health(self._metrics, settings.health)
        self._client = client
        self._capture_scope = trio.CancelScope()
        self._drain_scope = trio.CancelScope(shield=True)
        self._writer_done = trio.Event()
        self._stopping = False
        self._aborted = False

    @classmethod
    async def begin(
        cls, settings: Settings, venue: Venue, client: RestClient, endpoints: Endpoints | None
    ) -> Run:
        """Look at what the data directory holds, and prepare a run on top of it.

        Raises:
            IdSpaceError: it holds the other kind of trade ids.
        """
        name = venue.name if endpoints is None else f"simulated-{venue.name}"
        catalog = await trio.to_thread.run_sync(scan, settings.capture.output_dir, name)
        today = time.time_ns() // 1000 // DAY_US
        resume = await trio.to_thread.run_sync(resume_cvd, catalog, settings.capture.symbols, today)
        for damage in catalog.damage:
            log.warning(f"{damage.path}: {damage.why}; left as it is", path=str(damage.path))
        return cls(settings, venue, client, endpoints, catalog, resume)

    async def until_done(self, instruments: Instruments, console: Console | None, *, has_replay: bool) -> int:
        """Capture until stopped, drain, and print the summary; returns the exit code."""
        capture = self._settings.capture
        log.info(
            f"run {self._run_id}: {self._venue_name}, {len(capture.symbols)} symbols, to {capture.output_dir}",
            run=self._run_id,
        )
        trio.lowlevel.add_instrument(self._lag)
        try:
            async with trio.open_nursery() as root:
                await root.start(self._watch_signals)
                root.start_soon(self._write)
                try:
                    with self._capture_scope:
                        await self._capture(instruments, console, has_replay=has_replay)
                finally:
                    await self._drain()
                root.cancel_scope.cancel()
        finally:
            trio.lowlevel.remove_instrument(self._lag)
        summary = self._summary()
        summary.print(Console())
        if self._aborted:
            return EXIT_INTERRUPTED
        return EXIT_UNWRITTEN if summary.unwritten else EXIT_OK

    async def _watch_signals(self, task_status: trio.TaskStatus[None]) -> None:
        with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            task_status.started()
            async for number in signals:
                name = signal.Signals(number).name
                if not self._stopping:
                    log.info(
                        f"{name}: ending the capture, then writing what is buffered; once more ends at once"
                    )
                    self.stop()
                else:
                    log.warning(f"{name} again: ending at once")
                    self._aborted = True
                    self._drain_scope.cancel()

    def stop(self) -> None:
        """End the capture; the drain follows."""
        self._stopping = True
        self._capture_scope.cancel()

    async def _write(self) -> None:
        await self._writer.run()
        self._writer_done.set()

    async def _capture(self, instruments: Instruments, console: Console | None, *, has_replay: bool) -> None:
        settings = self._settings
        async with trio.open_nursery() as nursery:
            for feed in FEEDS:
                nursery.start_soon(self._run_feed, feed)
            nursery.start_soon(self._backfill.run)
            nursery.start_soon(self._health.run)
            nursery.start_soon(self._rotation.run)
            nursery.start_soon(self._upkeep.run)
            nursery.start_soon(instruments.check_until_known)
            if console is not None:
                title = f"harvest {self._venue_name}  run {self._run_id}"
                display = Display(console, title=title, status=self._status, health=settings.health)
                nursery.start_soon(display.run)
            if has_replay:
                nursery.start_soon(self._stop_after_replay)
            if settings.capture.run_hours is not None:
                await trio.sleep(settings.capture.run_hours * 3600)
                log.info(f"{settings.capture.run_hours:g} hours are over: ending")
                self.stop()

    async def _run_feed(self, feed: Feed) -> None:
        await run_feed(
            self._plans[feed],
            intake=self._intake,
            settings=self._settings.streams,
            metrics=self._metrics,
            lag=self._lag,
        )

    async def _stop_after_replay(self) -> None:
        await replay_received(self._client, self._metrics)
        log.info("the replay has ended, and everything of it has been received")
        self.stop()

    async def _drain(self) -> None:
        """Give the writer everything, and wait until it is in files, or the deadline has passed."""
        timeout_s = self._settings.capture.drain_timeout_s
        with self._drain_scope:
            self._drain_scope.deadline = trio.current_time() + timeout_s
            await self._rotation.drain()
            self._writer.close()
            await self._writer_done.wait()
            await self._upkeep.flush()
        if self._drain_scope.cancelled_caught and not self._aborted:
            log.error(f"the writer did not finish within {timeout_s:g}s (drain_timeout_s)")

    def _summary(self) -> Summary:
        left = self._rotation.unwritten() + self._writer.unwritten()
        stats = self._writer.stats
        return Summary(
            run=self._run_id,
            root=str(self._settings.capture.output_dir),
            venue=self._venue_name,
            seconds=time.monotonic() - self._started_s,
            rows=stats.rows,
            files=stats.files,
            bytes=stats.bytes,
            metrics=self._metrics,
            unwritten=[
                f"{u.rows:,} rows of {u.kind} {u.symbol}, seq {u.first_seq} to {u.last_seq}" for u in left
            ],
        )
