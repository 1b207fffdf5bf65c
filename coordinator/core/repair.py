"""What a person may do to a step that is stuck: have it tried again, say how it ended, change how it is repeated (R1, R17)."""

from typing import Final

from coordinator.core.errors import Refusal
from coordinator.core.events import Fact, IncidentClosed, OutputResolved, StepPolicyChanged, StepResolved, StepRetried
from coordinator.core.incidents import closed
from coordinator.core.inputs import (
    ChangePolicy,
    Resolution,
    ResolvedCompensated,
    ResolvedRejected,
    ResolvedSkipped,
    ResolvedSucceeded,
    ResolveOutput,
    ResolveStep,
    RetryStep,
)
from coordinator.core.plan import SagaPlan
from coordinator.core.point_of_no_return import has_passed
from coordinator.core.refusals import refuse, refuse_ended
from coordinator.core.state import SagaState, StepState
from coordinator.core.values import Direction, IncidentKind, Instant, SagaStatus, StepId, StepKind, StepStatus

_UNSETTLED: Final = frozenset({StepStatus.EXECUTING, StepStatus.REJECTED, StepStatus.UNKNOWN, StepStatus.COMPENSATING,
                               StepStatus.COMPENSATION_FAILED})  # fmt: skip
"""Steps that a person can say something about, when no call of theirs is at work."""


def decide_retry(plan: SagaPlan, state: SagaState, retry: RetryStep, now: Instant) -> tuple[Fact, ...]:
    """The step is tried again now, with a new key if the last round is known to have had no effect (R1)."""
    step = _step_of(plan, state, retry.step_id, "retried")
    if step.status in (StepStatus.COMPENSATING, StepStatus.COMPENSATION_FAILED):
        return _retry_compensation(state, step, retry, now)
    _refuse_under_way(state, step, now)
    _refuse_unless_forward(state, step)
    if step.status not in (StepStatus.EXECUTING, StepStatus.REJECTED, StepStatus.UNKNOWN):
        refuse(state, Refusal.STEP_STATUS, f"step {retry.step_id!r} is {step.status.name}; only one that failed can be tried again")
    if step.execute is None and retry.input is None:
        message = f"step {retry.step_id!r} was not executed because its expression failed, which it would again; give it an input"
        refuse(state, Refusal.STEP_STATUS, message)
    had_no_effect = step.status is StepStatus.REJECTED or (step.status is StepStatus.EXECUTING and not step.in_doubt)
    if retry.input is not None and not had_no_effect:
        message = f"step {retry.step_id!r} may have taken effect with the input that it has; another one would be another business"
        refuse(state, Refusal.INPUT_FIXED, message)
    round_ = step.execute.round if step.execute is not None else 0
    is_new = step.status is StepStatus.REJECTED or retry.input is not None
    return (
        StepRetried(
            step_id=retry.step_id,
            direction=Direction.EXECUTE,
            round=round_ + 1 if is_new else round_,
            input=retry.input,
            reason=retry.reason,
            actor=retry.actor,
        ),
        *closed(state, lambda incident: incident.step_id == retry.step_id),
    )


def _retry_compensation(state: SagaState, step: StepState, retry: RetryStep, now: Instant) -> tuple[Fact, ...]:
    call = step.compensate
    assert call is not None, "a step whose compensation was due has a call"
    if retry.input is not None:
        refuse(state, Refusal.INPUT_FIXED, f"step {retry.step_id!r} is being undone: it is undone with the input that it was done with")
    _refuse_under_way(state, step, now)
    retried = StepRetried(
        step_id=retry.step_id, direction=Direction.COMPENSATE, round=call.round, input=None, reason=retry.reason, actor=retry.actor
    )
    return (retried, *closed(state, lambda incident: incident.step_id == retry.step_id))


def decide_resolution(plan: SagaPlan, state: SagaState, resolve: ResolveStep, now: Instant) -> tuple[Fact, ...]:
    """The step has ended as a person says."""
    step = _step_of(plan, state, resolve.step_id, "resolved")
    _refuse_under_way(state, step, now)
    resolution = resolve.resolution
    if isinstance(resolution, ResolvedSucceeded) and (problem := step.plan.check_output(resolution.output)):
        refuse(state, Refusal.TYPE_MISMATCH, f"step {resolve.step_id!r} cannot have succeeded so: {problem}")
    if state.cause is None or step is state.hook:
        _check_forward_resolution(plan, state, step, resolution)
    else:
        _check_backward_resolution(state, step, resolution)
    resolved = StepResolved(step_id=resolve.step_id, resolution=resolution, reason=resolve.reason, actor=resolve.actor)
    return (resolved, *closed(state, lambda incident: incident.step_id == resolve.step_id))


def _check_forward_resolution(plan: SagaPlan, state: SagaState, step: StepState, resolution: Resolution) -> None:
    step_id = step.plan.id
    is_done = step.is_at_rest and step.plan.kind is StepKind.BEST_EFFORT
    if step.status not in (StepStatus.EXECUTING, StepStatus.REJECTED, StepStatus.UNKNOWN) or is_done:
        refuse(state, Refusal.STEP_STATUS, f"step {step_id!r} is {step.status.name}, which nobody has to resolve")
    if isinstance(resolution, ResolvedSucceeded) and step.execute is None and step.plan.is_compensated:
        words = "it was never executed, so that there would be no key to undo it by; retry it with an input"
        refuse(state, Refusal.STEP_STATUS, f"step {step_id!r} cannot have succeeded: {words}")
    if isinstance(resolution, ResolvedCompensated):
        refuse(state, Refusal.STEP_STATUS, f"step {step_id!r} cannot be undone already: the saga has not turned back; cancel it first")
    if isinstance(resolution, ResolvedSkipped) and step.plan.kind is StepKind.PIVOT and state.turn_back_requested is not None:
        words = "the saga shall turn back if it had no effect (R10), which resolving it as rejected does; or resolve it as succeeded"
        refuse(state, Refusal.STEP_STATUS, f"step {step_id!r} cannot be left out: {words}")
    if isinstance(resolution, ResolvedRejected):
        if step is state.hook:
            words = "rejecting it changes nothing; resolve it as skipped or succeeded"
            refuse(state, Refusal.STEP_STATUS, f"step {step_id!r} is a hook: {words}")
        if has_passed(plan, state) and step.plan.kind is not StepKind.BEST_EFFORT:
            words = "it has passed its point of no return; resolve the step as skipped or succeeded"
            refuse(state, Refusal.NO_RETURN, f"step {step_id!r} cannot make saga {state.saga_id} turn back: {words}")


def _check_backward_resolution(state: SagaState, step: StepState, resolution: Resolution) -> None:
    step_id = step.plan.id
    if step.status not in (StepStatus.UNKNOWN, StepStatus.COMPENSATING, StepStatus.COMPENSATION_FAILED):
        refuse(state, Refusal.STEP_STATUS, f"step {step_id!r} is {step.status.name}, which nobody has to resolve")
    if step.output is not None and not isinstance(resolution, ResolvedCompensated):
        refuse(state, Refusal.STEP_STATUS, f"step {step_id!r} is known to have taken effect; it can only be resolved as compensated")


def decide_policy_change(plan: SagaPlan, state: SagaState, command: ChangePolicy) -> tuple[Fact, ...]:
    """The step is repeated in another way from now on."""
    _step_of(plan, state, command.step_id, "changed")
    return (StepPolicyChanged(step_id=command.step_id, change=command.change, reason=command.reason, actor=command.actor),)


def decide_output(plan: SagaPlan, state: SagaState, resolve: ResolveOutput) -> tuple[Fact, ...]:
    """The saga returns what a person says."""
    refuse_ended(state, "given an output")
    incident = state.find_open_incident(None, IncidentKind.EXPRESSION_FAILED)
    if incident is None:
        refuse(state, Refusal.SAGA_STATUS, f"the output of saga {state.saga_id} needs nobody: its expression has not failed")
    if problem := plan.check_saga_output(resolve.output):
        refuse(state, Refusal.TYPE_MISMATCH, f"saga {state.saga_id} cannot return that: {problem}")
    resolved = OutputResolved(output=resolve.output, reason=resolve.reason, actor=resolve.actor)
    return (resolved, IncidentClosed(id=incident.fact.id))


def _step_of(plan: SagaPlan, state: SagaState, step_id: StepId, command: str) -> StepState:
    """The step that a command is about. The hook of an ended saga can still be repaired; its steps cannot."""
    step = state.step(plan, step_id)
    if step is None:
        known = ", ".join(one.id for one in plan.steps)
        refuse(state, Refusal.NO_SUCH_STEP, f"saga {state.saga_id} has no step {step_id!r}; it has: {known}")
    if step is not state.hook:
        refuse_ended(state, command)
    return step


def _refuse_under_way(state: SagaState, step: StepState, now: Instant) -> None:
    """R17: nobody says how a step ends while its participant may still say it."""
    for status, call in ((StepStatus.EXECUTING, step.execute), (StepStatus.COMPENSATING, step.compensate)):
        if call is None:
            continue
        if call.may_be_unheard(now) and step.status in _UNSETTLED:  # nobody hears what becomes of that call (R12)
            words = "a call that was made before the coordinator was restarted may still be at work; wait until its time is over"
            refuse(state, Refusal.UNDER_WAY, f"step {step.plan.id!r}: {words}")
        if step.status is status and state.may_be_under_way(step, call, now):
            refuse(state, Refusal.UNDER_WAY, f"an attempt of step {step.plan.id!r} is under way; wait for its end")
    if step.early is not None:
        message = f"step {step.plan.id!r} was completed by its participant; that counts when its call has come to rest; wait for it"
        refuse(state, Refusal.UNDER_WAY, message)
    if step.status is StepStatus.ACCEPTED:
        message = f"step {step.plan.id!r} was accepted and may still be completed by its participant; wait until its time is over"
        refuse(state, Refusal.UNDER_WAY, message)


def _refuse_unless_forward(state: SagaState, step: StepState) -> None:
    if step is state.hook:
        return
    if state.cause is not None:
        refuse(state, Refusal.SAGA_STATUS, f"saga {state.saga_id} has turned back: it executes nothing any more")
    if step.is_at_rest and step.plan.kind is StepKind.BEST_EFFORT:
        message = f"step {step.plan.id!r} is BEST_EFFORT: the saga has gone on without it"
        refuse(state, Refusal.STEP_STATUS, message)
    if state.status not in (SagaStatus.RUNNING, SagaStatus.FAILED):
        refuse(state, Refusal.SAGA_STATUS, f"saga {state.saga_id} has not begun")
