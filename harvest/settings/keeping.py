"""How rows reach the disk."""

from __future__ import annotations

import attrs

from harvest.settings.fields import GIB, KIB, MIB, duration, setting


@attrs.frozen
class RotationSettings:
    """When buffers are sealed and become files."""

    rotate_s: float = duration(60.0, "PARQUET_ROTATE_SEC", "between two files of a kind and symbol")
    extreme_rotate_s: float = duration(30.0, "EXTREME_ROTATE_SEC", "the same in extreme traffic")
    extreme_threshold_rows: int = setting(
        30_000,
        "EXTREME_TRAFFIC_THRESHOLD",
        "a prices buffer with so many rows begins extreme traffic",
        unit="rows",
        min=1,
        max=100_000_000,
    )
    max_rows_per_file: int = setting(
        200_000,
        "MAX_ROWS_PER_FILE",
        "a buffer with so many rows is sealed at once",
        unit="rows",
        min=2,
        max=100_000_000,
    )
    min_rows_per_file: int = setting(
        0,
        "HARVEST_MIN_ROWS_PER_FILE",
        "a smaller buffer waits, for an hour or till midnight at most; needs the journal; 0: none waits",
        unit="rows",
        min=0,
        max=100_000_000,
    )


@attrs.frozen
class CompactionSettings:
    """How small files become large ones, and how long they are kept."""

    interval_s: float = duration(
        3600.0,
        "HARVEST_COMPACT_INTERVAL_SEC",
        "between two passes over past hours and dates; 0 never compacts",
        min=0,
    )
    max_rows: int = setting(
        20_000_000,
        "HARVEST_COMPACT_MAX_ROWS",
        "a date with more rows of a kind and symbol gets several files",
        unit="rows",
        min=1,
        max=10_000_000_000,
    )
    keep_days: int | None = setting(
        None,
        "HARVEST_KEEP_DAYS",
        "dates that lie so many days back are removed",
        unit="days",
        min=1,
        max=36_500,
        none="all are kept",
        flag="--keep-days",
    )
    keep_bytes: int | None = setting(
        None,
        "HARVEST_KEEP_BYTES",
        "while the data takes more, the oldest dates are removed",
        unit="bytes",
        min=MIB,
        max=1024 * 1024 * GIB,
        none="no bound",
    )


@attrs.frozen
class WriterSettings:
    """How sealed buffers reach the disk, and how much may wait."""

    save_concurrency: int = setting(
        2, "SAVE_CONCURRENCY", "files written at once", unit="files", min=1, max=64
    )
    queue_tables: int = setting(
        64, "HARVEST_QUEUE_TABLES", "sealed buffers that may wait", unit="tables", min=1, max=1_000_000
    )
    retry_initial_s: float = duration(
        1.0, "HARVEST_SAVE_RETRY_INITIAL_SEC", "the first wait after a failed write"
    )
    retry_max_s: float = duration(5.0, "HARVEST_SAVE_RETRY_MAX_SEC", "the longest wait after a failed write")
    max_buffered_bytes: int = setting(
        512 * MIB,
        "HARVEST_MAX_BUFFERED_BYTES",
        "the memory for all that is buffered",
        unit="bytes",
        min=MIB,
        max=1024 * GIB,
    )
    min_free_bytes: int = setting(
        GIB,
        "HARVEST_MIN_FREE_BYTES",
        "less free disk space than this is warned of; 0 never warns",
        unit="bytes",
        min=0,
        max=1024 * 1024 * GIB,
    )


@attrs.frozen
class JournalSettings:
    """How what was received is kept until its rows are in files."""

    enabled: bool = setting(True, "HARVEST_JOURNAL", "keep a journal of what is received")
    keep_raw: bool = setting(
        False, "HARVEST_KEEP_RAW", "keep it as raw capture when no row needs it any more", flag="--keep-raw"
    )
    write_ms: float = setting(
        5.0,
        "HARVEST_JOURNAL_WRITE_MS",
        "what a killed process loses at most",
        unit="ms",
        min=0.1,
        max=1000,
    )
    sync_ms: float = setting(
        100.0,
        "HARVEST_JOURNAL_SYNC_MS",
        "between two fdatasync: what a power cut loses at most, on a disk that keeps up",
        unit="ms",
        min=1,
        max=60_000,
    )
    segment_bytes: int = setting(
        64 * MIB,
        "HARVEST_JOURNAL_SEGMENT_BYTES",
        "a segment of this size is followed by a new one",
        unit="bytes",
        min=KIB,
        max=GIB,
    )
    segment_s: float = duration(300.0, "HARVEST_JOURNAL_SEGMENT_SEC", "the same by its age")
    checkpoint_s: float = duration(
        60.0, "HARVEST_CHECKPOINT_SEC", "in which the state of each symbol is kept once"
    )
    buffer_bytes: int = setting(
        64 * MIB,
        "HARVEST_JOURNAL_BUFFER_BYTES",
        "the memory for what is not on the disk yet; beyond it the journal has a hole",
        unit="bytes",
        min=KIB,
        max=64 * GIB,
    )
    reserve_bytes: int = setting(
        4 * MIB,
        "HARVEST_JOURNAL_RESERVE_BYTES",
        "disk space kept for the journal of a full disk; 0 keeps none",
        unit="bytes",
        min=0,
        max=GIB,
    )
