"""What a run takes over from settings that are loaded anew: its symbols, and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from harvest.settings.catalog import SETTINGS
from harvest.settings.problems import show

if TYPE_CHECKING:
    from harvest.settings.layers import Loaded
    from harvest.settings.model import Settings

_SYMBOLS = "capture.symbols"


@attrs.frozen
class Reloaded:
    """Settings loaded anew, held against those that a run began with.

    ``symbols`` is None where they are given by ``fixed_by``, a flag or a variable, which nobody can change from outside.
    ``warnings`` name what else has changed, and is not applied.
    """

    symbols: tuple[str, ...] | None
    fixed_by: str | None
    warnings: list[str]


def compare(running: Settings, loaded: Loaded) -> Reloaded:
    """Tell what of ``loaded`` a run with the settings ``running`` takes over."""
    warnings = []
    for path in SETTINGS:
        now, wanted = _value(running, path), _value(loaded.settings, path)
        if path != _SYMBOLS and now != wanted:
            warnings.append(
                f"{path} = {show(wanted)} ({loaded.origins[path]}) is not applied: only symbols change in a run, "
                f"and it goes on with {show(now)} until it is started anew"
            )
    origin = loaded.origins[_SYMBOLS]
    if origin.startswith(("--", "$")):
        return Reloaded(None, origin, warnings)
    return Reloaded(loaded.settings.capture.symbols, None, warnings)


def _value(settings: Settings, path: str) -> Any:
    section, _, key = path.partition(".")
    return getattr(getattr(settings, section), key)
