"""What follows from what happened: every rule of a saga is here and in the two files that this one calls.

A reply or timer that no longer matters (late, duplicate, unknown step) decides nothing and never raises. Only a command that the status
forbids raises.
"""

from typing import assert_never

from coordinator.core.backward import decide_compensation_reply, decide_turned_back, turn_back
from coordinator.core.errors import CommandRefusedError
from coordinator.core.events import Event, Fact, SagaBegan, SagaCompleted, SagaRecovered, SagaStarted
from coordinator.core.forward import decide_execution_reply, decide_silence
from coordinator.core.inputs import Cancel, Input, Recover, Replied, Start, Wake
from coordinator.core.pending import pending
from coordinator.core.plan import SagaPlan
from coordinator.core.state import SagaState, apply
from coordinator.core.values import (
    Code,
    Direction,
    Failure,
    Instant,
    SagaStatus,
    StepStatus,
    TurnBackCause,
)


def advance(plan: SagaPlan, state: SagaState, happened: Input, now: Instant) -> tuple[Event, ...]:
    """Decides, applies, and goes on until nothing more follows. Returns what must be committed BEFORE anything is released.

    Raises CommandRefusedError for a command that the status forbids; the state is then unchanged.
    """
    at = max(now, state.updated_at)  # a clock that steps back does not turn history around
    events: list[Event] = []
    facts = decide(plan, state, happened, at)
    while facts:
        for fact in facts:
            event = Event(state.sequence + 1, at, fact)
            apply(plan, state, event)
            events.append(event)
        facts = decide_next(plan, state, at)
    return tuple(events)


def decide(plan: SagaPlan, state: SagaState, happened: Input, now: Instant) -> tuple[Fact, ...]:
    """The facts that one input makes; none if it does not matter any more."""
    match happened:
        case Start():
            return _decide_start(plan, state, happened, now)
        case Replied():
            if happened.attempt.direction is Direction.EXECUTE:
                return decide_execution_reply(plan, state, happened, now)
            return decide_compensation_reply(plan, state, happened, now)
        case Wake():
            return _decide_wake(plan, state, now)
        case Cancel():
            return _decide_cancel(plan, state, happened, now)
        case Recover():
            return _decide_recovery(plan, state)
        case _:
            assert_never(happened)


def decide_next(plan: SagaPlan, state: SagaState, now: Instant) -> tuple[Fact, ...]:
    """What follows from the state alone, without anything new from outside."""
    if state.status is SagaStatus.COMPENSATING:
        return decide_turned_back(plan, state)
    if state.status is not SagaStatus.RUNNING:
        return ()
    for step_plan, step in zip(plan.steps, state.steps, strict=True):
        if step.status in (StepStatus.REJECTED, StepStatus.UNKNOWN):
            assert step.execute is not None
            assert step.execute.failure is not None
            rejected = step.status is StepStatus.REJECTED
            cause = TurnBackCause.STEP_REJECTED if rejected else TurnBackCause.STEP_UNKNOWN
            return (turn_back(plan, state, now, cause=cause, failure=step.execute.failure, step_id=step_plan.id),)
    if state.payload_bytes > plan.payload_bytes_max:
        failure = Failure(
            Code.RESOURCE_EXHAUSTED,
            f"input and outputs of the saga are {state.payload_bytes} bytes together; at most {plan.payload_bytes_max} are allowed",
        )
        return (turn_back(plan, state, now, cause=TurnBackCause.PAYLOAD_LIMIT, failure=failure),)
    if all(step.status in (StepStatus.SUCCEEDED, StepStatus.SKIPPED) for step in state.steps):
        return (SagaCompleted(output=None if plan.output is None else plan.output(state)),)
    return ()


def _decide_start(plan: SagaPlan, state: SagaState, start: Start, now: Instant) -> tuple[Fact, ...]:
    if state.status is not None:
        return ()
    start_at = start.start_at if start.start_at is not None and start.start_at > now else None
    limit_us = plan.time_limit_us if start.time_limit_us is None else start.time_limit_us
    return (
        SagaStarted(
            definition=plan.key,
            input=start.input,
            labels=start.labels,
            idempotency_key=start.idempotency_key,
            start_at=start_at,
            deadline=None if limit_us is None else Instant((start_at or now) + limit_us),
            trace=start.trace,
        ),
    )


def _decide_wake(plan: SagaPlan, state: SagaState, now: Instant) -> tuple[Fact, ...]:
    if state.status is SagaStatus.PENDING and state.start_at is not None and state.start_at <= now:
        return (SagaBegan(),)
    if state.status is SagaStatus.RUNNING and state.deadline is not None and state.deadline <= now:
        failure = Failure(Code.DEADLINE_EXCEEDED, "the time limit of the saga was reached")
        return (turn_back(plan, state, now, cause=TurnBackCause.TIME_LIMIT, failure=failure),)
    if state.status is SagaStatus.COMPENSATING and state.quiet_at is not None and state.quiet_at <= now:
        return decide_silence(plan, state)
    return ()


def _decide_cancel(plan: SagaPlan, state: SagaState, cancel: Cancel, now: Instant) -> tuple[Fact, ...]:
    assert state.status is not None, "only a saga that exists is cancelled"
    if state.cause is TurnBackCause.CANCELLED or state.status is SagaStatus.COMPENSATING:
        return ()  # asked again, or turning back already
    if state.status not in (SagaStatus.PENDING, SagaStatus.RUNNING):
        raise CommandRefusedError(state.saga_id, state.status, "cancelled")
    failure = Failure(Code.CANCELLED, cancel.reason or "cancelled")
    return (turn_back(plan, state, now, cause=TurnBackCause.CANCELLED, failure=failure, actor=cancel.actor),)


def _decide_recovery(plan: SagaPlan, state: SagaState) -> tuple[Fact, ...]:
    """Every call that was owed may have been sent, those in backoff included: the clock may have stepped in between (R29)."""
    owed = pending(plan, state).calls
    return (SagaRecovered(in_doubt=tuple(call.attempt for call in owed)),) if owed else ()
