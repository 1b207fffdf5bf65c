"""What a person can do about a saga now: found by asking the rules themselves, so that what is offered is never refused a moment later."""

from collections.abc import Iterator
from typing import Final

from coordinator.core.decide import decide
from coordinator.core.errors import CommandRefusedError, Refusal
from coordinator.core.inputs import (
    Acknowledge,
    Cancel,
    Command,
    Pause,
    Resolution,
    ResolvedCompensated,
    ResolvedRejected,
    ResolvedSkipped,
    ResolvedSucceeded,
    ResolveOutput,
    ResolveStep,
    Resume,
    RetryStep,
    Terminate,
)
from coordinator.core.plan import SagaPlan
from coordinator.core.state import SagaState, StepState
from coordinator.core.values import Instant, Payload, StepStatus

_ANY_PAYLOAD: Final = Payload("", b"")
"""Stands for what a person would give: whether it fits is another question."""
_STUCK: Final = frozenset({StepStatus.EXECUTING, StepStatus.REJECTED, StepStatus.UNKNOWN, StepStatus.COMPENSATING,
                           StepStatus.COMPENSATION_FAILED})  # fmt: skip


def find_choices(plan: SagaPlan, state: SagaState, now: Instant) -> tuple[str, ...]:
    """The commands that the saga would take now and that would change something, the most helpful first. Changes nothing."""
    return tuple(_find_all(plan, state, now))


def _find_all(plan: SagaPlan, state: SagaState, now: Instant) -> Iterator[str]:
    if _is_open(plan, state, Resume(), now):
        yield "ResumeSaga"
    if _is_open(plan, state, ResolveOutput(output=_ANY_PAYLOAD), now):
        yield "ResolveOutput"
    asked_for = {incident.fact.step_id for incident in state.incidents if incident.closed_at is None}
    steps = [step for step in (*state.steps, state.hook) if step is not None and step.status in _STUCK]
    for step in sorted(steps, key=lambda one: one.plan.id not in asked_for):
        yield from _find_for_step(plan, state, step, now)
    for incident in state.incidents:
        if _is_open(plan, state, Acknowledge(incident_id=incident.fact.id), now):
            yield f"AcknowledgeIncident {incident.fact.id}"
    for name, command in (("CancelSaga", Cancel()), ("PauseSaga", Pause()), ("TerminateSaga", Terminate())):
        if _is_open(plan, state, command, now):
            yield name


def _find_for_step(plan: SagaPlan, state: SagaState, step: StepState, now: Instant) -> Iterator[str]:
    step_id = step.plan.id
    as_it_is = _is_open(plan, state, RetryStep(step_id=step_id), now)
    with_input = _is_open(plan, state, RetryStep(step_id=step_id, input=Payload(step.plan.input_type, b"")), now)
    retry = as_it_is or with_input
    if retry:
        how = "" if not with_input else " (as it is or with an input)" if as_it_is else " (with an input)"
        yield f"RetryStep {step_id}{how}"
    resolutions = list(_find_resolutions(plan, state, step, now))
    if resolutions:
        yield f"ResolveStep {step_id} ({', '.join(resolutions)})"
    if retry and step.status in (StepStatus.EXECUTING, StepStatus.COMPENSATING):
        yield f"ChangeStepPolicy {step_id}"


def _find_resolutions(plan: SagaPlan, state: SagaState, step: StepState, now: Instant) -> Iterator[str]:
    candidates: tuple[tuple[str, Resolution], ...] = (
        ("succeeded", ResolvedSucceeded(Payload(step.plan.output_type, b""))),
        ("skipped", ResolvedSkipped()),
        ("rejected", ResolvedRejected()),
        ("compensated", ResolvedCompensated()),
    )
    for name, resolution in candidates:
        if _is_open(plan, state, ResolveStep(step_id=step.plan.id, resolution=resolution), now):
            yield name


def _is_open(plan: SagaPlan, state: SagaState, command: Command, now: Instant) -> bool:
    """Whether the saga would take a command, and whether that would change anything."""
    try:
        return bool(decide(plan, state, command, now))  # decides, and applies nothing
    except CommandRefusedError as refused:
        # A payload that stands for any other may not fit; all else is judged as for a skipped step, or was before.
        if refused.refusal is not Refusal.TYPE_MISMATCH:
            return False
    if isinstance(command, ResolveStep):
        return _is_open(plan, state, ResolveStep(step_id=command.step_id, resolution=ResolvedSkipped()), now)
    return True
