"""The parts of one run, made and wired together once; ``run.py`` sets them going."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import attrs

from harvest.metrics import Metrics
from harvest.nurseries.auditor import Auditor
from harvest.nurseries.backfill import Backfill
from harvest.nurseries.bookkeeper import Bookkeeper
from harvest.nurseries.compactor import Compactor
from harvest.nurseries.health import Health
from harvest.nurseries.intake import Intake
from harvest.nurseries.journaling import Journaling
from harvest.nurseries.lag import LagSensor
from harvest.nurseries.missing_trades import MissingTrades
from harvest.nurseries.polling import OpenInterestPoll
from harvest.nurseries.probe import Prober
from harvest.nurseries.rotation import Rotation
from harvest.nurseries.status import FEEDS, Status, feed_ages
from harvest.nurseries.stream import LINGER_S
from harvest.nurseries.upkeep import Upkeep
from harvest.nurseries.writer import Writer
from harvest.pipeline.machine import Pipeline
from harvest.pipeline.resume import check_id_space, resume_cvd
from harvest.pipeline.summary import Summary
from harvest.storage.catalog import scan
from harvest.storage.files import DataDirectory
from harvest.storage.journal import Journal, last_seq, list_segments
from harvest.storage.layout import new_run_id
from harvest.storage.parquet import Provenance
from harvest.storage.quarantine import Quarantine
from harvest.storage.tables import DAY_US
from harvest.venues.protocol import StreamOptions

if TYPE_CHECKING:
    from harvest.market import Feed
    from harvest.nurseries.rest import RestClient
    from harvest.pipeline.resume import ResumeCvd
    from harvest.settings import Settings
    from harvest.storage.catalog import Catalog
    from harvest.storage.journal import SegmentFile
    from harvest.venues.protocol import ConnectionPlan, Venue

#: Update intervals that another connection has to fill a gap, at least.
PATIENCE_INTERVALS = 2


def gap_patience_s(depth_interval_ms: int) -> float:
    """Return how long another connection has to fill a gap before it is one.

    At a hand-over the new connection may be ahead of what the old one has yet to be read: as long as that lingers, it counts.
    """
    return max(PATIENCE_INTERVALS * max(depth_interval_ms, 100) / 1000, LINGER_S)


def plan_connections(venue: Venue, settings: Settings, ws_url: str) -> dict[Feed, list[ConnectionPlan]]:
    """Plan the connections of each feed that streams, at ``ws_url`` and below."""
    capture, channels = settings.capture, settings.channels
    options = StreamOptions(
        capture.trade_event,
        capture.depth_interval_ms,
        channels.partial_levels,
        channels.partial_interval_ms,
    )
    max_streams = min(settings.streams.max_streams or venue.max_streams, venue.max_streams)
    return {
        feed: venue.connections(feed, capture.symbols, options, ws_url=ws_url, max_streams=max_streams)
        for feed in (*FEEDS, *(one for one in channels.record or () if one != "open_interest"))
    }


@attrs.frozen
class Stored:
    """What the data directory holds when a run begins."""

    catalog: Catalog
    resume_cvd: ResumeCvd
    #: The greatest stored trade id, of the symbols that have one.
    last_trade_ids: dict[str, int]
    #: The first ``seq`` of the run: above that of every file, and of all that dead runs have journalled.
    next_seq: int
    #: Segments that dead runs have left in the journal, of whatever venue.
    journalled: list[SegmentFile]


def look_at_stored(settings: Settings, venue_name: str) -> Stored:
    """Read what a run takes over. It blocks on the disk, so call it in a thread.

    Raises:
        JournalError: a later version of harvest has written the journal.
    """
    catalog = scan(settings.capture.output_dir, venue_name)
    today = time.time_ns() // 1000 // DAY_US
    symbols = settings.capture.symbols
    last_ids = {symbol: last for symbol in symbols if (last := catalog.last_trade_id(symbol)) is not None}
    root = settings.capture.output_dir
    # The seq after a dead run's last record is that of its end, which recovery takes for it.
    journalled = last_seq(root)
    next_seq = max(catalog.next_seq, journalled + 2 if journalled else 1)
    return Stored(catalog, resume_cvd(catalog, symbols, today), last_ids, next_seq, list_segments(root))


class Parts:
    """Everything that a run is made of. ``venue_name`` is what the data lies under.

    Raises:
        IdSpaceError: the data directory holds the other kind of trade ids.
    """

    def __init__(
        self, settings: Settings, venue: Venue, *, venue_name: str, client: RestClient, stored: Stored
    ) -> None:
        capture = settings.capture
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
        directory = DataDirectory(capture.output_dir)
        self.writer = Writer(
            directory=directory,
            provenance=Provenance(venue_name, self.run_id, trade_ids=id_space),
            settings=settings.writer,
            on_published=Bookkeeper(capture.output_dir).enter,
        )
        self.rotation = Rotation(
            tables=self.pipeline.tables,
            writer=self.writer,
            settings=settings.rotation,
            symbols=lambda: capture.symbols,
            stamps=lambda symbol: feed_ages(self.metrics, symbol),
        )
        self.compactor = Compactor(capture.output_dir, settings.compaction)
        quarantine = Quarantine(capture.output_dir, self.run_id)
        self.upkeep = Upkeep(
            directory, self.pipeline, quarantine, min_free_bytes=settings.writer.min_free_bytes
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
            next_seq=stored.next_seq,
            quarantine=quarantine,
            max_buffered_bytes=settings.writer.max_buffered_bytes,
            buffered_bytes=self.status.buffered_bytes,
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
            symbols=lambda: capture.symbols,
            book=settings.book,
        )
        self.prober = Prober(venue, client, self.pipeline, capture.trade_event)
        #: None where it is not recorded.
        self.open_interest = (
            OpenInterestPoll(
                venue,
                client,
                capture.symbols,
                interval_s=settings.channels.open_interest_s,
                intake=self.intake,
            )
            if "open_interest" in (settings.channels.record or ())
            else None
        )
        for symbol, last_id in stored.last_trade_ids.items():
            self.pipeline.resume_trades(symbol, last_id)
        self.health = Health(self.metrics, settings.health)

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
            unwritten=[
                f"{u.rows:,} rows of {u.kind} {u.symbol}, seq {u.first_seq} to {u.last_seq}" for u in left
            ],
        )
