"""Every setting, one attribute a concern; the fields are in the module of each concern."""

from __future__ import annotations

from typing import Literal

import attrs

from harvest.settings.capture import BookSettings, CaptureSettings
from harvest.settings.channels import ChannelSettings
from harvest.settings.fields import setting
from harvest.settings.keeping import CompactionSettings, JournalSettings, RotationSettings, WriterSettings
from harvest.settings.network import HealthSettings, RestSettings, StreamSettings

LogFormat = Literal["human", "json"]
LogLevel = Literal["debug", "info", "warning", "error"]


# ruff: noqa: RUF009 - setting makes an attrs field, not a default that instances would share.
@attrs.frozen
class LogSettings:
    """How the log reads."""

    format: LogFormat = setting("human", "HARVEST_LOG_FORMAT", "human or json", flag="--log-format")
    level: LogLevel = setting(
        "info", "HARVEST_LOG_LEVEL", "debug, info, warning or error", flag="--log-level"
    )


@attrs.frozen
class Settings:
    """Every setting, one attribute a concern; pass the concern that a part needs, whole."""

    capture: CaptureSettings = attrs.field(factory=CaptureSettings)
    channels: ChannelSettings = attrs.field(factory=ChannelSettings)
    streams: StreamSettings = attrs.field(factory=StreamSettings)
    health: HealthSettings = attrs.field(factory=HealthSettings)
    rotation: RotationSettings = attrs.field(factory=RotationSettings)
    writer: WriterSettings = attrs.field(factory=WriterSettings)
    journal: JournalSettings = attrs.field(factory=JournalSettings)
    compaction: CompactionSettings = attrs.field(factory=CompactionSettings)
    book: BookSettings = attrs.field(factory=BookSettings)
    rest: RestSettings = attrs.field(factory=RestSettings)
    log: LogSettings = attrs.field(factory=LogSettings)
