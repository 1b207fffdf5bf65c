"""What a saga owes as it stands: the same function in normal running and after a crash, so that nothing has to be remembered."""

from coordinator.core.effects import CallParticipant, OwedCall, Pending
from coordinator.core.plan import SagaPlan
from coordinator.core.point_of_no_return import goes_forward_only, has_passed
from coordinator.core.state import CallState, SagaState, StepState
from coordinator.core.values import AttemptKey, Direction, Instant, SagaStatus, StepId, StepStatus, idempotency_key

NOTHING = Pending((), None)


def pending(plan: SagaPlan, state: SagaState) -> Pending:
    """The calls that a saga owes and the instant at which it wants to be woken. A paused saga owes nothing."""
    if state.paused is not None:
        return NOTHING
    if state.has_ended:
        return _of_hook(state)
    match state.status:
        case SagaStatus.PENDING:
            return Pending((), state.start_at)
        case SagaStatus.RUNNING:
            return Pending(owed_calls(state), _wake_at(plan, state))
        case SagaStatus.COMPENSATING if not state.is_quiet:
            return Pending((), state.quiet_at)
        case SagaStatus.COMPENSATING:
            return Pending(owed_calls(state), None)
        case _:
            return NOTHING


def owed_calls(state: SagaState) -> tuple[OwedCall, ...]:
    """The calls that steps in motion owe, whether or not the saga is paused."""
    owed = []
    for step in state.steps:
        if step.status is StepStatus.EXECUTING and step.execute is not None and state.status is SagaStatus.RUNNING:
            owed.append(_owed(step.plan.id, Direction.EXECUTE, step.execute))
        elif step.status is StepStatus.COMPENSATING and step.compensate is not None:
            owed.append(_owed(step.plan.id, Direction.COMPENSATE, step.compensate))
    if state.hook is not None:
        owed += _of_hook(state).calls
    return tuple(owed)


def call_participant(plan: SagaPlan, state: SagaState, attempt: AttemptKey) -> CallParticipant:
    """The whole effect for a call that `pending` named."""
    step = state.step(plan, attempt.step_id)
    assert step is not None, "only calls of steps are owed"
    execute = step.execute
    assert execute is not None, "what was never due is neither executed nor compensated"
    assert step.input is not None, "what was due has an input"
    compensates = attempt.direction is Direction.COMPENSATE
    return CallParticipant(
        saga_id=state.saga_id,
        definition=plan.key,
        attempt=attempt,
        action=step.plan.action,
        key=idempotency_key(state.saga_id, step.plan.id, attempt.direction, attempt.round),
        execute_key=idempotency_key(state.saga_id, step.plan.id, Direction.EXECUTE, execute.round),
        input=step.input,
        first_attempt_at=execute.due_at,
        timeout_us=step.plan.attempt_timeout_us,
        send_before=None if compensates else execution_limit(plan, state, step, execute),
        output=step.output if compensates else None,
        input_type=step.plan.input_type,
        output_type=step.plan.output_type,
        check_output=step.plan.check_output,
        trace=state.trace,
    )


def execution_limit(plan: SagaPlan, state: SagaState, step: StepState, execute: CallState) -> Instant | None:
    """When an attempt to execute must end: at the limit of its step or of the saga, whichever comes first. None: nothing but its own
    timeout bounds it, because there is no way back (R10, R13).
    """
    if goes_forward_only(plan, state, step, in_doubt=step.in_doubt):
        return None
    limit = Instant(execute.since + step.plan.execute_time_limit_us)
    bounds_all = state.deadline is not None and not has_passed(plan, state)
    return min(limit, state.deadline) if bounds_all and state.deadline is not None else limit


def next_attempt(step_id: StepId, direction: Direction, call: CallState) -> AttemptKey:
    """The attempt that is owed, or awaited."""
    return AttemptKey(step_id, direction, call.round, call.number + 1)


def _owed(step_id: StepId, direction: Direction, call: CallState) -> OwedCall:
    return OwedCall(next_attempt(step_id, direction, call), call.not_before)


def _wake_at(plan: SagaPlan, state: SagaState) -> Instant | None:
    """When the deadline of the saga, or the time of an accepted step, is over."""
    wake_at = _earliest(state.steps)
    is_bounded = state.deadline is not None and state.turn_back_requested is None and not has_passed(plan, state)
    if is_bounded and state.deadline is not None:
        return state.deadline if wake_at is None else min(wake_at, state.deadline)
    return wake_at


def _earliest(steps: list[StepState]) -> Instant | None:
    accepted = [step.accepted_until for step in steps if step.accepted_until is not None]
    return min(accepted) if accepted else None


def _of_hook(state: SagaState) -> Pending:
    hook, hook_id = state.hook, state.hook_id
    if hook is None or hook_id is None:
        return NOTHING
    if hook.status is StepStatus.EXECUTING and hook.execute is not None:
        return Pending((_owed(hook_id, Direction.EXECUTE, hook.execute),), None)
    return Pending((), hook.accepted_until)
