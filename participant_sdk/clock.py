"""Time as the SDK counts it: microseconds since 1970-01-01T00:00Z, read from outside of everything that decides."""

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final, TypeAlias

MICROS_PER_SECOND: Final = 1_000_000

Clock: TypeAlias = Callable[[], int]
"""Tells the instant in microseconds. Injected, so that tests need no sleep."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def wall_clock_us() -> int:
    """The instant now, by the clock of this machine."""
    return time.time_ns() // 1000


def instant_of(micros: int) -> datetime:
    """The same instant as an aware datetime in UTC."""
    return _EPOCH + timedelta(microseconds=micros)


def micros_of(duration: timedelta) -> int:
    """Whole microseconds of a duration."""
    return duration // timedelta(microseconds=1)
