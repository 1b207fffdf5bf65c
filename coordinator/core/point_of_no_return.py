"""When a saga can turn back, and when it cannot any more (R9, R10)."""

from coordinator.core.plan import SagaPlan
from coordinator.core.state import SagaState, StepState
from coordinator.core.values import Instant, StepKind, StepStatus


def has_passed(plan: SagaPlan, state: SagaState) -> bool:
    """Whether the saga only goes forward now.

    With a pivot: once it took effect, or was left out. Without one: once a RETRIABLE step was to be executed; every COMPENSATABLE one has
    succeeded by then (R9).
    """
    if plan.pivot is not None:
        return state.steps[plan.pivot].status in (StepStatus.SUCCEEDED, StepStatus.SKIPPED)
    return bool(plan.retriables) and any(state.steps[index].execute is not None for index in plan.retriables)


def pivot_may_have_effect(plan: SagaPlan, state: SagaState, now: Instant) -> bool:
    """Whether the pivot is not known to have had no effect, nor to have succeeded: then nothing turns the saga back (R10)."""
    if plan.pivot is None:
        return False
    pivot = state.steps[plan.pivot]
    if pivot.status is StepStatus.EXECUTING:
        assert pivot.execute is not None
        return pivot.in_doubt or state.may_have_been_sent(pivot.execute, now)
    return pivot.status in (StepStatus.ACCEPTED, StepStatus.UNKNOWN)


def goes_forward_only(plan: SagaPlan, state: SagaState, step: StepState, *, in_doubt: bool) -> bool:
    """Whether giving the step up would leave only a person to help: its limits then bound nothing but how long nobody is asked (R13)."""
    kind = step.plan.kind
    if kind is StepKind.BEST_EFFORT:
        return False
    if step is state.hook or (kind is StepKind.PIVOT and in_doubt):
        return True
    return has_passed(plan, state)
