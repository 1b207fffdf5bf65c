"""At most so many calls per second. Decides only: it neither sends nor reads a clock."""

from math import ceil, inf
from typing import Final

from coordinator.core.values import MICROS_PER_SECOND, Instant

BURST_S: Final = 0.1
"""Calls of that much time may go at once: enough to make up for a loop that comes late, too little to hit anybody like a wave."""
PER_SECOND_MIN: Final = 1 / 3_600
"""A participant that asks for less than one call in an hour gets one in an hour."""
PER_SECOND_MAX: Final = 1_000_000.0
"""Nobody calls faster than that, so a higher rate is this one."""


class RateLimit:
    """A token bucket, told by one number: the instant at which it would be full (the generic cell rate algorithm of ATM networks, ITU-T
    I.371). A call costs one interval; it may go while the bucket is not more than `burst - 1` intervals from being full.

    Intervals are whole microseconds, rounded up, so that it never lets more through than it says: 3/s is one call in 333,334 µs.
    """

    def __init__(self, per_second: float) -> None:
        self.per_second = 0.0
        self._interval_us = 0
        self._tolerance_us = 0
        self._full_at = Instant(0)
        self.change(per_second, Instant(0))

    @property
    def burst(self) -> int:
        """Calls that may go at once; 0: no limit."""
        return self._tolerance_us // self._interval_us + 1 if self._interval_us else 0

    def change(self, per_second: float, now: Instant) -> None:
        """Another rate holds from now on; 0, and what is no rate at all: no limit. What was sent before still counts, as far as the new
        rate is concerned by it."""
        # Comparisons with NaN are all false, so it is no limit either.
        self.per_second = min(max(per_second, PER_SECOND_MIN), PER_SECOND_MAX) if 0 < per_second < inf else 0.0
        self._interval_us = ceil(MICROS_PER_SECOND / self.per_second) if self.per_second else 0
        burst = max(1, int(self.per_second * BURST_S))
        self._tolerance_us = (burst - 1) * self._interval_us
        self._full_at = min(self._full_at, Instant(now + burst * self._interval_us))

    def next_at(self, now: Instant) -> Instant:
        """When the next call may go; not after `now` if it may go at once."""
        return max(now, Instant(self._full_at - self._tolerance_us)) if self._interval_us else now

    def take(self, now: Instant) -> None:
        """A call goes, which `next_at` has allowed."""
        self._full_at = Instant(max(self._full_at, now) + self._interval_us)
