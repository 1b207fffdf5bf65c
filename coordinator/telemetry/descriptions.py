"""What log lines and moments on spans say about facts and consequences that end no attempt: read off them once, here."""

from dataclasses import fields as dataclass_fields
from typing import Final, NamedTuple, assert_never

from coordinator.core.events import (
    IncidentClosed,
    IncidentOpened,
    LateOutcome,
    OutputResolved,
    SagaPaused,
    SagaRecovered,
    SagaResumed,
    SagaTerminated,
    SagaTurnedBack,
    StepCompletedEarly,
    StepLeftOut,
    StepPolicyChanged,
    StepResolved,
    StepRetried,
    StepUnfit,
    TurnBackRequested,
)
from coordinator.core.inputs import (
    PolicyChange,
    Resolution,
    ResolvedCompensated,
    ResolvedRejected,
    ResolvedSkipped,
    ResolvedSucceeded,
)
from coordinator.core.values import Failure, StepId
from coordinator.telemetry import names
from coordinator.telemetry.attempts import code_name, ending_of

Fields = dict[str, str | bool | int]
"""By names of `telemetry.names`. Never payloads."""

PersonFact = SagaPaused | SagaResumed | SagaTerminated | StepRetried | StepResolved | StepPolicyChanged | OutputResolved
"""What only a person does."""
Described = (
    SagaTurnedBack
    | TurnBackRequested
    | SagaRecovered
    | IncidentOpened
    | IncidentClosed
    | StepCompletedEarly
    | LateOutcome
    | StepLeftOut
    | StepUnfit
    | PersonFact
)

_RESOLUTIONS: Final[dict[type[Resolution], str]] = {
    ResolvedSucceeded: "SUCCEEDED",
    ResolvedSkipped: "SKIPPED",
    ResolvedRejected: "REJECTED",
    ResolvedCompensated: "COMPENSATED",
}
_POLICY_PARTS: Final = tuple(field.name for field in dataclass_fields(PolicyChange))


class Description(NamedTuple):
    """What is said."""

    words: str
    fields: Fields


def describe(described: Described) -> Description:
    """What is said about a fact or a consequence."""
    match described:
        case SagaTurnedBack():
            return Description(names.MOMENT_TURNED_BACK, _fields_of_turning_back(described))
        case TurnBackRequested():
            return Description(names.MOMENT_TURN_BACK_REQUESTED, _fields_of_turning_back(described))
        case SagaRecovered():
            return Description(names.MOMENT_RECOVERED, {names.SAGA_IN_DOUBT: len(described.in_doubt)})
        case IncidentOpened():
            fields: Fields = {names.SAGA_INCIDENT_ID: described.id, names.SAGA_INCIDENT_KIND: described.kind.name}
            return Description(names.MOMENT_INCIDENT, fields | step_field(described.step_id) | failure_fields(described.failure))
        case IncidentClosed():
            return Description(names.MOMENT_INCIDENT_CLOSED, {names.SAGA_INCIDENT_ID: described.id})
        case StepCompletedEarly():
            return Description(names.MOMENT_COMPLETED_EARLY, {names.SAGA_STEP: described.step_id, names.SAGA_ROUND: described.round})
        case LateOutcome():
            return Description(names.MOMENT_LATE, _fields_of_late(described))
        case StepLeftOut():
            return Description(names.MOMENT_LEFT_OUT, step_field(described.step_id))
        case StepUnfit():
            return Description(names.MOMENT_UNFIT, step_field(described.step_id) | failure_fields(described.failure))
        case _:
            return _describe_person(described)


def _describe_person(fact: PersonFact) -> Description:
    by: Fields = {names.SAGA_ACTOR: fact.actor, names.SAGA_REASON: fact.reason}
    match fact:
        case SagaPaused():
            return Description(names.MOMENT_PAUSED, by)
        case SagaResumed():
            return Description(names.MOMENT_RESUMED, by)
        case SagaTerminated():
            return Description(names.MOMENT_TERMINATED, by)
        case StepRetried():
            fields: Fields = {names.SAGA_DIRECTION: fact.direction.name, names.SAGA_ROUND: fact.round}
            return Description(
                names.MOMENT_RETRIED, step_field(fact.step_id) | fields | {names.SAGA_INPUT_CHANGED: fact.input is not None} | by
            )
        case StepResolved():
            return Description(
                names.MOMENT_RESOLVED, step_field(fact.step_id) | {names.SAGA_RESOLUTION: _RESOLUTIONS[type(fact.resolution)]} | by
            )
        case StepPolicyChanged():
            changed = ", ".join(part for part in _POLICY_PARTS if getattr(fact.change, part) is not None)
            return Description(names.MOMENT_POLICY_CHANGED, step_field(fact.step_id) | {names.SAGA_POLICY_CHANGED: changed} | by)
        case OutputResolved():
            return Description(names.MOMENT_OUTPUT_RESOLVED, by)
        case _:
            assert_never(fact)


def failure_fields(failure: Failure) -> Fields:
    """Why something did not go well."""
    return {names.ERROR_TYPE: code_name(failure.code), names.ERROR_MESSAGE: failure.message}


def step_field(step_id: StepId | None) -> Fields:
    """Which step; nothing if it is about none."""
    return {} if step_id is None else {names.SAGA_STEP: step_id}


def _fields_of_turning_back(fact: SagaTurnedBack | TurnBackRequested) -> Fields:
    fields: Fields = {names.SAGA_CAUSE: fact.cause.name}
    by: Fields = {names.SAGA_ACTOR: fact.actor} if fact.actor else {}
    return fields | step_field(fact.step_id) | failure_fields(fact.failure) | by


def _fields_of_late(fact: LateOutcome) -> Fields:
    attempt = fact.attempt
    outcome, failure = ending_of(fact)
    fields: Fields = {
        names.SAGA_STEP: attempt.step_id,
        names.SAGA_ATTEMPT: attempt.number,
        names.SAGA_ROUND: attempt.round,
        names.SAGA_DIRECTION: attempt.direction.name,
        names.SAGA_OUTCOME: outcome,
    }
    return fields | ({} if failure is None else failure_fields(failure))
