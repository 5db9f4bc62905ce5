"""What can be set: one frozen class a concern, each field with its default, unit, variable and bounds.

A field's ``metadata`` holds ``env`` (its environment variable), ``unit``, ``help``, and where they apply
``flag``, ``min`` and ``max`` (inclusive), ``above`` (exclusive) and ``none`` (what None means, in words).
The variables without the prefix ``HARVEST_`` are those of the recorder that harvest replaces.
"""

from __future__ import annotations

# ruff: noqa: RUF009 - _setting makes an attrs field, not a default that instances would share.
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import attrs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

TradeEvent = Literal["aggTrade", "trade"]
LogFormat = Literal["human", "json"]
LogLevel = Literal["debug", "info", "warning", "error"]

KIB: Final = 1024
MIB: Final = 1024 * KIB
GIB: Final = 1024 * MIB
#: No duration is longer: beyond it somebody wrote milliseconds.
WEEK_S: Final = 604_800


def _upper_unique(symbols: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(symbol.upper() for symbol in symbols))


def _without_slash(url: str | None) -> str | None:
    return url.rstrip("/") if url else url


def _setting(
    default: object, env: str, help: str, *, converter: Callable[[Any], Any] | None = None, **facts: object
) -> Any:
    metadata = {"env": env, "help": help, "unit": "", **facts}
    return attrs.field(default=default, converter=converter, metadata=metadata)


def _duration(default: float, env: str, help: str, **facts: object) -> Any:
    above: dict[str, object] = {} if "min" in facts else {"above": 0}
    return _setting(default, env, help, converter=None, unit="s", max=WEEK_S, **above, **facts)


@attrs.frozen
class CaptureSettings:
    """What is recorded, where to, and for how long."""

    venue: str = _setting(
        "binance-usdm", "HARVEST_VENUE", "the venue: binance-usdm or binance-spot", flag="--venue"
    )
    symbols: tuple[str, ...] = _setting(
        ("BTCUSDT", "ETHUSDT"),
        "SYMBOLS",
        "the venue's symbols; a list here, with commas between them in the variable and the flag",
        converter=_upper_unique,
        flag="--symbols",
    )
    output_dir: Path = _setting(
        Path("data"),
        "OUTPUT_DIR",
        "the data directory; relative to the current directory",
        flag="--output-dir",
    )
    run_hours: float | None = _setting(
        None,
        "RUN_HOURS",
        "how long to record",
        unit="h",
        above=0,
        max=1_000_000,
        none="for ever",
        flag="--hours",
    )
    trade_event: TradeEvent = _setting(
        "aggTrade",
        "HARVEST_TRADE_EVENT",
        "aggTrade or trade (raw trades; their ids are another id space)",
        flag="--trade-event",
    )
    depth_interval_ms: int = _setting(
        100,
        "HARVEST_DEPTH_INTERVAL_MS",
        "between two diffs of a book; binance-usdm: 0, 100, 250, 500; binance-spot: 100, 1000",
        unit="ms",
        min=0,
        max=1000,
        flag="--depth-interval-ms",
    )
    drain_timeout_s: float = _duration(
        30.0,
        "HARVEST_DRAIN_TIMEOUT_SEC",
        "at the end of a run: how long the writer may take for what is left",
    )


@attrs.frozen
class StreamSettings:
    """How connections are made, watched and made anew."""

    idle_s: float = _duration(
        120.0, "STREAM_IDLE_SEC", "a stream without data for this long is connected anew"
    )
    backoff_reset_s: float = _duration(
        300.0, "BACKOFF_RESET_SECS", "a connection that lived this long makes the next backoff short again"
    )
    backoff_initial_s: float = _duration(
        1.0, "HARVEST_BACKOFF_INITIAL_SEC", "the first wait between two tries"
    )
    backoff_max_s: float = _duration(60.0, "HARVEST_BACKOFF_MAX_SEC", "the longest wait between two tries")
    ping_interval_s: float = _duration(
        20.0, "WSS_PING_INTERVAL", "between two pings of ours; 0 sends none", min=0
    )
    ping_timeout_s: float = _duration(10.0, "HARVEST_PING_TIMEOUT_SEC", "how long a pong may take")
    connect_timeout_s: float = _duration(
        10.0, "HARVEST_CONNECT_TIMEOUT_SEC", "name, TCP, TLS and WebSocket handshake together"
    )
    close_timeout_s: float = _duration(2.0, "HARVEST_CLOSE_TIMEOUT_SEC", "how long a close may take")
    first_message_s: float = _duration(
        10.0,
        "HARVEST_FIRST_MESSAGE_SEC",
        "a stream acknowledged, but silent for this long: the log names the cause it suspects",
    )
    handover_s: float = _duration(
        82_800.0,
        "HARVEST_HANDOVER_SEC",
        "a connection of this age is handed over to a new one; Binance ends them after 24 hours",
    )
    connections: int = _setting(
        1,
        "HARVEST_CONNECTIONS",
        "sockets on the same streams; with 2 a break of one leaves no hole",
        unit="sockets",
        min=1,
        max=8,
        flag="--connections",
    )
    max_streams: int | None = _setting(
        None,
        "HARVEST_MAX_STREAMS",
        "streams a connection",
        unit="streams",
        min=1,
        max=1024,
        none="the venue's",
    )
    max_message_bytes: int = _setting(
        16 * MIB,
        "HARVEST_MAX_MESSAGE_BYTES",
        "the largest message that is taken",
        unit="bytes",
        min=64 * KIB,
        max=GIB,
    )
    receive_bytes: int = _setting(
        64 * KIB, "HARVEST_RECEIVE_BYTES", "how much is read at once", unit="bytes", min=KIB, max=16 * MIB
    )
    ws_url: str | None = _setting(
        None,
        "HARVEST_WS_URL",
        "where streams are, for a local or mirrored venue",
        converter=_without_slash,
        none="the venue's",
    )
    allow_insecure: bool = _setting(
        False, "HARVEST_ALLOW_INSECURE", "allow ws:// and http:// to other hosts than this one"
    )


@attrs.frozen
class HealthSettings:
    """When silence is worth a warning."""

    interval_s: float = _duration(25.0, "HEALTH_CHECK_INTERVAL", "between two looks at the streams")
    trade_timeout_s: float = _duration(
        150.0, "TRADE_TIMEOUT", "a symbol without a trade for this long is warned of"
    )
    orderbook_timeout_s: float = _duration(
        180.0, "ORDERBOOK_TIMEOUT", "a symbol without a book update for this long is warned of"
    )


@attrs.frozen
class RotationSettings:
    """When buffers are sealed and become files."""

    rotate_s: float = _duration(60.0, "PARQUET_ROTATE_SEC", "between two files of a kind and symbol")
    extreme_rotate_s: float = _duration(30.0, "EXTREME_ROTATE_SEC", "the same in extreme traffic")
    extreme_threshold_rows: int = _setting(
        30_000,
        "EXTREME_TRAFFIC_THRESHOLD",
        "a prices buffer with so many rows begins extreme traffic",
        unit="rows",
        min=1,
        max=100_000_000,
    )
    max_rows_per_file: int = _setting(
        200_000,
        "MAX_ROWS_PER_FILE",
        "a buffer with so many rows is sealed at once",
        unit="rows",
        min=2,
        max=100_000_000,
    )


@attrs.frozen
class WriterSettings:
    """How sealed buffers reach the disk, and how much may wait."""

    save_concurrency: int = _setting(
        2, "SAVE_CONCURRENCY", "files written at once", unit="files", min=1, max=64
    )
    queue_tables: int = _setting(
        64, "HARVEST_QUEUE_TABLES", "sealed buffers that may wait", unit="tables", min=1, max=1_000_000
    )
    retry_initial_s: float = _duration(
        1.0, "HARVEST_SAVE_RETRY_INITIAL_SEC", "the first wait after a failed write"
    )
    retry_max_s: float = _duration(
        10.0, "HARVEST_SAVE_RETRY_MAX_SEC", "the longest wait after a failed write"
    )
    max_buffered_bytes: int = _setting(
        512 * MIB,
        "HARVEST_MAX_BUFFERED_BYTES",
        "the memory for all that is buffered",
        unit="bytes",
        min=MIB,
        max=1024 * GIB,
    )
    min_free_bytes: int = _setting(
        GIB,
        "HARVEST_MIN_FREE_BYTES",
        "less free disk space than this is warned of; 0 never warns",
        unit="bytes",
        min=0,
        max=1024 * 1024 * GIB,
    )


@attrs.frozen
class BookSettings:
    """How deep books go."""

    levels: int = _setting(
        5, "HARVEST_BOOK_LEVELS", "levels a side in the kind orderbook", unit="levels", min=1, max=50
    )
    snapshot_levels: int = _setting(
        1000,
        "HARVEST_SNAPSHOT_LEVELS",
        "levels a side of a snapshot; binance-usdm: 5, 10, 20, 50, 100, 500, 1000; binance-spot: 1 to 5000",
        unit="levels",
        min=1,
        max=5000,
    )
    max_pending_diffs: int = _setting(
        5_000,
        "HARVEST_MAX_PENDING_DIFFS",
        "diffs of a symbol that may wait for its snapshot",
        unit="diffs",
        min=1,
        max=10_000_000,
    )


@attrs.frozen
class RestSettings:
    """How the venue's REST host is asked."""

    url: str | None = _setting(
        None,
        "HARVEST_REST_URL",
        "where REST is, for a local or mirrored venue",
        converter=_without_slash,
        none="the venue's",
    )
    timeout_s: float = _duration(10.0, "HARVEST_REST_TIMEOUT_SEC", "how long an answer may take")
    weight_share: float = _setting(
        0.5, "HARVEST_WEIGHT_SHARE", "the share of the venue's request weight that is used", above=0, max=1
    )
    retry_initial_s: float = _duration(
        1.0, "HARVEST_REST_RETRY_INITIAL_SEC", "the first wait after a failed request"
    )
    retry_max_s: float = _duration(
        60.0, "HARVEST_REST_RETRY_MAX_SEC", "the longest wait after a failed request"
    )


@attrs.frozen
class LogSettings:
    """How the log reads."""

    format: LogFormat = _setting("human", "HARVEST_LOG_FORMAT", "human or json", flag="--log-format")
    level: LogLevel = _setting(
        "info", "HARVEST_LOG_LEVEL", "debug, info, warning or error", flag="--log-level"
    )


@attrs.frozen
class Settings:
    """Every setting, one attribute a concern; pass the concern that a part needs, whole."""

    capture: CaptureSettings = attrs.field(factory=CaptureSettings)
    streams: StreamSettings = attrs.field(factory=StreamSettings)
    health: HealthSettings = attrs.field(factory=HealthSettings)
    rotation: RotationSettings = attrs.field(factory=RotationSettings)
    writer: WriterSettings = attrs.field(factory=WriterSettings)
    book: BookSettings = attrs.field(factory=BookSettings)
    rest: RestSettings = attrs.field(factory=RestSettings)
    log: LogSettings = attrs.field(factory=LogSettings)
