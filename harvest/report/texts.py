"""Numbers, times and sizes as people read them. Times are UTC."""

from __future__ import annotations

from datetime import UTC, datetime

from harvest.storage.layout import date_text

__all__ = ["count", "counted", "date_text", "duration", "percent", "short", "size", "time"]


def count(number: int) -> str:
    """Write a whole number."""
    return f"{number:,}"


def counted(number: int, noun: str) -> str:
    """Write how many there are of something."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def short(value: float) -> str:
    """Write a number with about three digits: 1.23M, 45,678, 45.6, 0.00789."""
    for limit, letter in ((1e9, "G"), (1e6, "M")):
        if abs(value) >= limit:
            return f"{value / limit:.3g}{letter}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def percent(value: float | None) -> str:
    """Write a percentage; what is not all never looks like it."""
    if value is None:
        return "–"
    return "100 %" if value == 100.0 else f"{min(value, 99.9999):.4f}".rstrip("0").rstrip(".") + " %"


def size(size_bytes: int) -> str:
    """Write a number of bytes."""
    for unit, limit in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if size_bytes >= limit:
            return f"{size_bytes / limit:,.1f} {unit}"
    return f"{size_bytes} B"


def duration(length_ns: int) -> str:
    """Write how long something was."""
    seconds = length_ns / 1e9
    if seconds < 1:
        return f"{seconds * 1000:.3g} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    days, rest = divmod(round(seconds), 86_400)
    hours, rest = divmod(rest, 3_600)
    minutes, left = divmod(rest, 60)
    parts = ((days, "d"), (hours, "h"), (minutes, "min"), (left, "s"))
    return " ".join([f"{number} {unit}" for number, unit in parts if number][:2])


def time(at_ns: int | None, *, exact: bool = True) -> str:
    """Write an instant, to the millisecond if ``exact``, or else to the second."""
    if at_ns is None:
        return "unknown"
    seconds, rest_ns = divmod(at_ns, 10**9)
    try:
        text = f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S}"
    except (ValueError, OverflowError, OSError):
        return f"{at_ns} ns"
    return f"{text}.{rest_ns // 10**6:03}" if exact else text
