"""Every setting, where it came from, and what is wrong with it."""

from __future__ import annotations

from harvest.settings.layers import Loaded, Origin, load
from harvest.settings.model import (
    BookSettings,
    CaptureSettings,
    HealthSettings,
    LogFormat,
    LogLevel,
    LogSettings,
    RestSettings,
    RotationSettings,
    Settings,
    StreamSettings,
    TradeEvent,
    WriterSettings,
)
from harvest.settings.render import EffectiveValue, describe, render_table, to_json

__all__ = [
    "BookSettings",
    "CaptureSettings",
    "EffectiveValue",
    "HealthSettings",
    "Loaded",
    "LogFormat",
    "LogLevel",
    "LogSettings",
    "Origin",
    "RestSettings",
    "RotationSettings",
    "Settings",
    "StreamSettings",
    "TradeEvent",
    "WriterSettings",
    "describe",
    "load",
    "render_table",
    "to_json",
]
