"""Every setting, where it came from, and what is wrong with it."""

from __future__ import annotations

from harvest.settings.capture import BookSettings, CaptureSettings, TradeEvent
from harvest.settings.channels import ChannelSettings
from harvest.settings.keeping import CompactionSettings, JournalSettings, RotationSettings, WriterSettings
from harvest.settings.layers import Loaded, Origin, load
from harvest.settings.model import LogFormat, LogLevel, LogSettings, Settings
from harvest.settings.network import HealthSettings, RestSettings, StreamSettings
from harvest.settings.render import EffectiveValue, describe, render_table, to_json

__all__ = [
    "BookSettings",
    "CaptureSettings",
    "ChannelSettings",
    "CompactionSettings",
    "EffectiveValue",
    "HealthSettings",
    "JournalSettings",
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
