"""What a saga owes as it stands: the same function in normal running and after a crash, so that nothing has to be remembered."""

from coordinator.core.effects import CallParticipant, OwedCall, Pending
from coordinator.core.plan import SagaPlan
from coordinator.core.state import CallState, SagaState
from coordinator.core.values import AttemptKey, Direction, Instant, SagaStatus, StepStatus, idempotency_key

NOTHING = Pending((), None)


def pending(plan: SagaPlan, state: SagaState) -> Pending:
    """The calls that a saga owes and the instant at which it wants to be woken."""
    match state.status:
        case SagaStatus.PENDING:
            return Pending((), state.start_at)
        case SagaStatus.RUNNING:
            return Pending(_owed(plan, state, StepStatus.EXECUTING, Direction.EXECUTE), state.deadline)
        case SagaStatus.COMPENSATING if not state.is_quiet:
            return Pending((), state.quiet_at)
        case SagaStatus.COMPENSATING:
            return Pending(_owed(plan, state, StepStatus.COMPENSATING, Direction.COMPENSATE), None)
        case _:
            return NOTHING


def _owed(plan: SagaPlan, state: SagaState, status: StepStatus, direction: Direction) -> tuple[OwedCall, ...]:
    owed = []
    for step_plan, step in zip(plan.steps, state.steps, strict=True):
        if step.status is not status:
            continue
        call = step.execute if direction is Direction.EXECUTE else step.compensate
        assert call is not None, "a step in motion has a call"
        owed.append(OwedCall(AttemptKey(step_plan.id, direction, call.round, call.number + 1), call.not_before))
    return tuple(owed)


def call_participant(plan: SagaPlan, state: SagaState, attempt: AttemptKey) -> CallParticipant:
    """The whole effect for a call that `pending` named."""
    index = plan.index_of[attempt.step_id]
    step_plan, step = plan.steps[index], state.steps[index]
    execute = step.execute
    assert execute is not None, "what was never due is neither executed nor compensated"
    compensates = attempt.direction is Direction.COMPENSATE
    return CallParticipant(
        saga_id=state.saga_id,
        definition=plan.key,
        attempt=attempt,
        action=step_plan.action,
        key=idempotency_key(state.saga_id, step_plan.id, attempt.direction, attempt.round),
        execute_key=idempotency_key(state.saga_id, step_plan.id, Direction.EXECUTE, execute.round),
        input=step_plan.input(state),
        first_attempt_at=execute.due_at,
        timeout_us=step_plan.attempt_timeout_us,
        send_before=None if compensates else execution_limit(plan, state, index, execute),
        output=step.output if compensates else None,
        check_output=step_plan.check_output,
        trace=state.trace,
    )


def execution_limit(plan: SagaPlan, state: SagaState, index: int, execute: CallState) -> Instant:
    """When the time for executing a step is over: its own limit or that of the saga, whichever comes first (R13)."""
    limit = Instant(execute.due_at + plan.steps[index].execute_time_limit_us)
    return limit if state.deadline is None else min(limit, state.deadline)
