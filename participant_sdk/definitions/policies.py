"""Times and retry policies of a definition."""

from collections.abc import Iterator, Sequence
from typing import Final

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message

from participant_sdk.definitions.durations import micros_of
from participant_sdk.definitions.problems import Problem
from saga.v1 import saga_pb2

MULTIPLIER_MAX: Final = 100.0
DURATION_US_MIN: Final = 1_000
DURATION_US_MAX: Final = 366 * 24 * 3_600 * 1_000_000
CODES: Final = range(1, 17)

STEP_DURATIONS: Final = ("attempt_timeout", "execute_time_limit", "compensate_time_limit")
STEP_RETRIES: Final = ("execute_retry", "compensate_retry")
HOOK_DURATIONS: Final = ("attempt_timeout", "time_limit")
HOOK_RETRIES: Final = ("execute_retry",)


def find_policy_problems(holder: Message, path: str, *, durations: Sequence[str], retries: Sequence[str]) -> Iterator[Problem]:
    """What is wrong with those fields of a message."""
    for field in durations:
        if holder.HasField(field):
            yield from find_duration_problems(getattr(holder, field), f"{path}.{field}")
    for retry in retries:
        if holder.HasField(retry):
            yield from find_retry_problems(getattr(holder, retry), f"{path}.{retry}")


def find_retry_problems(policy: saga_pb2.RetryPolicy, path: str) -> Iterator[Problem]:
    """What is wrong with a retry policy."""
    if policy.HasField("initial_backoff"):
        yield from find_duration_problems(policy.initial_backoff, f"{path}.initial_backoff")
    if policy.HasField("max_backoff"):
        yield from find_duration_problems(policy.max_backoff, f"{path}.max_backoff")
    if policy.multiplier and not 1.0 <= policy.multiplier <= MULTIPLIER_MAX:  # also refuses NaN
        yield Problem(f"{path}.multiplier", f"expected 1 to {MULTIPLIER_MAX:g}, found {policy.multiplier:g}")
    if len(policy.non_retryable_codes) > len(CODES):
        yield Problem(f"{path}.non_retryable_codes", f"expected at most {len(CODES)} codes, found {len(policy.non_retryable_codes)}")
        return
    for index, code in enumerate(policy.non_retryable_codes):
        if code not in CODES:
            yield Problem(f"{path}.non_retryable_codes[{index}]", f"expected a gRPC status code from 1 to 16, found {code}")


def find_duration_problems(duration: Duration, path: str) -> Iterator[Problem]:
    """What is wrong with a duration: it must lie between a millisecond and a leap year."""
    try:
        found_us = micros_of(duration)
    except ValueError as error:
        yield Problem(path, str(error))
        return
    if not DURATION_US_MIN <= found_us <= DURATION_US_MAX:
        yield Problem(path, f"expected 1 ms to 366 days, found {found_us / 1_000_000:g} s")
