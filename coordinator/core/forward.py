"""Forward: what an answer to Execute means (R5-R7), and when trying ends."""

from coordinator.core.attempts import failed_attempt, is_owed, next_attempt_at
from coordinator.core.events import AttemptFailed, Fact, StepRejected, StepSucceeded, StepUnknown
from coordinator.core.inputs import KeyExpired, Rejected, Replied, Succeeded
from coordinator.core.pending import execution_limit
from coordinator.core.plan import SagaPlan
from coordinator.core.state import SagaState
from coordinator.core.values import (
    AttemptKey,
    AttemptOutcome,
    Code,
    Direction,
    Failure,
    Instant,
    SagaStatus,
    StepStatus,
)


def decide_execution_reply(plan: SagaPlan, state: SagaState, reply: Replied, now: Instant) -> tuple[Fact, ...]:
    """What an answer to Execute, or the lack of one, makes of its step."""
    index = plan.index_of.get(reply.attempt.step_id)
    if index is None:
        return ()
    step = state.steps[index]
    call = step.execute
    if call is None or step.status is not StepStatus.EXECUTING or not is_owed(call, reply.attempt):
        return ()
    outcome = reply.outcome
    if isinstance(outcome, Succeeded):
        return (StepSucceeded(attempt=reply.attempt, sent_at=reply.sent_at, output=outcome.output),)
    if isinstance(outcome, KeyExpired):
        return (_rest(reply, outcome.failure, may_have_effect=True),)  # R21: the participant cannot say what happened
    if isinstance(outcome, Rejected):
        # R5: a refusal proves nothing about earlier attempts, unless the participant sealed the key.
        return (_rest(reply, outcome.failure, may_have_effect=step.in_doubt and not outcome.sealed, sealed=outcome.sealed),)
    return (_after_failed_attempt(plan, state, index, reply, now),)


def _after_failed_attempt(plan: SagaPlan, state: SagaState, index: int, reply: Replied, now: Instant) -> Fact:
    step, step_plan = state.steps[index], plan.steps[index]
    call = step.execute
    assert call is not None
    failed = failed_attempt(reply.outcome)
    retry_at = None
    if state.status is SagaStatus.RUNNING:  # a saga that has turned back executes nothing again (R12)
        limit_at = Instant(call.due_at + step_plan.execute_time_limit_us)
        retry_at = next_attempt_at(state, call, reply.attempt, failed, policy=step_plan.execute_retry, now=now, limit_at=limit_at)
    if retry_at is None:
        in_doubt = step.in_doubt or failed.outcome is AttemptOutcome.UNKNOWN
        return _rest(reply, failed.failure, may_have_effect=in_doubt)
    return AttemptFailed(attempt=reply.attempt, sent_at=reply.sent_at, outcome=failed.outcome, failure=failed.failure, retry_at=retry_at)


def _rest(reply: Replied, failure: Failure, *, may_have_effect: bool, sealed: bool = False) -> Fact:
    if may_have_effect:
        return StepUnknown(attempt=reply.attempt, sent_at=reply.sent_at, failure=failure)
    return StepRejected(attempt=reply.attempt, sent_at=reply.sent_at, failure=failure, sealed=sealed)


def decide_silence(plan: SagaPlan, state: SagaState) -> tuple[Fact, ...]:
    """The saga turned back, and the time to wait for attempts in flight is over: they are UNKNOWN (R12)."""
    return tuple(
        StepUnknown(
            attempt=AttemptKey(step_plan.id, Direction.EXECUTE, step.execute.round, step.execute.number + 1),
            sent_at=None,
            failure=Failure(Code.DEADLINE_EXCEEDED, "the saga turned back and no answer came in time"),
        )
        for step_plan, step in zip(plan.steps, state.steps, strict=True)
        if step.status is StepStatus.EXECUTING and step.execute is not None
    )


def quiet_at(plan: SagaPlan, state: SagaState, now: Instant, *, grace_us: int) -> Instant:
    """When no attempt that may be in flight now can still be under way, if the saga turns back now (R12).

    When each attempt was sent is not recorded (R29), but it was before now, so that its deadline is at most its timeout away; and no call
    goes on beyond the limit of its step or saga. The grace lets the answer "deadline exceeded" arrive first.
    """
    latest = now
    for index, (step_plan, step) in enumerate(zip(plan.steps, state.steps, strict=True)):
        call = step.execute
        if step.status is not StepStatus.EXECUTING or call is None or call.not_before > now:
            continue
        ends_at = min(now + step_plan.attempt_timeout_us, execution_limit(plan, state, index, call))
        latest = Instant(max(latest, max(ends_at, now) + grace_us))
    return latest
