"""How long a client keeps trying, by a clock of our own."""

from datetime import timedelta

import pytest

from participant_sdk.client.retries import BACKOFF_MAX_S, BACKOFF_MIN_S, Retries


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


async def test_outage_as_long_as_allowed_ends_the_trying(clock: Clock) -> None:
    retries = Retries(outage=timedelta(seconds=30), timeout=None, now=clock)
    assert await retries.wait_before_next()
    clock.now_s += 29
    retries.begin_attempt(10)
    clock.now_s += 1
    assert not await retries.wait_before_next()


async def test_silence_before_the_first_failure_is_no_outage(clock: Clock) -> None:
    retries = Retries(outage=timedelta(seconds=30), timeout=None, now=clock)
    retries.begin_stream()
    clock.now_s += 24
    retries.begin_attempt(10)
    clock.now_s += 24
    assert await retries.wait_before_next()


async def test_streams_that_break_after_a_long_silence_are_no_outage(clock: Clock) -> None:
    retries = Retries(outage=timedelta(seconds=30), timeout=None, now=clock)
    for _ in range(10):
        assert retries.begin_stream() is None
        clock.now_s += 60
        assert await retries.wait_before_next()


async def test_progress_ends_the_outage(clock: Clock) -> None:
    retries = Retries(outage=timedelta(seconds=30), timeout=None, now=clock)
    assert await retries.wait_before_next()
    clock.now_s += 29.99
    retries.note_progress()
    retries.begin_attempt(10)
    assert await retries.wait_before_next()


async def test_timeout_bounds_attempts_and_waits_whatever_progresses(clock: Clock) -> None:
    retries = Retries(outage=timedelta(seconds=30), timeout=timedelta(seconds=5), now=clock)
    assert retries.begin_attempt(10) == 5
    assert retries.begin_attempt(2) == 2
    assert retries.begin_stream() == 5
    clock.now_s += 6
    retries.note_progress()
    assert retries.time_left_s() == 0.0
    assert retries.begin_attempt(10) == 0.0
    assert not await retries.wait_before_next()


async def test_pause_that_the_coordinator_asks_for_counts_against_the_time(clock: Clock) -> None:
    retries = Retries(outage=timedelta(seconds=3), timeout=None, now=clock)
    assert not await retries.wait_before_next(at_least_s=3)


def test_backoff_grows_to_its_maximum_with_jitter(clock: Clock) -> None:
    retries = Retries(outage=timedelta(days=1), timeout=None, now=clock)
    for failures in range(1, 2000, 7):
        retries._failures = failures
        longest_s = min(BACKOFF_MIN_S * 2 ** min(failures - 1, 30), BACKOFF_MAX_S)
        assert longest_s / 2 <= retries._backoff_s() <= longest_s
