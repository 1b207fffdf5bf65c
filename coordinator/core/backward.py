"""Backward: turning back (R10, R12), and what an answer to Compensate means (R8, R15)."""

from coordinator.core.attempts import failed_attempt, is_owed, next_attempt_at
from coordinator.core.events import (
    AttemptFailed,
    Fact,
    SagaCompensated,
    SagaFailed,
    SagaTurnedBack,
    StepCompensated,
    StepCompensationFailed,
    TurnBackRequested,
)
from coordinator.core.forward import quiet_at
from coordinator.core.incidents import closed, opened
from coordinator.core.inputs import Compensated, KeyExpired, Mismatched, Replied
from coordinator.core.late import late_outcome
from coordinator.core.plan import SagaPlan
from coordinator.core.point_of_no_return import pivot_may_have_effect
from coordinator.core.state import SagaState
from coordinator.core.values import Failure, IncidentKind, Instant, StepId, StepStatus, TurnBackCause


def turn_back(
    plan: SagaPlan,
    state: SagaState,
    now: Instant,
    *,
    cause: TurnBackCause,
    failure: Failure,
    step_id: StepId | None = None,
    actor: str = "",
) -> tuple[Fact, ...]:
    """The facts that a saga turns back now, with the instant until which siblings in flight are awaited.

    While the pivot may have taken effect, the fact that it shall (R10); nothing if that is recorded already. That a person asked for it is
    recorded beside any other cause, which may be mended. What persons were asked for on the forward way is settled by turning back.
    """
    if pivot_may_have_effect(plan, state, now):
        asked = state.turn_back_requested
        if asked is not None and (cause is not TurnBackCause.CANCELLED or asked.cause is TurnBackCause.CANCELLED):
            return ()
        return (TurnBackRequested(cause=cause, step_id=step_id, failure=failure, actor=actor),)
    until = quiet_at(plan, state, now)
    turned_back = SagaTurnedBack(cause=cause, step_id=step_id, failure=failure, quiet_at=until, actor=actor)
    return (turned_back, *closed(state, lambda incident: incident.kind is not IncidentKind.LATE_OUTCOME))


def decide_turned_back(plan: SagaPlan, state: SagaState) -> tuple[Fact, ...]:
    """Whether a saga that turned back has come to an end, or to a stand (R15)."""
    if not state.is_quiet or any(step.status is StepStatus.COMPENSATING for step in state.steps):
        return ()
    if any(step.status is StepStatus.COMPENSATION_FAILED for step in state.steps):
        return (SagaFailed(),)
    return (SagaCompensated(),)


def decide_compensation_reply(plan: SagaPlan, state: SagaState, reply: Replied, now: Instant) -> tuple[Fact, ...]:
    """What an answer to Compensate, or the lack of one, makes of its step."""
    step = state.step(plan, reply.attempt.step_id)
    if step is None or step.compensate is None:
        return ()
    call = step.compensate
    if step.status is not StepStatus.COMPENSATING:
        is_settled = step.resolved is not None or state.terminated is not None
        return late_outcome(state, step, reply) if is_settled else ()  # R17
    if not is_owed(call, reply.attempt):
        return ()
    outcome = reply.outcome
    if isinstance(outcome, Compensated):
        return (StepCompensated(attempt=reply.attempt, sent_at=reply.sent_at, handler_ran=outcome.handler_ran),)
    failed = failed_attempt(outcome)  # R8: a refusal to compensate is a failed attempt like any other
    if isinstance(outcome, KeyExpired):
        return _give_up(state, reply, failed.failure, IncidentKind.KEY_EXPIRED)  # R21: asking again cannot help
    if isinstance(outcome, Mismatched):
        return _give_up(state, reply, failed.failure, IncidentKind.TYPE_MISMATCH)
    started_at = now if call.failed_first_at is None else call.failed_first_at
    limit_at = Instant(started_at + step.plan.recovery_time_limit_us)  # R13: bounded by its own policy only
    retry_at = next_attempt_at(state, call, reply.attempt, failed, policy=step.plan.compensate_retry, now=now, limit_at=limit_at)
    if retry_at is None:
        return _give_up(state, reply, failed.failure, IncidentKind.COMPENSATION_EXHAUSTED)
    return (
        AttemptFailed(
            attempt=reply.attempt,
            sent_at=reply.sent_at,
            outcome=failed.outcome,
            failure=failed.failure,
            retry_at=retry_at,
        ),
    )


def _give_up(state: SagaState, reply: Replied, failure: Failure, kind: IncidentKind) -> tuple[Fact, ...]:
    return (
        StepCompensationFailed(attempt=reply.attempt, sent_at=reply.sent_at, failure=failure),
        opened(state, kind, reply.attempt.step_id, failure),
    )
