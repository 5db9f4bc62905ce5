"""What must hold between settings, and between a setting and the world. A check looks, and creates nothing."""

from __future__ import annotations

import unicodedata
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import attrs

from harvest.settings.catalog import SETTINGS
from harvest.settings.channel_checks import check_channels
from harvest.settings.directory import find_fault, free_bytes
from harvest.settings.problems import Problem, closest, name_setting, show, show_number, show_with_unit

if TYPE_CHECKING:
    from collections.abc import Sequence

#: What each venue serves; the settings stand below the venues, and cannot ask them.
DEPTH_INTERVALS_MS: Final = {"binance-usdm": (0, 100, 250, 500), "binance-spot": (100, 1000)}
SNAPSHOT_LEVELS: Final = {"binance-usdm": (5, 10, 20, 50, 100, 500, 1000), "binance-spot": range(1, 5001)}
VENUES: Final = tuple(DEPTH_INTERVALS_MS)
MAX_SYMBOL_CHARACTERS: Final = 64

#: The first must be below the second, or else …
_BELOW: Final = (
    ("streams.idle_s", "health.trade_timeout_s", "health would warn before the stream is connected anew"),
    ("streams.idle_s", "health.orderbook_timeout_s", "health would warn before the stream is connected anew"),
    ("health.interval_s", "health.trade_timeout_s", "health would look too seldom to tell in time"),
    ("health.interval_s", "health.orderbook_timeout_s", "health would look too seldom to tell in time"),
    ("rotation.extreme_rotate_s", "rotation.rotate_s", "extreme traffic would not be written sooner"),
    (
        "rotation.extreme_threshold_rows",
        "rotation.max_rows_per_file",
        "buffers would be sealed before extreme traffic can begin",
    ),
)
#: The first must not be above the second, or else …
_NOT_ABOVE: Final = (
    ("streams.backoff_initial_s", "streams.backoff_max_s", "the first wait would be longer than the longest"),
    ("writer.retry_initial_s", "writer.retry_max_s", "the first wait would be longer than the longest"),
    ("rest.retry_initial_s", "rest.retry_max_s", "the first wait would be longer than the longest"),
    ("book.levels", "book.snapshot_levels", "a book would begin with fewer levels than are recorded"),
)


@attrs.define
class Effective:
    """The value that holds for each path and its origin; a path in ``broken`` has none that can be checked."""

    values: dict[str, Any]
    origins: dict[str, str]
    broken: set[str] = attrs.field(factory=set)

    def is_sound(self, *paths: str) -> bool:
        """Tell whether all of ``paths`` have values that can be checked."""
        return self.broken.isdisjoint(paths)

    def explain(self, path: str) -> str:
        """Name a setting with its value and its origin."""
        return f"{path} ({show_with_unit(self.values[path], SETTINGS[path].unit)}, {self.origins[path]})"

    def place(self, *paths: str) -> str:
        """Return where to look first: the first origin that is not a default."""
        origins = [self.origins[path] for path in paths]
        return next((origin for origin in origins if origin != "default"), origins[0])


def check(effective: Effective) -> tuple[list[Problem], list[str]]:
    """Return every problem and every warning."""
    problems = [
        *_check_order(effective),
        *_check_journal(effective),
        *_check_venue(effective),
        *check_channels(effective),
        *_check_symbols(effective),
        *_check_urls(effective),
    ]
    warnings: list[str] = []
    if effective.is_sound("capture.output_dir"):
        _check_directory(effective, problems, warnings)
    return problems, warnings


def _check_order(effective: Effective) -> list[Problem]:
    problems = []
    for word, pairs in (("below", _BELOW), ("above", _NOT_ABOVE)):
        for low, high, why in pairs:
            if not effective.is_sound(low, high):
                continue
            smaller, larger = effective.values[low], effective.values[high]
            if smaller < larger or (word == "above" and smaller == larger):
                continue
            relation = "is not below" if word == "below" else "is above"
            what = f"{effective.explain(low)} {relation} {effective.explain(high)}: {why}"
            remedy = f"Lower {name_setting(SETTINGS[low])} or raise {name_setting(SETTINGS[high])}."
            problems.append(Problem(effective.place(low, high), what, remedy))
    return problems


def _check_journal(effective: Effective) -> list[Problem]:
    """Refuse to let small buffers wait in memory alone."""
    path = "rotation.min_rows_per_file"
    if not (effective.is_sound(path) and effective.values[path]) or effective.values.get("journal.enabled"):
        return []
    what = f"{effective.explain(path)} lets rows wait in memory for up to an hour, and no journal holds them meanwhile"
    return [Problem(effective.place(path), what, "Turn the journal on, or give 0.")]


def _check_venue(effective: Effective) -> list[Problem]:
    if not effective.is_sound("capture.venue"):
        return []
    venue = effective.values["capture.venue"]
    if venue not in VENUES:
        close = closest(venue, VENUES)
        hint = f"Did you mean {close}? " if close else ""
        what = f"capture.venue is {show(venue)}, which harvest does not know"
        return [Problem(effective.place("capture.venue"), what, f"{hint}Venues are {', '.join(VENUES)}.")]
    problems = []
    for path, served in (
        ("capture.depth_interval_ms", DEPTH_INTERVALS_MS[venue]),
        ("book.snapshot_levels", SNAPSHOT_LEVELS[venue]),
    ):
        value = effective.values[path]
        if effective.is_sound(path) and value not in served:
            unit = SETTINGS[path].unit
            words = _show_served(served)
            what = f"{path} is {show_with_unit(value, unit)}, which {venue} does not serve"
            problems.append(Problem(effective.place(path, "capture.venue"), what, f"Give {words}."))
    return problems


def _show_served(served: Sequence[int]) -> str:
    if isinstance(served, range):
        return f"{served.start} to {served.stop - 1}"
    return f"{', '.join(map(str, served[:-1]))} or {served[-1]}"


def find_symbol_fault(symbol: str) -> str | None:
    """Say why no venue can have this symbol, or None. Letters of any script are fine; paths are not."""
    if not symbol:
        return "empty"
    if len(symbol) > MAX_SYMBOL_CHARACTERS:
        return f"longer than {MAX_SYMBOL_CHARACTERS} characters"
    for char in symbol:
        # Other (C: control, format, unassigned) and separators (Z) in any script; the punctuation of ASCII.
        is_strange = unicodedata.category(char)[0] in "CZ"
        if is_strange or (char.isascii() and not char.isalnum() and char not in "_-"):
            return f"not a symbol (it holds {char!r})"
    return None


def _check_symbols(effective: Effective) -> list[Problem]:
    path = "capture.symbols"
    problems = []
    for symbol in effective.values[path] if effective.is_sound(path) else ():
        if fault := find_symbol_fault(symbol.upper()):
            parts = symbol.split("/")
            is_pair = len(parts) == 2 and all(part.isalnum() for part in parts)
            remedy = (
                f"Did you mean {''.join(parts).upper()}?"
                if is_pair
                else "Give the venue's own, such as BTCUSDT."
            )
            what = f"{path} has {show(symbol)}, which is {fault}"
            problems.append(Problem(effective.place(path), what, remedy))
    return problems


def _check_urls(effective: Effective) -> list[Problem]:
    problems = []
    may_be_plain = effective.values["streams.allow_insecure"] or not effective.is_sound(
        "streams.allow_insecure"
    )
    for path, secure, plain in (("streams.ws_url", "wss", "ws"), ("rest.url", "https", "http")):
        url = effective.values[path]
        if url is not None and effective.is_sound(path):
            fault, remedy = _find_url_fault(url, secure, plain, may_be_plain=may_be_plain)
            if fault:
                # A URL is not shown: it may hold what its user would rather not see in a log.
                problems.append(Problem(effective.place(path), f"{path} {fault}", remedy))
    return problems


def _find_url_fault(url: str, secure: str, plain: str, *, may_be_plain: bool) -> tuple[str, str]:
    example = f"Give a URL such as {secure}://host."
    try:
        parts = urlsplit(url)
        host, _port = parts.hostname, parts.port
    except ValueError as error:
        return f"is not a URL ({error})", example
    if any(unicodedata.category(char)[0] in "CZ" for char in url):
        return "holds a space or a control character", example
    if parts.scheme not in (secure, plain) or not host:
        return f"is not a URL that begins with {secure}:// or {plain}://", example
    if parts.username is not None or parts.password is not None:
        return "holds credentials", "Take them out: market data is public."
    if parts.query or parts.fragment:
        return "has a query or a fragment", "Give the host, and a path if need be: harvest adds the rest."
    if parts.scheme == plain and not may_be_plain and not is_loopback(host):
        allow = name_setting(SETTINGS["streams.allow_insecure"])
        return f"is not encrypted ({plain}:// to {host})", f"Use {secure}://, or set {allow} to true."
    return "", ""


def is_loopback(host: str) -> bool:
    """Tell whether a host is this machine, where what is not encrypted stays; no name is resolved for it."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _check_directory(effective: Effective, problems: list[Problem], warnings: list[str]) -> None:
    path = "capture.output_dir"
    directory = effective.values[path]
    if fault := find_fault(directory):
        what = f"{path} is {show(str(directory))}, and {fault}"
        problems.append(Problem(effective.place(path), what, f"Give another {name_setting(SETTINGS[path])}."))
    elif effective.is_sound("writer.min_free_bytes"):
        free = free_bytes(directory)
        if free < effective.values["writer.min_free_bytes"]:
            what = (
                f"{path} is {show(str(directory))}, where {show_number(free // 1024**2)} MiB are free, less than "
                f"{effective.explain('writer.min_free_bytes')}"
            )
            warnings.append(str(Problem(effective.place(path), what, "Make room before the disk is full.")))
