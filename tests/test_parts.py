"""What the parts of a run agree on."""

from __future__ import annotations

import pytest

from harvest.nurseries.stream import LINGER_S
from harvest.parts import gap_patience_s


@pytest.mark.parametrize("interval_ms", [0, 100, 250])
def test_a_gap_waits_for_as_long_as_a_retiring_connection_lingers(interval_ms):
    assert gap_patience_s(interval_ms) >= LINGER_S


def test_slow_books_have_twice_their_interval():
    assert gap_patience_s(1000) == pytest.approx(2.0)
