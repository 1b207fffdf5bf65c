"""What both directions share: whether a reply still matters, what a failed attempt is, and when the next one is due (R7)."""

from typing import NamedTuple

from coordinator.core.inputs import (
    Accepted,
    Compensated,
    KeyExpired,
    Misconfigured,
    Mismatched,
    NotSent,
    Outcome,
    Rejected,
    RetryLater,
    Succeeded,
    Unknown,
)
from coordinator.core.plan import CONFIGURATION_FAULTS_MAX, RetryPolicy
from coordinator.core.retry import backoff_us, jittered_us
from coordinator.core.state import CallState, SagaState
from coordinator.core.values import AttemptKey, AttemptOutcome, Code, Direction, Failure, Instant


class FailedAttempt(NamedTuple):
    """An attempt that did not settle its step."""

    outcome: AttemptOutcome
    failure: Failure
    delay_us: int = 0
    """How long the participant asked to be left alone."""

    @property
    def is_counted(self) -> bool:
        """Whether it is an attempt of the retry policy (R7)."""
        return self.outcome not in (AttemptOutcome.RETRY_LATER, AttemptOutcome.NOT_SENT)


def is_owed(call: CallState, attempt: AttemptKey) -> bool:
    """Whether this is the one attempt whose end is still open: anything else is late or a duplicate."""
    return attempt.round == call.round and attempt.number == call.number + 1


def failed_attempt(outcome: Outcome) -> FailedAttempt:
    """Reads an outcome as a failed attempt. What makes no sense as an answer tells nothing: it is UNKNOWN (R6)."""
    match outcome:
        case Unknown(failure=failure):
            return FailedAttempt(AttemptOutcome.UNKNOWN, failure)
        case RetryLater(failure=failure, delay_us=delay_us):
            return FailedAttempt(AttemptOutcome.RETRY_LATER, failure, delay_us)
        case NotSent(failure=failure) | Mismatched(failure=failure):
            return FailedAttempt(AttemptOutcome.NOT_SENT, failure)
        case Misconfigured(failure=failure):
            return FailedAttempt(AttemptOutcome.MISCONFIGURED, failure)
        case Rejected(failure=failure) | KeyExpired(failure=failure):
            return FailedAttempt(AttemptOutcome.REFUSED, failure)
        case Succeeded() | Compensated() | Accepted():
            answered = type(outcome).__name__
            return FailedAttempt(
                AttemptOutcome.UNKNOWN,
                Failure(Code.UNKNOWN, f"the participant answered {answered} to the other kind of call"),
            )


def next_attempt_at(
    state: SagaState,
    call: CallState,
    attempt: AttemptKey,
    failed: FailedAttempt,
    *,
    policy: RetryPolicy,
    now: Instant,
    limit_at: Instant | None,
) -> Instant | None:
    """When the attempt after a failed one is due; None: there is none, by number, code or time."""
    if failed.is_counted:
        if policy.attempts_max and call.failures + 1 >= policy.attempts_max:
            return None
        if failed.failure.code in policy.non_retryable_codes:
            return None
        is_fault = failed.outcome is AttemptOutcome.MISCONFIGURED and attempt.direction is Direction.EXECUTE
        if is_fault and call.faults + 1 >= CONFIGURATION_FAULTS_MAX:
            return None  # R6: few attempts. An undo goes on by its own policy: a bad release for a minute must not make an incident (R13)
    if failed.outcome is AttemptOutcome.RETRY_LATER:
        wait_us = max(failed.delay_us, backoff_us(policy, 1))  # at the participant's pace, but never in a hot loop
    else:
        tried = call.failures if failed.is_counted else call.postponed
        backoff = backoff_us(policy, tried + 1)
        wait_us = jittered_us(backoff, state.saga_id, attempt.step_id, attempt.direction, attempt.number)
    retry_at = Instant(now + wait_us)
    return None if limit_at is not None and retry_at >= limit_at else retry_at
