"""What is recorded, and how deep."""

from __future__ import annotations

# ruff: noqa: RUF009 - setting makes an attrs field, not a default that instances would share.
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import attrs

from harvest.settings.fields import duration, setting

if TYPE_CHECKING:
    from collections.abc import Iterable

TradeEvent = Literal["aggTrade", "trade"]


def _upper_unique(symbols: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(symbol.upper() for symbol in symbols))


@attrs.frozen
class CaptureSettings:
    """What is recorded, where to, and for how long."""

    venue: str = setting(
        "binance-usdm", "HARVEST_VENUE", "the venue: binance-usdm or binance-spot", flag="--venue"
    )
    symbols: tuple[str, ...] = setting(
        ("BTCUSDT", "ETHUSDT"),
        "SYMBOLS",
        "the venue's symbols; a list here, with commas between them in the variable and the flag",
        converter=_upper_unique,
        flag="--symbols",
    )
    output_dir: Path = setting(
        Path("data"),
        "OUTPUT_DIR",
        "the data directory; relative to the current directory",
        flag="--output-dir",
    )
    run_hours: float | None = setting(
        None,
        "RUN_HOURS",
        "how long to record",
        unit="h",
        above=0,
        max=1_000_000,
        none="for ever",
        flag="--hours",
    )
    trade_event: TradeEvent = setting(
        "aggTrade",
        "HARVEST_TRADE_EVENT",
        "aggTrade or trade (raw trades; their ids are another id space)",
        flag="--trade-event",
    )
    depth_interval_ms: int = setting(
        100,
        "HARVEST_DEPTH_INTERVAL_MS",
        "between two diffs of a book; binance-usdm: 0, 100, 250, 500; binance-spot: 100, 1000",
        unit="ms",
        min=0,
        max=1000,
        flag="--depth-interval-ms",
    )
    drain_timeout_s: float = duration(
        30.0,
        "HARVEST_DRAIN_TIMEOUT_SEC",
        "at the end of a run: how long the writer may take for what is left",
    )


@attrs.frozen
class BookSettings:
    """How deep books go."""

    levels: int = setting(
        5, "HARVEST_BOOK_LEVELS", "levels a side in the kind orderbook", unit="levels", min=1, max=50
    )
    snapshot_levels: int = setting(
        1000,
        "HARVEST_SNAPSHOT_LEVELS",
        "levels a side of a snapshot; binance-usdm: 5, 10, 20, 50, 100, 500, 1000; binance-spot: 1 to 5000",
        unit="levels",
        min=1,
        max=5000,
    )
    max_pending_diffs: int = setting(
        5_000,
        "HARVEST_MAX_PENDING_DIFFS",
        "diffs of a symbol that may wait for its snapshot",
        unit="diffs",
        min=1,
        max=10_000_000,
    )
    audit_s: float = duration(
        3_600.0,
        "HARVEST_AUDIT_SEC",
        "between two audits of a book against a fresh snapshot; 0 audits none",
        min=0,
    )
