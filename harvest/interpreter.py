"""The interpreter, made ready for a loop that is not to stand still."""

from __future__ import annotations

import gc
import sys

#: After so long a thread that writes must let the loop run, where five times as much is usual: that is what the loop stands
#: still at most, as far as it is up to us.
SWITCH_S = 0.001


def settle() -> None:
    """Call it when all is loaded, and before the loop is at load.

    What is there by then stays to the end: the collector, which would look at all of it again and again, in the middle of
    the market, leaves it alone from here on.
    """
    sys.setswitchinterval(SWITCH_S)
    gc.collect()
    gc.freeze()
