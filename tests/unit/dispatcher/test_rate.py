"""The rate limit: how many go at once, when the next one goes, and that it is never more than was said."""

from math import inf, nan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.core.values import Instant
from coordinator.dispatcher.rate import PER_SECOND_MAX, PER_SECOND_MIN, RateLimit
from tests.builders import at, seconds

NOW = at(1_000)


def taken(rate: RateLimit, now: Instant, most: int = 10_000) -> int:
    """How many go at that instant."""
    count = 0
    while count < most and rate.next_at(now) <= now:
        rate.take(now)
        count += 1
    return count


@pytest.mark.parametrize(
    ("per_second", "burst", "interval_us"),
    [(0.5, 1, 2_000_000), (1, 1, 1_000_000), (3, 1, 333_334), (10, 1, 100_000), (50, 5, 20_000), (1_000, 100, 1_000), (10_000, 1_000, 100)],
)
def test_a_tenth_of_a_second_goes_at_once_then_one_per_interval(per_second: float, burst: int, interval_us: int) -> None:
    rate = RateLimit(per_second)
    assert (rate.burst, taken(rate, NOW)) == (burst, burst)
    assert rate.next_at(NOW) == NOW + interval_us
    assert taken(rate, Instant(NOW + interval_us - 1)) == 0
    assert taken(rate, Instant(NOW + interval_us)) == 1


def test_idle_time_is_saved_up_to_the_burst() -> None:
    rate = RateLimit(50)
    taken(rate, NOW)
    assert taken(rate, Instant(NOW + seconds(0.04))) == 2
    assert taken(rate, at(2_000)) == 5


@pytest.mark.parametrize("per_second", [0, -1, nan, inf, -inf])
def test_what_is_no_rate_is_no_limit(per_second: float) -> None:
    rate = RateLimit(per_second)
    assert (rate.per_second, rate.burst, taken(rate, NOW)) == (0, 0, 10_000)


@pytest.mark.parametrize(("per_second", "expected"), [(5e-324, PER_SECOND_MIN), (1e308, PER_SECOND_MAX)])
def test_rates_that_nobody_means_are_bounded(per_second: float, expected: float) -> None:
    rate = RateLimit(per_second)
    assert rate.per_second == expected
    rate.take(NOW)
    assert rate.next_at(NOW) <= NOW + seconds(3_601)


def test_higher_rate_holds_at_once() -> None:
    rate = RateLimit(0.01)
    taken(rate, NOW)
    rate.change(10, NOW)
    assert rate.next_at(NOW) == NOW + 100_000


def test_lower_rate_holds_at_once_and_gives_nothing_for_free() -> None:
    rate = RateLimit(1_000)
    taken(rate, NOW)
    rate.change(10, NOW)
    assert taken(rate, Instant(NOW + 99_999)) == 0


def test_limit_can_be_lifted_and_set_again() -> None:
    rate = RateLimit(1)
    taken(rate, NOW)
    rate.change(0, NOW)
    assert taken(rate, NOW) == 10_000
    rate.change(1, NOW)
    assert taken(rate, NOW) <= 1


@given(
    st.floats(0.01, 50_000),
    st.lists(st.tuples(st.integers(0, 3_000_000), st.integers(1, 50)), min_size=1, max_size=60),
)
def test_never_more_than_the_rate_and_the_burst_in_any_window(per_second: float, tries: list[tuple[int, int]]) -> None:
    rate = RateLimit(per_second)
    now, sent = NOW, []
    for wait_us, wanted in tries:
        now = Instant(now + wait_us)
        sent += [now] * taken(rate, now, wanted)
    for first, begin in enumerate(sent):
        for last in range(first, len(sent)):
            window_s = (sent[last] - begin) / 1_000_000
            assert last - first + 1 <= per_second * window_s * (1 + 1e-9) + rate.burst


@given(st.floats(0.01, 50_000), st.lists(st.integers(0, 3_000_000), max_size=30))
def test_who_waits_as_long_as_told_goes(per_second: float, waits: list[int]) -> None:
    rate, now = RateLimit(per_second), NOW
    for wait_us in waits:
        now = Instant(now + wait_us)
        taken(rate, now, 3)
        now = rate.next_at(now)
        assert taken(rate, now, 1) == 1
