"""Recording what persons do. A part of `record`: no rules, only recording."""

from dataclasses import replace
from typing import assert_never

from coordinator.core.errors import CorruptJournalError
from coordinator.core.events import (
    OutputResolved,
    SagaPaused,
    SagaResumed,
    SagaTerminated,
    StepPolicyChanged,
    StepResolved,
    StepRetried,
)
from coordinator.core.inputs import PolicyChange, ResolvedCompensated, ResolvedRejected, ResolvedSkipped, ResolvedSucceeded
from coordinator.core.plan import SagaPlan, StepPlan
from coordinator.core.record_steps import let_successors_wait_no_more, required_step
from coordinator.core.state import CallState, PersonAction, SagaState
from coordinator.core.transitions import check_person_transition, saga_status_after
from coordinator.core.values import Code, Direction, Failure, Instant, SagaStatus, StepId, StepKind, StepStatus

PersonFact = SagaPaused | SagaResumed | SagaTerminated | StepRetried | StepResolved | StepPolicyChanged | OutputResolved


def record(plan: SagaPlan, state: SagaState, fact: PersonFact, at: Instant) -> None:
    """Records what a person did."""
    match fact:
        case SagaPaused():
            state.paused = PersonAction(fact.actor, fact.reason, at)
        case SagaResumed():
            state.paused = None
        case SagaTerminated():
            _record_termination(state, fact, at)
        case StepRetried():
            _record_retry(plan, state, fact, at)
        case StepResolved():
            _record_resolution(plan, state, fact, at)
        case StepPolicyChanged():
            step = required_step(plan, state, fact.step_id)
            step.plan = changed(step.plan, fact.change)
            step.longest_call_us = max(step.longest_call_us, step.plan.attempt_timeout_us)
        case OutputResolved():
            state.output = fact.output
            state.payload_bytes += len(fact.output.value)
            _leave_failed(state, fact, at)
        case _:
            assert_never(fact)


def changed(plan: StepPlan, change: PolicyChange) -> StepPlan:
    """The plan with what a person changed."""
    return replace(
        plan,
        execute_retry=change.execute_retry or plan.execute_retry,
        compensate_retry=change.compensate_retry or plan.compensate_retry,
        attempt_timeout_us=change.attempt_timeout_us or plan.attempt_timeout_us,
        execute_time_limit_us=change.execute_time_limit_us or plan.execute_time_limit_us,
        recovery_time_limit_us=change.recovery_time_limit_us or plan.recovery_time_limit_us,
    )


def _record_termination(state: SagaState, fact: SagaTerminated, at: Instant) -> None:
    if state.status is SagaStatus.FAILED:
        state.resumed.append((state.sequence, at))
    state.status = saga_status_after(state.status, fact)
    state.terminated, state.paused, state.turn_back_requested = PersonAction(fact.actor, fact.reason, at), None, None
    state.ended_at, state.ready = at, []
    if state.failure is None:
        state.failure = Failure(Code.CANCELLED, fact.reason or "terminated")
    for step in state.steps:
        if step.status is StepStatus.COMPENSATING:
            step.status = StepStatus.COMPENSATION_FAILED
        elif step.status is StepStatus.ACCEPTED:
            step.settle(StepStatus.UNKNOWN, at)
        elif step.status is StepStatus.EXECUTING and step.execute is not None:
            may_have_effect = step.in_doubt or state.may_have_been_sent(step.execute, at)
            step.settle(StepStatus.UNKNOWN if may_have_effect else StepStatus.REJECTED, at)


def _leave_failed(state: SagaState, fact: StepRetried | StepResolved | OutputResolved, at: Instant) -> None:
    if state.status is not SagaStatus.FAILED:
        return
    if state.terminated is None:
        ahead = SagaStatus.RUNNING if state.cause is None else SagaStatus.COMPENSATING
        state.status = saga_status_after(state.status, fact, ahead)
        state.resumed.append((state.sequence, at))


def _record_retry(plan: SagaPlan, state: SagaState, fact: StepRetried, at: Instant) -> None:
    _leave_failed(state, fact, at)
    step = required_step(plan, state, fact.step_id)
    if fact.direction is Direction.COMPENSATE:
        check_person_transition(step.status, StepStatus.COMPENSATING, fact)
        step.status = StepStatus.COMPENSATING
        step.compensate = _tried_again(step.compensate, fact.round, at)
        return
    check_person_transition(step.status, StepStatus.EXECUTING, fact)
    if step.execute is None or step.execute.round != fact.round:
        step.in_doubt = False  # the round before is known to have had no effect (R1)
    if fact.input is not None:
        step.input = fact.input
        state.payload_bytes += len(fact.input.value)
    if step.input is None:
        raise CorruptJournalError(f"step {fact.step_id} of saga {state.saga_id} was retried without any input")
    step.execute = _tried_again(step.execute, fact.round, at)
    step.status, step.ended_at, step.failure = StepStatus.EXECUTING, None, None
    step.early = step.accepted_attempt = step.resolved = step.resolution = None
    _drop_request_of(state, fact.step_id)


def _tried_again(call: CallState | None, round_: int, at: Instant) -> CallState:
    if call is None or call.round != round_:
        return CallState(at, round_, 0 if call is None else call.number)
    call.count_anew(at)
    call.retry_at = at
    return call


def _record_resolution(plan: SagaPlan, state: SagaState, fact: StepResolved, at: Instant) -> None:
    _leave_failed(state, fact, at)
    step = required_step(plan, state, fact.step_id)
    after = _resolved_status(fact)
    check_person_transition(step.status, after, fact)
    if step.execute is None and after is StepStatus.SUCCEEDED and step.plan.is_compensated:
        raise CorruptJournalError(f"step {fact.step_id} of saga {state.saga_id} was never executed: there is no key to undo it by")
    step.resolved, step.resolution = PersonAction(fact.actor, fact.reason, at), fact.resolution
    if step.compensate is not None:
        step.compensate.retry_at = None
        step.status = after
    else:
        step.settle(after, at)
    if isinstance(fact.resolution, ResolvedSucceeded):
        step.output, step.failure = fact.resolution.output, None
        state.payload_bytes += len(step.output.value)
    elif isinstance(fact.resolution, ResolvedRejected):
        step.failure = Failure(Code.FAILED_PRECONDITION, fact.reason or "a person said that it had no effect")
    if not isinstance(fact.resolution, ResolvedRejected):
        _drop_request_of(state, fact.step_id)
    goes_on = after in (StepStatus.SUCCEEDED, StepStatus.SKIPPED) or step.plan.kind is StepKind.BEST_EFFORT
    if goes_on and state.cause is None:
        let_successors_wait_no_more(plan, state, fact.step_id)


def _drop_request_of(state: SagaState, step_id: StepId) -> None:
    """The saga does not have to turn back for a step that a person has mended; it does if somebody asked for it, or its time is over."""
    if state.turn_back_requested is not None and state.turn_back_requested.step_id == step_id:
        state.turn_back_requested = None


def _resolved_status(fact: StepResolved) -> StepStatus:
    match fact.resolution:
        case ResolvedSucceeded():
            return StepStatus.SUCCEEDED
        case ResolvedSkipped():
            return StepStatus.SKIPPED
        case ResolvedRejected():
            return StepStatus.REJECTED
        case ResolvedCompensated():
            return StepStatus.COMPENSATED
        case _:
            assert_never(fact.resolution)
