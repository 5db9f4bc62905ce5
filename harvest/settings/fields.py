"""What a setting is: a field with its default, its unit, its variable and its bounds.

A field's ``metadata`` holds ``env`` (its environment variable), ``unit``, ``help``, and where they apply
``flag``, ``min`` and ``max`` (inclusive), ``above`` (exclusive) and ``none`` (what None means, in words).
The variables without the prefix ``HARVEST_`` are those of the recorder that harvest replaces.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import attrs

if TYPE_CHECKING:
    from collections.abc import Callable

KIB: Final = 1024
MIB: Final = 1024 * KIB
GIB: Final = 1024 * MIB
#: No duration is longer: beyond it somebody wrote milliseconds.
WEEK_S: Final = 604_800


def setting(
    default: object, env: str, help: str, *, converter: Callable[[Any], Any] | None = None, **facts: object
) -> Any:
    """Make a field of a settings class; its converter is applied to whatever was given."""
    metadata = {"env": env, "help": help, "unit": "", **facts}
    return attrs.field(default=default, converter=converter, metadata=metadata)


def duration(default: float, env: str, help: str, **facts: object) -> Any:
    """Make a field for a duration in seconds, above 0 unless ``min`` says otherwise."""
    above: dict[str, object] = {} if "min" in facts else {"above": 0}
    return setting(default, env, help, converter=None, unit="s", max=WEEK_S, **above, **facts)
