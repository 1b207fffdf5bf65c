"""What follows for the steps whose predecessors are done: executed, left out, or not executable. Evaluated once, here (R3)."""

from coordinator.core.events import Reached, StepDue, StepLeftOut, StepUnfit
from coordinator.core.plan import ExpressionError, SagaPlan, StepPlan
from coordinator.core.point_of_no_return import has_passed
from coordinator.core.state import SagaState
from coordinator.core.values import Code, Failure, SagaStatus


def find_reached(plan: SagaPlan, state: SagaState) -> tuple[Reached, ...]:
    """The steps, or the hook, that the saga reaches as it stands; to be recorded with the event that made it so.

    A saga that turned back, or shall, reaches nothing more (R12), nor does a paused one.
    """
    if state.ended_at is not None:
        return _find_hook(plan, state)
    if not state.ready or state.paused is not None or state.status is not SagaStatus.RUNNING:
        return ()
    shall_turn_back = state.turn_back_requested is not None or state.payload_bytes > plan.payload_bytes_max
    if shall_turn_back and not has_passed(plan, state):
        return ()
    return tuple(_evaluate(plan.steps[index], state) for index in state.ready)


def _find_hook(plan: SagaPlan, state: SagaState) -> tuple[Reached, ...]:
    hook = plan.on_success if state.status is SagaStatus.COMPLETED else plan.on_failure
    if hook is None or state.hook is not None:
        return ()
    return (_evaluate(hook, state),)


def _evaluate(step: StepPlan, state: SagaState) -> Reached:
    try:
        if step.when is not None and not step.when(state):
            return StepLeftOut(step.id)
        return StepDue(step.id, None if step.copies_input else step.input(state))
    except ExpressionError as error:
        return StepUnfit(step.id, Failure(Code.INVALID_ARGUMENT, str(error)))
