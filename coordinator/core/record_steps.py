"""Recording what happens to steps. A part of `record`: no rules, only recording."""

from coordinator.core.errors import CorruptJournalError
from coordinator.core.events import (
    AttemptFailed,
    SagaRecovered,
    StepAccepted,
    StepCompensated,
    StepCompensationFailed,
    StepRejected,
    StepSucceeded,
    StepUnknown,
)
from coordinator.core.plan import SagaPlan
from coordinator.core.state import MAY_HAVE_EFFECT, QUIET_GRACE_US, CallState, SagaState, StepState
from coordinator.core.transitions import step_status_after
from coordinator.core.values import AttemptKey, AttemptOutcome, Direction, Failure, Instant, StepId, StepKind, StepStatus


def required_step(plan: SagaPlan, state: SagaState, step_id: StepId) -> StepState:
    """The step, or hook, of that id. Raises CorruptJournalError if the saga has none."""
    step = state.step(plan, step_id)
    if step is None:
        raise CorruptJournalError(f"saga {state.saga_id} has no step {step_id!r}")
    return step


def let_successors_wait_no_more(plan: SagaPlan, state: SagaState, step_id: StepId) -> None:
    """The step is done: whoever waits for it waits for one less (R14)."""
    index = plan.index_of.get(step_id)
    if index is None:
        return  # a hook has no successors
    for successor in plan.successors[index]:
        step = state.steps[successor]
        step.waits_for -= 1
        if step.waits_for == 0 and state.cause is None and state.terminated is None:  # nothing starts any more otherwise (R12)
            state.ready.append(successor)


def come_to_rest(plan: SagaPlan, state: SagaState, step_id: StepId, status: StepStatus, failure: Failure, at: Instant) -> None:
    """The execution of a step has ended, or could not begin, without success. A BEST_EFFORT step is done by that (R14)."""
    step = required_step(plan, state, step_id)
    step.settle(status, at)
    step.failure = failure
    if step.plan.kind is StepKind.BEST_EFFORT:
        let_successors_wait_no_more(plan, state, step_id)


def end_execution(plan: SagaPlan, state: SagaState, fact: StepSucceeded | StepRejected | StepUnknown, at: Instant) -> StepState:
    """The execution of a step has ended."""
    step, call = call_of(plan, state, fact.attempt)
    status = step_status_after(step.status, fact)
    call.number = max(call.number, fact.attempt.number)  # a completion by token names an attempt that has ended before
    step.settle(status, at)
    return step


def end_compensation(plan: SagaPlan, state: SagaState, fact: StepCompensated | StepCompensationFailed) -> StepState:
    """The compensation of a step has ended."""
    step, call = call_of(plan, state, fact.attempt)
    step.status = step_status_after(step.status, fact)
    call.number = fact.attempt.number
    call.retry_at = None
    return step


def record_acceptance(plan: SagaPlan, state: SagaState, fact: StepAccepted, at: Instant) -> None:
    """The participant finishes a step later (R24)."""
    step, call = call_of(plan, state, fact.attempt)
    step.status = step_status_after(step.status, fact)
    call.number, call.retry_at = fact.attempt.number, None
    step.accepted_attempt, step.accepted_at, step.accepted_until = fact.attempt, at, fact.accepted_until
    step.accepted_limit_us = fact.accepted_until - at
    step.in_doubt = True  # R5: a refusal later is clean only if the participant sealed the key


def record_failed_attempt(plan: SagaPlan, state: SagaState, fact: AttemptFailed, at: Instant) -> None:
    """An attempt has ended without settling its step."""
    step, call = call_of(plan, state, fact.attempt)
    step.status = step_status_after(step.status, fact)
    call.number = fact.attempt.number
    call.retry_at, call.failure = fact.retry_at, fact.failure
    if call.failed_first_at is None:
        call.failed_first_at = at
    if fact.outcome in (AttemptOutcome.RETRY_LATER, AttemptOutcome.NOT_SENT):
        call.postponed += 1
        return
    call.failures += 1
    if fact.outcome is AttemptOutcome.MISCONFIGURED:
        call.faults += 1
    if fact.outcome is AttemptOutcome.UNKNOWN and fact.attempt.direction is Direction.EXECUTE:
        step.in_doubt = True  # R5


def record_recovery(plan: SagaPlan, state: SagaState, fact: SagaRecovered, at: Instant) -> None:
    """Attempts that may have been under way when a process ended."""
    for attempt in fact.in_doubt:
        step, call = call_of(plan, state, attempt)
        call.number = attempt.number
        call.retry_at = max(call.not_before, at)
        # It was sent before now, if at all, and its time ends with it: until then it may still be at work, unheard.
        call.unheard_until = Instant(at + step.longest_call_us + QUIET_GRACE_US)
        if attempt.direction is Direction.EXECUTE:
            step.in_doubt = True  # R29, R5


def release_compensations(plan: SagaPlan, state: SagaState, at: Instant) -> None:
    """Makes due what can be undone now: in the inverse order of the graph, independent steps together, once all is quiet (R12)."""
    if not state.is_quiet:
        return
    undone = [False] * len(state.steps)
    for index in plan.backward_order:
        step = state.steps[index]
        if not all(undone[successor] for successor in plan.successors[index]):
            continue
        if step.status not in MAY_HAVE_EFFECT or not step.plan.is_compensated:
            undone[index] = step.status not in (StepStatus.COMPENSATING, StepStatus.COMPENSATION_FAILED)
            continue
        step.status = StepStatus.COMPENSATING
        # A person may have said meanwhile how the execution ended: the same call goes on, its numbers never restart (R1).
        step.compensate = CallState(at, 1, 0 if step.compensate is None else step.compensate.number)
        unheard_until = None if step.execute is None else step.execute.unheard_until
        if unheard_until is not None and unheard_until > at:
            step.compensate.retry_at = unheard_until  # R12: undoing must not overtake a call that an earlier process may have made


def call_of(plan: SagaPlan, state: SagaState, attempt: AttemptKey) -> tuple[StepState, CallState]:
    """The step of an attempt and how its call stands. Raises CorruptJournalError if that was never owed."""
    step = required_step(plan, state, attempt.step_id)
    call = step.execute if attempt.direction is Direction.EXECUTE else step.compensate
    if call is None:
        raise CorruptJournalError(f"step {attempt.step_id} of saga {state.saga_id} owed no {attempt.direction.name}")
    return step, call
