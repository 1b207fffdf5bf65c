"""Whether a whole saga may be cancelled, paused, resumed or terminated, and what that makes of it (R10, R15)."""

from coordinator.core.backward import turn_back
from coordinator.core.errors import Refusal
from coordinator.core.events import Fact, IncidentClosed, SagaPaused, SagaResumed, SagaTerminated
from coordinator.core.incidents import closed
from coordinator.core.inputs import Acknowledge, Cancel, Pause, Resume, Terminate
from coordinator.core.plan import SagaPlan
from coordinator.core.point_of_no_return import has_passed
from coordinator.core.refusals import refuse, refuse_ended
from coordinator.core.state import SagaState
from coordinator.core.values import Code, Failure, IncidentKind, Instant, SagaStatus, TurnBackCause


def decide_cancel(plan: SagaPlan, state: SagaState, cancel: Cancel, now: Instant) -> tuple[Fact, ...]:
    """Turns the saga back, or records that it shall; nothing if it does already."""
    if state.terminated is None and state.cause is TurnBackCause.CANCELLED:
        return ()
    refuse_ended(state, "cancelled")
    if state.cause is not None:
        return ()  # turning back already
    if has_passed(plan, state):
        message = f"saga {state.saga_id} cannot be cancelled: it has passed its point of no return and only goes forward"
        refuse(state, Refusal.NO_RETURN, message)
    failure = Failure(Code.CANCELLED, cancel.reason or "cancelled")
    return turn_back(plan, state, now, cause=TurnBackCause.CANCELLED, failure=failure, actor=cancel.actor)


def decide_pause(state: SagaState, pause: Pause) -> tuple[Fact, ...]:
    """Stops the saga; nothing if it is stopped already."""
    refuse_ended(state, "paused")
    if state.status is SagaStatus.FAILED:
        message = f"saga {state.saga_id} cannot be paused: it is FAILED, nothing of it moves until a person retries or resolves a step"
        refuse(state, Refusal.SAGA_STATUS, message)
    return () if state.paused is not None else (SagaPaused(reason=pause.reason, actor=pause.actor),)


def decide_resume(state: SagaState, resume: Resume) -> tuple[Fact, ...]:
    """Lets the saga go on; nothing if it is not stopped."""
    refuse_ended(state, "resumed")
    return () if state.paused is None else (SagaResumed(reason=resume.reason, actor=resume.actor),)


def decide_terminate(state: SagaState, terminate: Terminate) -> tuple[Fact, ...]:
    """Ends the saga as it stands; nothing if that was done already."""
    if state.terminated is not None:
        return ()
    refuse_ended(state, "terminated")
    return (SagaTerminated(reason=terminate.reason, actor=terminate.actor), *closed(state, lambda incident: True))


def decide_acknowledgement(state: SagaState, acknowledge: Acknowledge) -> tuple[Fact, ...]:
    """Closes an incident that asks for nothing but to be known, in whatever status the saga is; nothing if it is closed already."""
    incident = next((one for one in state.incidents if one.fact.id == acknowledge.incident_id), None)
    if incident is None:
        message = f"saga {state.saga_id} has no incident {acknowledge.incident_id}"
        refuse(state, Refusal.NO_SUCH_INCIDENT, message)
    if incident.closed_at is not None:
        return ()
    if incident.fact.kind is not IncidentKind.LATE_OUTCOME:
        words = "it is closed by what you do about it: retry or resolve the step, or cancel or terminate the saga"
        message = f"incident {incident.fact.id} of saga {state.saga_id} is {incident.fact.kind.name}; {words}"
        refuse(state, Refusal.SAGA_STATUS, message)
    return (IncidentClosed(id=incident.fact.id, reason=acknowledge.reason, actor=acknowledge.actor),)
