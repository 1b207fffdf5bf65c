"""How a relay goes about its work."""

import random
from dataclasses import dataclass, field
from datetime import timedelta

from participant_sdk.clock import micros_of

_EXPONENT_MAX = 32
"""A long outage must not overflow a float."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RelayPolicy:
    """What a relay's owner may choose. Relays of one outbox may differ."""

    attempts_max: int = 20
    """Failures that count before a row is FAILED; with the backoff below that is after an hour or a little more. At least 1."""
    backoff_min: timedelta = timedelta(milliseconds=200)
    """Before the second try; doubled with each that follows."""
    backoff_max: timedelta = timedelta(minutes=10)
    """Longest pause between two tries of a row."""
    rows_max: int = 100
    """Rows that a relay has at one time, of events and of starts each. From 1 to 256."""
    concurrency: int = 16
    """Calls at one time to the broker, and to the coordinator. Rows of one topic and key are one after the other."""
    publish_time_limit: timedelta = timedelta(seconds=10)
    """Longest that one call may take."""
    lease: timedelta = timedelta(seconds=60)
    """How long a row is left alone that a relay has: so long it waits if that relay dies. At least twice `publish_time_limit`."""
    poll_min: timedelta = timedelta(milliseconds=50)
    """Between two looks while there is work; doubled with each look that finds nothing."""
    poll_max: timedelta = timedelta(seconds=1)
    """Longest pause between two looks, and so the longest that an event of another process waits."""
    retention: timedelta = timedelta(days=3)
    """How long rows are kept that are PUBLISHED, for people who ask what became of them."""
    retention_interval: timedelta = timedelta(minutes=1)
    """Between two rounds that forget them, and that measure the backlog for metrics."""
    chance: random.Random = field(default_factory=random.SystemRandom, repr=False, compare=False)
    """Where jitter comes from."""

    def __post_init__(self) -> None:
        if self.attempts_max < 1 or self.concurrency < 1 or not 1 <= self.rows_max <= 256:
            raise ValueError(
                "attempts_max and concurrency are at least 1, rows_max is from 1 to 256; found "
                f"{self.attempts_max}, {self.concurrency} and {self.rows_max}"
            )
        if self.lease < 2 * self.publish_time_limit:
            raise ValueError(
                f"lease is at least twice publish_time_limit, or rows would be taken over while they are published; found {self.lease} "
                f"and {self.publish_time_limit}"
            )
        if min(self.backoff_min, self.poll_min, self.publish_time_limit, self.retention_interval) <= timedelta():
            raise ValueError("backoff_min, poll_min, publish_time_limit and retention_interval are longer than nothing")

    def backoff_us(self, failures: int) -> int:
        """The pause after so many failures, from 1, in microseconds: drawn from [b/2, b] with b = min(backoff_min * 2^(n-1), backoff_max).

        With the defaults b is 0.2 s, 0.4 s, 0.8 s, … 410 s, 600 s, 600 s.
        """
        longest = min(micros_of(self.backoff_min) * 2 ** min(failures - 1, _EXPONENT_MAX), micros_of(self.backoff_max))
        return round(self.chance.uniform(longest / 2, longest))

    def poll_s(self, looks: int) -> float:
        """The pause after so many looks that found nothing, in seconds, drawn in the same way."""
        longest = min(self.poll_min.total_seconds() * 2.0 ** min(looks, _EXPONENT_MAX), self.poll_max.total_seconds())
        return self.chance.uniform(longest / 2, longest)
