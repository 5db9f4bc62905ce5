"""What must hold for the channels that are recorded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from harvest.market import CHANNELS
from harvest.settings.catalog import SETTINGS
from harvest.settings.problems import Problem, name_setting, show_with_unit

if TYPE_CHECKING:
    from harvest.market import Channel
    from harvest.settings.checks import Effective

#: What each venue serves; the settings stand below the venues, and cannot ask them.
SERVED: Final[dict[str, tuple[Channel, ...]]] = {
    "binance-usdm": CHANNELS,
    "binance-spot": ("bbo", "partial_depth"),
}
PARTIAL_LEVELS: Final = (5, 10, 20)
PARTIAL_INTERVALS_MS: Final = {"binance-usdm": (100, 250, 500), "binance-spot": (100, 1000)}

_TIMEOUT: Final = "health.channel_timeout_s"
#: Each must be below the timeout, or else …
_BELOW: Final = (
    ("streams.idle_s", "health would warn before the stream is connected anew"),
    ("health.interval_s", "health would look too seldom to tell in time"),
    ("channels.open_interest_s", "health would warn between two questions"),
)


def check_channels(effective: Effective) -> list[Problem]:
    """Return every problem of the channels; what is not recorded has none."""
    path = "channels.record"
    if not effective.is_sound(path, "capture.venue") or not effective.values[path]:
        return []
    recorded, venue = effective.values[path], effective.values["capture.venue"]
    problems = []
    if (served := SERVED.get(venue)) and (lacking := [one for one in recorded if one not in served]):
        what = f"{path} has {', '.join(lacking)}, which {venue} does not have"
        remedy = f"Give {' or '.join((', '.join(served[:-1]), served[-1]))}."
        problems.append(Problem(effective.place(path, "capture.venue"), what, remedy))
    if "partial_depth" in recorded and venue in SERVED:
        problems += _check_partial(effective, venue)
    for low, why in _BELOW:
        if low == "channels.open_interest_s" and "open_interest" not in recorded:
            continue
        if effective.is_sound(low, _TIMEOUT) and effective.values[low] >= effective.values[_TIMEOUT]:
            what = f"{effective.explain(low)} is not below {effective.explain(_TIMEOUT)}: {why}"
            remedy = f"Lower {name_setting(SETTINGS[low])} or raise {name_setting(SETTINGS[_TIMEOUT])}."
            problems.append(Problem(effective.place(low, _TIMEOUT), what, remedy))
    return problems


def _check_partial(effective: Effective, venue: str) -> list[Problem]:
    problems = []
    for path, served in (
        ("channels.partial_levels", PARTIAL_LEVELS),
        ("channels.partial_interval_ms", PARTIAL_INTERVALS_MS[venue]),
    ):
        value = effective.values[path]
        if effective.is_sound(path) and value not in served:
            what = f"{path} is {show_with_unit(value, SETTINGS[path].unit)}, which {venue} does not serve"
            words = f"{', '.join(map(str, served[:-1]))} or {served[-1]}"
            problems.append(Problem(effective.place(path, "capture.venue"), what, f"Give {words}."))
    return problems
