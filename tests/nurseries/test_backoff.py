from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from harvest.nurseries.backoff import Backoff


def waits(count: int, seed: int = 1, **bounds: float) -> list[float]:
    backoff = Backoff(**{"initial_s": 1, "max_s": 60, "reset_s": 300} | bounds, seed=seed)
    return [backoff.next_wait_s(0) for _ in range(count)]


def test_the_first_retry_is_short_and_later_ones_double_up_to_the_bound():
    first, *rest = waits(12)
    assert 0 <= first <= 0.25
    for wait, ceiling in zip(rest, [1, 2, 4, 8, 16, 32, 60, 60, 60, 60, 60], strict=True):
        assert ceiling / 2 <= wait <= ceiling


def test_a_stable_time_forgets_the_failures_and_a_shorter_one_does_not():
    backoff = Backoff(initial_s=1, max_s=60, reset_s=300, seed=1)
    for _ in range(6):
        backoff.next_wait_s(0)
    assert backoff.next_wait_s(299.9) > 1
    assert backoff.next_wait_s(300) <= 0.25
    assert backoff.failures == 1


def test_two_streams_that_fail_together_do_not_come_back_together():
    assert waits(5, seed=1) != waits(5, seed=2)


@given(st.integers(0, 2**31), st.integers(1, 5000))
def test_every_wait_is_bounded_however_long_it_fails(seed, failures):
    backoff = Backoff(initial_s=1, max_s=60, reset_s=300, seed=seed)
    backoff.failures = failures
    assert 0 <= backoff.next_wait_s(0) <= 60
