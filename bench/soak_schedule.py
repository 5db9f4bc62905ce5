"""What goes wrong in a soak, and when: seeded, every sort of fault at least once where there is time for it.

Times are wall seconds, as the simulator's fault scripts have them.
"""

from __future__ import annotations

import random
from typing import Final

#: Breaks of a connection: (script, seconds until the next one may come, beyond the idle time).
_BREAKS: Final = (
    ("cut trades", 2.0),
    ("cut orderbook hard", 2.0),
    ("cut all with 1008", 2.0),
    ("stall trades", 3.0),
    ("stall orderbook", 3.0),
    ("stall {symbol} trades", 4.0),
    ("stall {symbol} orderbook", 4.0),
    ("forget trades", 3.0),
    ("forget orderbook", 3.0),
    ("forget {symbol} trades", 4.0),
    ("forget {symbol} orderbook", 4.0),
)
#: Breaks that strike whoever is connected, whatever a client does.
_OUTAGES: Final = (
    ("mute route market for 2s", 5.0),
    ("no-pong for 4s", 6.0),
    ("reject connections for 3s", 4.0),
    ("pause for 4s", 6.0),
)
#: What a client with a second connection must survive without a hole though it strikes all of them.
_PLANNED: Final = (("shutdown notice 3s", 6.0),)
_TAMPERINGS: Final = tuple(
    f"{action} {feed}"
    for action in ("gap", "duplicate", "swap", "malformed", "unknown event")
    for feed in ("trades", "orderbook")
)
_PASSING: Final = ("fragment for 2s", "burst x3 for 1s", "pause for 1s")
_REST: Final = ("throttle for 3s", "ban for 3s", "rest down for 5s", "slow rest by 1s for 4s")


def make_schedule(
    *, seed: int, wall_s: float, idle_s: float, connections: int, symbols: tuple[str, ...], settle_s: float
) -> list[str]:
    """Make the fault scripts of a soak of ``wall_s``; the last ``settle_s`` are without faults, so that all can be closed.

    With more than one connection, the breaks strike one of them at a time: that is what the others are for.
    """
    dice = random.Random(seed)
    end_s = wall_s - settle_s
    return sorted(
        _breaks(dice, end_s, idle_s, connections, symbols)
        + _lane(
            dice, end_s, _TAMPERINGS, (1.0, 3.0), " skip {count}" + (" on one" if connections > 1 else "")
        )
        + _lane(dice, end_s, _PASSING, (6.0, 14.0), "")
        + _lane(dice, end_s, _REST, (7.0, 14.0), ""),
        key=lambda script: float(script.partition(" at ")[2].partition("s")[0]),
    )


def _breaks(
    dice: random.Random, end_s: float, idle_s: float, connections: int, symbols: tuple[str, ...]
) -> list[str]:
    on_one = " on one" if connections > 1 else ""
    choices = [(script + "{at}" + on_one, pause_s + idle_s) for script, pause_s in _BREAKS]
    choices += [(script + "{at}", pause_s) for script, pause_s in _PLANNED]
    if connections == 1:
        choices += [(script + "{at}", pause_s) for script, pause_s in _OUTAGES]
    scripts: list[str] = []
    at_s = dice.uniform(1.5, 2.5)
    waiting: list[tuple[str, float]] = []
    while at_s < end_s:
        if not waiting:
            waiting = dice.sample(choices, len(choices))
        script, pause_s = waiting.pop()
        scripts.append(script.format(symbol=dice.choice(symbols), at=f" at {at_s:.1f}s"))
        at_s += pause_s + dice.uniform(0.0, 2.0)
    return scripts


def _lane(
    dice: random.Random, end_s: float, choices: tuple[str, ...], pauses_s: tuple[float, float], more: str
) -> list[str]:
    scripts: list[str] = []
    at_s = dice.uniform(*pauses_s)
    waiting: list[str] = []
    while at_s < end_s:
        if not waiting:
            waiting = dice.sample(choices, len(choices))
        scripts.append(f"{waiting.pop()} at {at_s:.1f}s{more.format(count=dice.randint(1, 4))}")
        at_s += dice.uniform(*pauses_s)
    return scripts
