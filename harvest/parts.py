"""The parts of one run, made and wired together once; ``run.py`` sets them going."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING

from harvest.metrics import FEEDS, Metrics
from harvest.nurseries.auditor import Auditor
from harvest.nurseries.backfill import Backfill
from harvest.nurseries.bookkeeper import Bookkeeper
from harvest.nurseries.checkpoints import Checkpoints
from harvest.nurseries.compactor import Compactor
from harvest.nurseries.feeds import FeedNursery
from harvest.nurseries.health import Health
from harvest.nurseries.intake import Intake
from harvest.nurseries.journaling import Journaling
from harvest.nurseries.lag import LagSensor
from harvest.nurseries.listing import Listing
from harvest.nurseries.missing_trades import MissingTrades
from harvest.nurseries.polling import OpenInterestPoll
from harvest.nurseries.probe import Prober
from harvest.nurseries.recovery import Recovery
from harvest.nurseries.rotation import Rotation
from harvest.nurseries.status import Status, feed_ages
from harvest.nurseries.stream import LINGER_S
from harvest.nurseries.upkeep import Upkeep
from harvest.nurseries.watchlist import Watchlist
from harvest.nurseries.writer import Writer
from harvest.pipeline.beginning import look
from harvest.pipeline.machine import Pipeline
from harvest.pipeline.resume import check_id_space
from harvest.pipeline.summary import Summary
from harvest.storage.files import DataDirectory
from harvest.storage.journal import Journal
from harvest.storage.layout import new_run_id
from harvest.storage.parquet import Provenance
from harvest.storage.quarantine import Quarantine
from harvest.venues.protocol import StreamOptions

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harvest.market import Feed
    from harvest.nurseries.rest import RestClient
    from harvest.pipeline.beginning import Beginning
    from harvest.pipeline.resume import Stored
    from harvest.settings import Settings
    from harvest.venues.protocol import ConnectionPlan, Venue

#: Update intervals that another connection has to fill a gap, at least.
PATIENCE_INTERVALS = 2
#: Of a disk that fills up, so many times the journal's reserve is left to it: Parquet stops before the journal does.
JOURNAL_ROOM = 4
#: Open buffers of more than this part of the memory for all that is buffered are sealed before their time.
OPEN_SHARE = 4


def gap_patience_s(depth_interval_ms: int) -> float:
    """Return how long another connection has to fill a gap before it is one.

    At a hand-over the new connection may be ahead of what the old one has yet to be read: as long as that lingers, it counts.
    """
    return max(PATIENCE_INTERVALS * max(depth_interval_ms, 100) / 1000, LINGER_S)


def streaming_feeds(settings: Settings) -> tuple[Feed, ...]:
    """Return the feeds that come over connections: trades, books, and the channels that are recorded."""
    return (*FEEDS, *(one for one in settings.channels.record or () if one != "open_interest"))


def max_streams(venue: Venue, settings: Settings) -> int:
    """Return how many streams a connection may carry."""
    return min(settings.streams.max_streams or venue.max_streams, venue.max_streams)


def plan_connections(
    venue: Venue, settings: Settings, ws_url: str, feed: Feed, symbols: Sequence[str]
) -> list[ConnectionPlan]:
    """Plan the connections of one feed of ``symbols``, at ``ws_url`` and below."""
    capture, channels = settings.capture, settings.channels
    options = StreamOptions(
        capture.trade_event,
        capture.depth_interval_ms,
        channels.partial_levels,
        channels.partial_interval_ms,
    )
    return venue.connections(feed, symbols, options, ws_url=ws_url, max_streams=max_streams(venue, settings))


class Parts:
    """Everything that a run is made of. ``venue_name`` is what the data lies under, ``ws_url`` where the streams are.

    Raises:
        IdSpaceError: the data directory holds the other kind of trade ids.
    """

    def __init__(
        self,
        settings: Settings,
        venue: Venue,
        *,
        venue_name: str,
        ws_url: str,
        client: RestClient,
        beginning: Beginning,
    ) -> None:
        capture, stored = settings.capture, beginning.stored
        id_space = venue.id_space(capture.trade_event)
        check_id_space(stored.catalog, capture.symbols, id_space)
        self.run_id = new_run_id(time.time_ns())
        self.venue_name = venue_name
        self._root = capture.output_dir
        self._started_s = time.monotonic()
        self.metrics = Metrics()
        self.lag = LagSensor()
        patience_s = gap_patience_s(capture.depth_interval_ms)
        self.pipeline = Pipeline(
            venue,
            metrics=self.metrics,
            levels=settings.book.levels,
            max_rows=settings.rotation.max_rows_per_file,
            max_pending_diffs=settings.book.max_pending_diffs,
            resume_cvd=stored.resume_cvd,
            symbols=capture.symbols,
            id_space=id_space,
            patience_s=patience_s,
            channels=settings.channels.record or (),
        )
        self.journaling: Journaling | None = None
        if settings.journal.enabled:
            # Whoever makes rows of the journal needs a pipeline like this one.
            facts = {
                "venue": venue.name,
                "symbols": capture.symbols,
                "id_space": id_space,
                "levels": settings.book.levels,
                "max_pending_diffs": settings.book.max_pending_diffs,
                "patience_s": patience_s,
                "channels": settings.channels.record or (),
            }
            journal = Journal(
                capture.output_dir, venue=venue_name, run=self.run_id, facts=facts, settings=settings.journal
            )
            self.journaling = Journaling(journal)
        directory, ledger = DataDirectory(capture.output_dir), Bookkeeper(capture.output_dir)
        self.writer = Writer(
            directory=directory,
            provenance=Provenance(venue_name, self.run_id, id_space, settings.book.max_pending_diffs),
            settings=settings.writer,
            on_published=ledger.enter,
            room_bytes=JOURNAL_ROOM * settings.journal.reserve_bytes if settings.journal.enabled else 0,
            wait_durable=(lambda _seq: None) if self.journaling is None else self.journaling.wait_durable,
        )
        self.rotation = Rotation(
            tables=self.pipeline.tables,
            writer=self.writer,
            settings=settings.rotation,
            symbols=lambda: self.watchlist.symbols,
            stamps=lambda symbol: feed_ages(self.metrics, symbol),
            max_open_bytes=settings.writer.max_buffered_bytes / OPEN_SHARE,
        )
        self.compactor = Compactor(
            capture.output_dir,
            settings.compaction,
            may_compact=lambda: self.recovery.succeeded and not self.writer.pending().failing,
        )
        quarantine = Quarantine(capture.output_dir, self.run_id)
        self.upkeep = Upkeep(
            directory, self.pipeline, quarantine, ledger.flush, min_free_bytes=settings.writer.min_free_bytes
        )
        self.status = Status(
            metrics=self.metrics,
            tables=self.pipeline.tables,
            writer=self.writer,
            rotation=self.rotation,
            upkeep=self.upkeep,
            journaling=self.journaling,
        )
        self.intake = Intake(
            self.pipeline,
            next_seq=beginning.next_seq,
            quarantine=quarantine,
            max_buffered_bytes=settings.writer.max_buffered_bytes,
            buffered_bytes=lambda: self.status.buffered_bytes() + self.pipeline.held_bytes,
            want_snapshot=lambda symbol: self.backfill.want(symbol),
            want_trades=lambda symbol, from_id, to_id: self.missing_trades.want(symbol, from_id, to_id),
            audited=lambda result: self.auditor.take(result),
            journal=None if self.journaling is None else self.journaling.take,
        )
        self.backfill = Backfill(
            venue,
            client,
            deliver=self.intake.snapshot,
            metrics=self.metrics,
            book=settings.book,
            rest=settings.rest,
        )
        self.missing_trades = MissingTrades(
            venue,
            client,
            event=capture.trade_event,
            intake=self.intake,
            still_missing=self.pipeline.missing_trades,
            rest=settings.rest,
        )
        self.auditor = Auditor(
            venue,
            client,
            intake=self.intake,
            symbols=lambda: self.watchlist.symbols,
            book=settings.book,
        )
        self.prober = Prober(venue, client, self.pipeline, capture.trade_event)
        #: None where it is not recorded.
        self.open_interest = (
            OpenInterestPoll(
                venue,
                client,
                lambda: self.watchlist.symbols,
                interval_s=settings.channels.open_interest_s,
                intake=self.intake,
            )
            if "open_interest" in (settings.channels.record or ())
            else None
        )
        self._stored = stored
        self.recovery = Recovery(
            capture.output_dir,
            beginning.dead_runs,
            living=self.run_id,
            living_seq=beginning.next_seq,
            look=lambda: look(settings, venue_name, self.watchlist.symbols, before_seq=beginning.next_seq),
            go_on=self._go_on,
            go_on_without=self._go_on_without,
            keeps_raw=settings.journal.keep_raw,
        )
        if beginning.dead_runs:
            self.pipeline.hold_cvd()
        else:
            for symbol, last_id in stored.last_trade_ids.items():
                self.pipeline.resume_trades(symbol, last_id)
            if stored.open_gaps:
                self.intake.resumed({}, wants_missing=True, open_gaps=stored.open_gaps)
        self.health = Health(self.metrics, settings.health)
        self.watchlist = Watchlist(
            capture.symbols,
            look=partial(look, settings, venue_name),
            id_space=id_space,
            pipeline=self.pipeline,
            intake=self.intake,
            backfill=self.backfill,
            ready=self.recovery.ended,
        )
        self.watchlist.feeds += [
            FeedNursery(
                capture.symbols,
                partial(plan_connections, venue, settings, ws_url, feed),
                # Beside liquidations there is the stream that shows that they would come.
                max_streams=max_streams(venue, settings) - (feed == "liquidations"),
                venue=venue,
                intake=self.intake,
                settings=settings.streams,
                metrics=self.metrics,
                lag=self.lag,
                prober=self.prober if self.prober.can_ask(feed) else None,
            )
            for feed in streaming_feeds(settings)
        ]
        self.checkpoints: Checkpoints | None = None
        if self.journaling is not None:
            self.checkpoints = Checkpoints(
                self.journaling,
                self.intake,
                symbols=lambda: self.watchlist.symbols,
                committed_seq=self._committed_seq,
                flush=self.upkeep.flush,
                # A run that dies while it waits for what was stored before it is recovered from its first record on.
                may_release=self.recovery.ended,
                round_s=settings.journal.checkpoint_s,
            )
        self.listing = Listing(
            venue, client, self.watchlist, self.metrics, interval_s=settings.rest.instruments_s
        )

    def _go_on(self, stored: Stored) -> None:
        """Go on from what is stored now that dead runs are recovered."""
        self.intake.resumed(stored.last_trade_ids, wants_missing=True, open_gaps=stored.open_gaps)
        self.pipeline.go_on_with_cvd(stored.resume_cvd)

    def _go_on_without(self) -> None:
        """Go on from what was stored when the run began, for dead runs may be recovered some time later."""
        self.intake.resumed(self._stored.last_trade_ids, wants_missing=False)
        self.pipeline.go_on_with_cvd(None)

    def _committed_seq(self) -> int:
        """Return the last ``seq`` up to which all rows are in files."""
        waiting = self.status.uncommitted_seq()
        return (self.intake.next_seq if waiting is None else waiting) - 1

    def summary(self) -> Summary:
        """Account for the run as it stands now."""
        left = self.rotation.unwritten() + self.writer.unwritten()
        stats = self.writer.stats
        return Summary(
            run=self.run_id,
            root=str(self._root),
            venue=self.venue_name,
            seconds=time.monotonic() - self._started_s,
            rows=stats.rows,
            files=stats.files,
            bytes=stats.bytes,
            metrics=self.metrics,
            unwritten=[str(one) for one in left],
        )
