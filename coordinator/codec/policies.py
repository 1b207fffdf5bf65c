"""How a step is repeated, in both forms. Used where a person changes that for one saga; definitions are compiled elsewhere."""

import math

from coordinator.codec.values import fill_duration
from coordinator.core.inputs import PolicyChange
from coordinator.core.plan import RetryPolicy
from participant_sdk.definitions.durations import micros_of
from saga.v1 import saga_pb2

_PLAIN = RetryPolicy()


def fill_policy(message: saga_pb2.StepPolicy, change: PolicyChange) -> None:
    """Writes what has changed into a message that belongs to another one already. Raises ValueError for what `policy_change_of` refuses."""
    message.SetInParent()
    if change.execute_retry is not None:
        _fill_retry(message.execute_retry, change.execute_retry)
    if change.compensate_retry is not None:
        _fill_retry(message.compensate_retry, change.compensate_retry)
    if change.attempt_timeout_us is not None:
        fill_duration(message.attempt_timeout, _not_negative(change.attempt_timeout_us))
    if change.execute_time_limit_us is not None:
        fill_duration(message.execute_time_limit, _not_negative(change.execute_time_limit_us))
    if change.recovery_time_limit_us is not None:
        fill_duration(message.compensate_time_limit, _not_negative(change.recovery_time_limit_us))


def policy_change_of(message: saga_pb2.StepPolicy) -> PolicyChange:
    """What has changed. Raises ValueError for durations that are negative or out of range, and multipliers below 1."""
    return PolicyChange(
        execute_retry=retry_policy_of(message.execute_retry) if message.HasField("execute_retry") else None,
        compensate_retry=retry_policy_of(message.compensate_retry) if message.HasField("compensate_retry") else None,
        attempt_timeout_us=_not_negative(micros_of(message.attempt_timeout)) if message.HasField("attempt_timeout") else None,
        execute_time_limit_us=_not_negative(micros_of(message.execute_time_limit)) if message.HasField("execute_time_limit") else None,
        recovery_time_limit_us=_not_negative(micros_of(message.compensate_time_limit))
        if message.HasField("compensate_time_limit")
        else None,
    )


def retry_policy_of(message: saga_pb2.RetryPolicy) -> RetryPolicy:
    """The policy, with the default for every field that is not set. Raises ValueError like `policy_change_of`."""
    return RetryPolicy(
        attempts_max=message.max_attempts,
        initial_backoff_us=_not_negative(micros_of(message.initial_backoff))
        if message.HasField("initial_backoff")
        else _PLAIN.initial_backoff_us,
        multiplier=_growing(message.multiplier or _PLAIN.multiplier),
        backoff_max_us=_not_negative(micros_of(message.max_backoff)) if message.HasField("max_backoff") else _PLAIN.backoff_max_us,
        non_retryable_codes=frozenset(message.non_retryable_codes),
    )


def _fill_retry(message: saga_pb2.RetryPolicy, policy: RetryPolicy) -> None:
    """Every field is written, so that the policy stays what it is when a default changes."""
    message.max_attempts = policy.attempts_max
    fill_duration(message.initial_backoff, _not_negative(policy.initial_backoff_us))
    message.multiplier = _growing(policy.multiplier)
    fill_duration(message.max_backoff, _not_negative(policy.backoff_max_us))
    message.non_retryable_codes.extend(sorted(policy.non_retryable_codes))


def _growing(multiplier: float) -> float:
    if not math.isfinite(multiplier) or multiplier < 1:
        raise ValueError(f"the wait grows by 1 or more from attempt to attempt, found {multiplier}")
    return multiplier


def _not_negative(micros: int) -> int:
    if micros < 0:
        raise ValueError(f"a duration that is not negative is expected, found {micros} µs")
    return micros
