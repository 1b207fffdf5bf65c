"""Forward: what an answer to Execute means (R5-R7, R24), and when trying ends."""

from coordinator.core.attempts import failed_attempt, is_owed, next_attempt_at
from coordinator.core.events import (
    AttemptFailed,
    Fact,
    StepAccepted,
    StepRejected,
    StepSucceeded,
    StepUnknown,
)
from coordinator.core.incidents import opened
from coordinator.core.inputs import Accepted, KeyExpired, Mismatched, Rejected, Replied, Succeeded
from coordinator.core.late import late_outcome
from coordinator.core.pending import execution_limit
from coordinator.core.plan import SagaPlan
from coordinator.core.point_of_no_return import goes_forward_only
from coordinator.core.state import QUIET_GRACE_US, CallState, SagaState, StepState
from coordinator.core.values import (
    AttemptKey,
    AttemptOutcome,
    Code,
    Direction,
    Failure,
    IncidentKind,
    Instant,
    SagaStatus,
    StepKind,
    StepStatus,
)


def decide_execution_reply(plan: SagaPlan, state: SagaState, reply: Replied, now: Instant) -> tuple[Fact, ...]:
    """What an answer to Execute, or the lack of one, makes of its step."""
    step = state.step(plan, reply.attempt.step_id)
    if step is None or step.execute is None:
        return ()
    if step.resolved is not None or (state.terminated is not None and step is not state.hook):
        return late_outcome(state, step, reply)  # R17
    if step.status is not StepStatus.EXECUTING or not is_owed(step.execute, reply.attempt):
        return ()
    outcome = reply.outcome
    if isinstance(outcome, Succeeded):
        return (StepSucceeded(attempt=reply.attempt, sent_at=reply.sent_at, output=outcome.output),)
    if step.early is not None:
        # It was completed by token while this call was under way: whatever else the call says, that is the better knowledge (R24).
        return completion_facts(reply.attempt, reply.sent_at, step.early.result)
    if isinstance(outcome, Accepted):
        return (_accepted(state, reply, outcome, now),)
    if isinstance(outcome, KeyExpired):
        return (_rest(reply, outcome.failure, may_have_effect=True),)  # R21: the participant cannot say what happened
    if isinstance(outcome, Rejected):
        # R5: a refusal proves nothing about earlier attempts, unless the participant sealed the key.
        return (_rest(reply, outcome.failure, may_have_effect=step.in_doubt and not outcome.sealed, sealed=outcome.sealed),)
    if isinstance(outcome, Mismatched):
        return _mismatched(state, step, reply, outcome)
    return (_after_failed_attempt(plan, state, step, step.execute, reply, now),)


def completion_facts(attempt: AttemptKey, sent_at: Instant | None, result: Succeeded | Rejected) -> tuple[Fact, ...]:
    """What the completion of an accepted step makes of it. After an acceptance only a sealed refusal is clean (R5)."""
    match result:
        case Succeeded(output=output):
            return (StepSucceeded(attempt=attempt, sent_at=sent_at, output=output),)
        case Rejected(failure=failure, sealed=True):
            return (StepRejected(attempt=attempt, sent_at=sent_at, failure=failure, sealed=True),)
        case Rejected(failure=failure):
            return (StepUnknown(attempt=attempt, sent_at=sent_at, failure=failure),)


def decide_expired_acceptances(plan: SagaPlan, state: SagaState, now: Instant) -> tuple[Fact, ...]:
    """Accepted steps whose time is over are UNKNOWN, without a further attempt (R24)."""
    steps = [*state.steps, *([] if state.hook is None else [state.hook])]
    return tuple(
        StepUnknown(
            attempt=step.accepted_attempt,
            sent_at=None,
            failure=Failure(Code.DEADLINE_EXCEEDED, "the step was accepted and not completed in time"),
        )
        for step in steps
        if step.accepted_until is not None and step.accepted_until <= now and step.accepted_attempt is not None
    )


def _accepted(state: SagaState, reply: Replied, outcome: Accepted, now: Instant) -> Fact:
    if state.status is SagaStatus.COMPENSATING:
        # It turned back meanwhile: an accepted step is at rest at once (R12), and its compensation seals what is begun.
        failure = Failure(Code.CANCELLED, "accepted after the saga had turned back")
        return _rest(reply, failure, may_have_effect=True)
    return StepAccepted(attempt=reply.attempt, sent_at=reply.sent_at, accepted_until=Instant(now + outcome.time_limit_us))


def _mismatched(state: SagaState, step: StepState, reply: Replied, outcome: Mismatched) -> tuple[Fact, ...]:
    """Not sent, and sending it later would not help: a person is needed."""
    rest = _rest(reply, outcome.failure, may_have_effect=step.in_doubt)
    if state.status is SagaStatus.COMPENSATING or step.plan.kind is StepKind.BEST_EFFORT:
        return (rest,)  # nobody waits for it any more, or anybody goes on without it
    return (rest, opened(state, IncidentKind.TYPE_MISMATCH, reply.attempt.step_id, outcome.failure))


def _after_failed_attempt(plan: SagaPlan, state: SagaState, step: StepState, call: CallState, reply: Replied, now: Instant) -> Fact:
    failed = failed_attempt(reply.outcome)
    in_doubt = step.in_doubt or failed.outcome is AttemptOutcome.UNKNOWN
    retry_at = None
    if state.status is not SagaStatus.COMPENSATING:  # a saga that has turned back executes nothing again (R12)
        limit_at = _give_up_at(plan, state, step, call, now, in_doubt=in_doubt)
        retry_at = next_attempt_at(state, call, reply.attempt, failed, policy=step.plan.execute_retry, now=now, limit_at=limit_at)
    if retry_at is None:
        return _rest(reply, failed.failure, may_have_effect=in_doubt)
    return AttemptFailed(attempt=reply.attempt, sent_at=reply.sent_at, outcome=failed.outcome, failure=failed.failure, retry_at=retry_at)


def _give_up_at(plan: SagaPlan, state: SagaState, step: StepState, call: CallState, now: Instant, *, in_doubt: bool) -> Instant:
    """Until when the step is tried. Where nothing can be turned back, its limit only says when a person is asked (R10, R13)."""
    if goes_forward_only(plan, state, step, in_doubt=in_doubt):
        started_at = now if call.failed_first_at is None else call.failed_first_at
        return Instant(started_at + step.plan.recovery_time_limit_us)
    return Instant(call.since + step.plan.execute_time_limit_us)


def _rest(reply: Replied, failure: Failure, *, may_have_effect: bool, sealed: bool = False) -> Fact:
    if may_have_effect:
        return StepUnknown(attempt=reply.attempt, sent_at=reply.sent_at, failure=failure)
    return StepRejected(attempt=reply.attempt, sent_at=reply.sent_at, failure=failure, sealed=sealed)


def decide_silence(plan: SagaPlan, state: SagaState) -> tuple[Fact, ...]:
    """The saga turned back, and the time to wait for attempts in flight is over: they are UNKNOWN (R12), unless completed by token."""
    facts: list[Fact] = []
    for step in state.steps:
        if step.status is not StepStatus.EXECUTING or step.execute is None:
            continue
        attempt = AttemptKey(step.plan.id, Direction.EXECUTE, step.execute.round, step.execute.number + 1)
        if step.early is not None:
            facts += completion_facts(attempt, None, step.early.result)
            continue
        failure = Failure(Code.DEADLINE_EXCEEDED, "the saga turned back and no answer came in time")
        facts.append(StepUnknown(attempt=attempt, sent_at=None, failure=failure))
    return tuple(facts)


def quiet_at(plan: SagaPlan, state: SagaState, now: Instant) -> Instant:
    """When no attempt that may be in flight now can still be under way, if the saga turns back now (R12).

    When each attempt was sent is not recorded (R29), but it was before now, so that its deadline is at most its timeout away; and no call
    goes on beyond the limit of its step or saga. The grace lets the answer "deadline exceeded" arrive first.
    """
    latest = now
    for step_plan, step in zip(plan.steps, state.steps, strict=True):
        call = step.execute
        if step.status is not StepStatus.EXECUTING or call is None or not state.may_be_under_way(step, call, now):
            continue
        has_first_policy = step.plan is step_plan  # else the call may have been made under another limit
        timeout_at, limit_at = now + step.longest_call_us, execution_limit(plan, state, step, call) if has_first_policy else None
        ends_at = timeout_at if limit_at is None else min(timeout_at, limit_at)
        latest = Instant(max(latest, max(ends_at, now) + QUIET_GRACE_US))
    return latest
