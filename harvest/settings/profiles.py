"""The profiles that ship: named sets of values, above the settings file and below the environment."""

from __future__ import annotations

from typing import Any, Final

PROFILES: Final[dict[str, dict[str, Any]]] = {
    "conservative": {
        "streams.idle_s": 120.0,
        "health.trade_timeout_s": 150.0,
        "health.orderbook_timeout_s": 180.0,
        "health.channel_timeout_s": 180.0,
        "health.interval_s": 25.0,
        "writer.save_concurrency": 2,
        "rotation.extreme_threshold_rows": 30_000,
    },
    "aggressive": {
        "streams.idle_s": 60.0,
        "health.trade_timeout_s": 90.0,
        "health.orderbook_timeout_s": 120.0,
        "health.channel_timeout_s": 120.0,
        "health.interval_s": 15.0,
        "writer.save_concurrency": 4,
        "rotation.extreme_threshold_rows": 20_000,
    },
    "testing": {
        "streams.idle_s": 10.0,
        "health.trade_timeout_s": 15.0,
        "health.orderbook_timeout_s": 20.0,
        "health.channel_timeout_s": 20.0,
        "health.interval_s": 5.0,
        "channels.open_interest_s": 5.0,
        "writer.save_concurrency": 3,
        "rotation.extreme_threshold_rows": 1_000,
        "capture.run_hours": 0.1,
    },
}
