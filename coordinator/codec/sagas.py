"""Sagas as the API shows them."""

from typing import Final

from google.protobuf.any_pb2 import Any

from coordinator.codec.values import fill_any, fill_timestamp, to_status, to_timestamp
from coordinator.core.events import IncidentOpened
from coordinator.core.plan import SagaPlan
from coordinator.core.state import IncidentState, PersonAction, SagaState, StepState
from coordinator.core.values import Failure, IncidentKind, Instant, Payload, SagaStatus, StepStatus
from coordinator.engine.ports import StoredIncident, StoredSaga
from saga.v1 import operator_pb2, saga_pb2

PAYLOAD_BYTES_SHOWN_MAX: Final = 3 * 1024 * 1024
"""Payloads of one saga in one message, which may be 4 MiB."""
_NONE: Final = -1
"""Not even an empty payload fits."""


class _Payloads:
    """Adds payloads to a message for as long as they fit into it: a saga may hold more than one message can carry."""

    def __init__(self, bytes_max: int) -> None:
        self.omitted = False
        self._left = bytes_max

    def add(self, field: Any, payload: Payload | None) -> None:
        """Writes the payload into an empty field, or leaves the field unset."""
        if payload is None:
            return
        self._left -= len(payload.value)
        if self._left < 0:
            self.omitted = True
        else:
            fill_any(field, payload)


# ── As the journal's events have it ──────────────────────────────────────────────────────────────────────────────────────────────


def saga_message(plan: SagaPlan, state: SagaState) -> saga_pb2.Saga:
    """One saga with everything that is known of it."""
    payloads = _Payloads(PAYLOAD_BYTES_SHOWN_MAX)
    saga = _whole(plan, state, payloads)
    saga.payloads_omitted = payloads.omitted
    return saga


def saga_outcome(plan: SagaPlan, state: SagaState) -> saga_pb2.Saga:
    """The same for whoever only wants to know how it ended: of one that is COMPLETED without its input and steps, which is most of it."""
    if state.status is not SagaStatus.COMPLETED:
        return saga_message(plan, state)
    saga, payloads = saga_summary(plan, state), _Payloads(PAYLOAD_BYTES_SHOWN_MAX)
    payloads.add(saga.output, state.output)
    _fill_aftermath(saga, state, payloads)
    saga.payloads_omitted = payloads.omitted
    return saga


def saga_without_payloads(plan: SagaPlan, state: SagaState) -> saga_pb2.Saga:
    """One saga with its steps and incidents, but without what it and they were given and returned."""
    return _whole(plan, state, _Payloads(_NONE))


def _whole(plan: SagaPlan, state: SagaState, payloads: _Payloads) -> saga_pb2.Saga:
    saga = saga_summary(plan, state)
    payloads.add(saga.input, state.input)
    payloads.add(saga.output, state.output)
    for step in state.steps:
        _fill_step_result(saga.steps.add(), state, step, payloads)
    _fill_aftermath(saga, state, payloads)
    return saga


def _fill_aftermath(saga: saga_pb2.Saga, state: SagaState, payloads: _Payloads) -> None:
    if state.hook is not None:
        _fill_step_result(saga.hook, state, state.hook, payloads)
    saga.incidents.extend(incident_message(incident) for incident in state.incidents)


def saga_summary(plan: SagaPlan, state: SagaState) -> saga_pb2.Saga:
    """One saga without steps and payloads."""
    assert state.status is not None, "only a saga that exists is shown"
    saga = saga_pb2.Saga(
        id=state.saga_id,
        definition=saga_pb2.DefinitionReference(name=plan.key.name, version=plan.key.version),
        status=saga_pb2.SagaStatus.ValueType(state.status),
        error=None if state.failure is None else to_status(state.failure),
        cause=saga_pb2.TurnBackCause.ValueType(state.cause or 0),
        created_at=to_timestamp(state.created_at),
        labels=dict(state.labels),
        sequence=state.sequence,
        traceparent=state.trace.traceparent,
        idempotency_key=state.idempotency_key,
        failed_step_id=state.failed_step or "",
        paused=None if state.paused is None else person_message(state.paused),
        terminated=None if state.terminated is None else person_message(state.terminated),
        needs_person=state.needs_person,
    )
    _fill_instants(saga, state)
    requested = state.turn_back_requested
    if requested is not None:
        wish = saga.turn_back_requested
        wish.cause = saga_pb2.TurnBackCause.ValueType(requested.cause)
        wish.step_id, wish.actor = requested.step_id or "", requested.actor
        wish.error.CopyFrom(to_status(requested.failure))
    return saga


def person_message(action: PersonAction) -> saga_pb2.PersonAction:
    """Who did something, why, and when."""
    return saga_pb2.PersonAction(actor=action.actor, reason=action.reason, occurred_at=to_timestamp(action.at))


def incident_message(incident: IncidentState) -> saga_pb2.Incident:
    """One incident of a saga."""
    return _incident(incident.fact, incident.opened_at, incident.closed_at)


def _incident(fact: IncidentOpened, opened_at: Instant, closed_at: Instant | None) -> saga_pb2.Incident:
    return saga_pb2.Incident(
        id=fact.id,
        kind=saga_pb2.IncidentKind.ValueType(fact.kind),
        step_id=fact.step_id or "",
        error=to_status(fact.failure),
        opened_at=to_timestamp(opened_at),
        closed_at=None if closed_at is None else to_timestamp(closed_at),
    )


def _fill_instants(saga: saga_pb2.Saga, state: SagaState) -> None:
    if state.started_at is not None:
        fill_timestamp(saga.started_at, state.started_at)
    if state.ended_at is not None:
        fill_timestamp(saga.ended_at, state.ended_at)
    if state.deadline is not None:
        fill_timestamp(saga.deadline, state.deadline)
    if state.start_at is not None:
        fill_timestamp(saga.start_at, state.start_at)


def _fill_step_result(result: saga_pb2.StepResult, state: SagaState, step: StepState, payloads: _Payloads) -> None:
    result.id, result.action = step.plan.id, step.plan.action
    result.kind = saga_pb2.StepKind.ValueType(step.plan.kind)
    result.status = saga_pb2.StepStatus.ValueType(step.status)
    if step.execute is not None:
        result.execute_attempts, result.round = step.execute.number, step.execute.round
        fill_timestamp(result.started_at, step.execute.due_at)
    if step.compensate is not None:
        result.compensate_attempts = step.compensate.number
    payloads.add(result.input, step.input)
    payloads.add(result.output, step.output)
    payloads.add(result.progress, step.progress)
    if step.ended_at is not None:
        fill_timestamp(result.ended_at, step.ended_at)
    if step.accepted_until is not None:
        fill_timestamp(result.accepted_until, step.accepted_until)
    if step.resolved is not None:
        result.resolved.CopyFrom(person_message(step.resolved))
    _add_last_attempt(result, state, step)


def _add_last_attempt(result: saga_pb2.StepResult, state: SagaState, step: StepState) -> None:
    calls = [call.failure for call in (step.compensate, step.execute) if call is not None]
    failures = [failure for failure in (*calls, step.failure) if failure is not None]
    if failures and step.status is not StepStatus.SUCCEEDED:
        result.error.CopyFrom(to_status(failures[0]))
    current = {StepStatus.EXECUTING: step.execute, StepStatus.COMPENSATING: step.compensate}.get(step.status)
    if current is not None and current.retry_at is not None and state.is_unfinished and state.paused is None:
        fill_timestamp(result.next_attempt_at, current.retry_at)


# ── As its rows have it ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def stored_summary(saga: StoredSaga) -> saga_pb2.Saga:
    """One saga as its row has it: for lists.

    Of a paused one the row does not say by whom: `paused` is set, and empty.
    """
    summary = saga_pb2.Saga(
        id=saga.saga_id,
        definition=saga_pb2.DefinitionReference(name=saga.definition.name, version=saga.definition.version),
        status=saga_pb2.SagaStatus.ValueType(saga.status),
        error=None if saga.quarantined is None else to_status(saga.quarantined),
        created_at=to_timestamp(saga.created_at),
        ended_at=None if saga.ended_at is None else to_timestamp(saga.ended_at),
        labels=dict(saga.labels),
        needs_person=saga.needs_person,
    )
    if saga.is_paused:
        summary.paused.SetInParent()
    return summary


def quarantined_message(saga: StoredSaga, failure: Failure) -> saga_pb2.Saga:
    """One saga that the journal has set aside: as its row has it, because its events may be what cannot be read."""
    summary = stored_summary(saga)
    incident = IncidentOpened(id=0, kind=IncidentKind.QUARANTINED, step_id=None, failure=failure)
    summary.incidents.append(_incident(incident, saga.created_at, None))
    return summary


def stored_incident_message(incident: StoredIncident) -> operator_pb2.SagaIncident:
    """One incident as its row has it, with the saga that it belongs to."""
    fact = IncidentOpened(id=incident.id, kind=incident.kind, step_id=incident.step_id, failure=incident.failure)
    return operator_pb2.SagaIncident(
        saga_id=incident.saga_id,
        definition=saga_pb2.DefinitionReference(name=incident.definition.name, version=incident.definition.version),
        status=saga_pb2.SagaStatus.ValueType(incident.status),
        incident=_incident(fact, incident.opened_at, incident.closed_at),
    )
