"""How steps are repeated and what they are to their saga: the values that a saga definition is built from."""

from dataclasses import dataclass
from datetime import timedelta
from enum import IntEnum
from typing import Final

import grpc
from google.protobuf.duration_pb2 import Duration

from participant_sdk.definitions.policies import DURATION_US_MAX, DURATION_US_MIN, MULTIPLIER_MAX
from saga.v1 import saga_pb2

DURATION_MIN: Final = timedelta(microseconds=DURATION_US_MIN)
"""Shortest backoff, timeout or time limit: what the coordinator accepts."""
DURATION_MAX: Final = timedelta(microseconds=DURATION_US_MAX)
"""Longest backoff, timeout or time limit. Longer ones are a mistake in the unit."""


class StepKind(IntEnum):
    """What a step is to its saga: decides whether it is undone when the saga turns back, and whether the saga can turn back at all (R9).
    Values are those of the wire."""

    COMPENSATABLE = saga_pb2.STEP_KIND_COMPENSATABLE
    """Can be undone; its action must have a compensation."""
    READ_ONLY = saga_pb2.STEP_KIND_READ_ONLY
    """Changes nothing; there is nothing to undo. May stand anywhere."""
    PIVOT = saga_pb2.STEP_KIND_PIVOT
    """The point of no return, at most one in a saga: cannot be undone; once it succeeded, the saga only goes forward."""
    RETRIABLE = saga_pb2.STEP_KIND_RETRIABLE
    """Must succeed in the end: repeated until it does. If it is rejected, or runs out of attempts, a person is asked."""
    BEST_EFFORT = saga_pb2.STEP_KIND_BEST_EFFORT
    """Nice to have: if it does not succeed, the saga goes on without it. May stand anywhere."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How often and how fast an attempt is repeated. It never decides what is known about the effect (R7).

    The wait before attempt n + 1 is drawn from [b/2, b] with b = min(initial_backoff * multiplier^(n-1), max_backoff). The
    defaults give b = 0.2 s, 0.4 s, 0.8 s, 1.6 s … 30 s, 30 s.

    Raises ValueError if a field is out of its range.
    """

    max_attempts: int = 0
    """Attempts at most, the first included. 0, the default: no limit but the step's time limit."""

    initial_backoff: timedelta = timedelta(milliseconds=200)
    """Longest wait before the second attempt; above zero. Raise it for participants that recover slowly."""

    multiplier: float = 2.0
    """Growth of the wait from attempt to attempt, 1 to 100."""

    max_backoff: timedelta = timedelta(seconds=30)
    """Longest wait between two attempts; not below `initial_backoff`."""

    non_retryable_codes: frozenset[grpc.StatusCode] = frozenset()
    """Statuses after which the attempt is not repeated. Whether its effect is known is decided elsewhere."""

    def __post_init__(self) -> None:
        if not 0 <= self.max_attempts <= 2**31 - 1:
            raise ValueError(f"max_attempts must be from 0, which means no limit, to 2^31 - 1, found {self.max_attempts}")
        if not 1 <= self.multiplier <= MULTIPLIER_MAX:
            raise ValueError(f"multiplier must be from 1 to {MULTIPLIER_MAX:g}, found {self.multiplier}")
        if not DURATION_MIN <= self.initial_backoff <= self.max_backoff <= DURATION_MAX:
            raise ValueError(
                f"backoffs must be 1 ms <= initial_backoff <= max_backoff <= {DURATION_MAX.days} days, "
                f"found {self.initial_backoff} and {self.max_backoff}"
            )

    def to_message(self) -> saga_pb2.RetryPolicy:
        """The same on the wire."""
        return saga_pb2.RetryPolicy(
            max_attempts=self.max_attempts,
            initial_backoff=to_duration(self.initial_backoff),
            multiplier=self.multiplier,
            max_backoff=to_duration(self.max_backoff),
            non_retryable_codes=sorted(code.value[0] for code in self.non_retryable_codes),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class StepDefaults:
    """What holds for every step of a saga that does not say otherwise. None everywhere: the coordinator's default.

    Raises ValueError if a duration is shorter than DURATION_MIN or longer than DURATION_MAX.
    """

    execute_retry: RetryPolicy | None = None
    """How execute is repeated."""

    compensate_retry: RetryPolicy | None = None
    """How compensate is repeated."""

    attempt_timeout: timedelta | None = None
    """Time for one attempt in either direction. The coordinator's default is 10 s; raise it for slow actions, because an
    attempt that is cut off leaves its outcome unknown."""

    execute_time_limit: timedelta | None = None
    """Time for all attempts to execute together, while the saga can still turn back; then it does. The coordinator's default is
    5 min."""

    compensate_time_limit: timedelta | None = None
    """Time for all attempts of recovery together, from the first failed one, until a person is asked: to compensate, or, where there is
    no way back, to execute. The coordinator's default is 24 h."""

    def __post_init__(self) -> None:
        for name in ("attempt_timeout", "execute_time_limit", "compensate_time_limit"):
            check_duration(name, getattr(self, name))

    def to_message(self) -> saga_pb2.StepDefaults:
        """The same on the wire."""
        return saga_pb2.StepDefaults(
            execute_retry=to_retry_message(self.execute_retry),
            compensate_retry=to_retry_message(self.compensate_retry),
            attempt_timeout=to_duration(self.attempt_timeout),
            execute_time_limit=to_duration(self.execute_time_limit),
            compensate_time_limit=to_duration(self.compensate_time_limit),
        )


def check_duration(name: str, value: timedelta | None) -> None:
    """Raises ValueError unless `value` is None, or from DURATION_MIN to DURATION_MAX."""
    if value is not None and not DURATION_MIN <= value <= DURATION_MAX:
        raise ValueError(f"{name} must be at least 1 ms and at most {DURATION_MAX.days} days, found {value}")


def to_retry_message(policy: RetryPolicy | None) -> saga_pb2.RetryPolicy | None:
    """The same on the wire; None stays None, which leaves a field unset."""
    return policy.to_message() if policy is not None else None


def to_duration(value: timedelta | None) -> Duration | None:
    """The same on the wire; None stays None, which leaves a field unset."""
    if value is None:
        return None
    duration = Duration()
    duration.FromTimedelta(value)
    return duration
