"""Durations of a definition, read."""

from typing import Final

from google.protobuf.duration_pb2 import Duration

DURATION_SECONDS_MAX: Final = 315_576_000_000
"""About 10,000 years either way: what google.protobuf.Duration allows."""
NANOS_MAX: Final = 999_999_999
_NANOS_PER_MICRO: Final = 1_000
_MICROS_PER_SECOND: Final = 1_000_000


def micros_of(message: Duration) -> int:
    """A duration in microseconds, cut towards zero. Raises ValueError beyond 10,000 years, or if seconds and nanos contradict."""
    seconds, nanos = message.seconds, message.nanos
    if abs(seconds) > DURATION_SECONDS_MAX or abs(nanos) > NANOS_MAX:
        raise ValueError(f"a duration of {seconds} s and {nanos} ns is out of range")
    if seconds * nanos < 0:
        raise ValueError(f"seconds and nanos of a duration must have the same sign, found {seconds} s and {nanos} ns")
    magnitude = abs(seconds) * _MICROS_PER_SECOND + abs(nanos) // _NANOS_PER_MICRO
    return -magnitude if seconds < 0 or nanos < 0 else magnitude
