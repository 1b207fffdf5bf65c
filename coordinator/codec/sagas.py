"""Sagas as the API shows them."""

from typing import Final

from google.protobuf.any_pb2 import Any

from coordinator.codec.values import fill_any, fill_timestamp, to_status, to_timestamp
from coordinator.core.events import IncidentOpened
from coordinator.core.plan import SagaPlan, StepPlan
from coordinator.core.state import SagaState, StepState
from coordinator.core.values import Instant, Payload, SagaStatus, StepStatus
from coordinator.engine.ports import StoredSaga
from saga.v1 import saga_pb2

PAYLOAD_BYTES_SHOWN_MAX: Final = 3 * 1024 * 1024
"""Payloads of one saga in one message, which may be 4 MiB."""

_IN_MOTION = frozenset({StepStatus.EXECUTING, StepStatus.COMPENSATING})


class _Payloads:
    """Adds payloads to a message for as long as they fit into it: a saga may hold more than one message can carry."""

    def __init__(self) -> None:
        self.omitted = False
        self._left = PAYLOAD_BYTES_SHOWN_MAX

    def add(self, field: Any, payload: Payload) -> None:
        """Writes the payload into an empty field, or leaves the field unset."""
        self._left -= len(payload.value)
        if self._left < 0:
            self.omitted = True
        else:
            fill_any(field, payload)


def saga_message(plan: SagaPlan, state: SagaState) -> saga_pb2.Saga:
    """One saga with everything that is known of it."""
    saga, payloads = saga_summary(plan, state), _Payloads()
    payloads.add(saga.input, state.input)
    if state.output is not None:
        payloads.add(saga.output, state.output)
    for index, step_plan in enumerate(plan.steps):
        _fill_step_result(saga.steps.add(), state, step_plan, index, payloads)
    saga.payloads_omitted = payloads.omitted
    saga.incidents.extend(incident_message(opened_at, incident) for opened_at, incident in state.incidents)
    return saga


def saga_summary(plan: SagaPlan, state: SagaState) -> saga_pb2.Saga:
    """One saga without steps and payloads."""
    assert state.status is not None, "only a saga that exists is shown"
    return saga_pb2.Saga(
        id=state.saga_id,
        definition=saga_pb2.DefinitionReference(name=plan.key.name, version=plan.key.version),
        status=saga_pb2.SagaStatus.ValueType(state.status),
        error=None if state.failure is None else to_status(state.failure),
        cause=saga_pb2.TurnBackCause.ValueType(state.cause or 0),
        created_at=to_timestamp(state.created_at),
        started_at=None if state.started_at is None else to_timestamp(state.started_at),
        ended_at=None if state.ended_at is None else to_timestamp(state.ended_at),
        deadline=None if state.deadline is None else to_timestamp(state.deadline),
        labels=dict(state.labels),
        sequence=state.sequence,
        traceparent=state.trace.traceparent,
        idempotency_key=state.idempotency_key,
        failed_step_id=state.failed_step or "",
    )


def stored_summary(saga: StoredSaga) -> saga_pb2.Saga:
    """One saga as its row has it: for lists."""
    return saga_pb2.Saga(
        id=saga.saga_id,
        definition=saga_pb2.DefinitionReference(name=saga.definition.name, version=saga.definition.version),
        status=saga_pb2.SagaStatus.ValueType(saga.status),
        error=None if saga.quarantined is None else to_status(saga.quarantined),
        created_at=to_timestamp(saga.created_at),
        ended_at=None if saga.ended_at is None else to_timestamp(saga.ended_at),
        labels=dict(saga.labels),
    )


def incident_message(opened_at: Instant, incident: IncidentOpened) -> saga_pb2.Incident:
    """One incident."""
    return saga_pb2.Incident(
        id=incident.id,
        kind=saga_pb2.IncidentKind.ValueType(incident.kind),
        step_id=incident.step_id or "",
        error=to_status(incident.failure),
        opened_at=to_timestamp(opened_at),
    )


def _fill_step_result(result: saga_pb2.StepResult, state: SagaState, plan: StepPlan, index: int, payloads: _Payloads) -> None:
    step = state.steps[index]
    execute, compensate = step.execute, step.compensate
    result.id, result.action = plan.id, plan.action
    result.kind = saga_pb2.StepKind.ValueType(plan.kind)
    result.status = saga_pb2.StepStatus.ValueType(step.status)
    if execute is not None:
        result.execute_attempts = execute.number
        payloads.add(result.input, plan.input(state))
        fill_timestamp(result.started_at, execute.due_at)
    if compensate is not None:
        result.compensate_attempts = compensate.number
    if step.output is not None:
        payloads.add(result.output, step.output)
    if step.ended_at is not None:
        fill_timestamp(result.ended_at, step.ended_at)
    _add_last_attempt(result, state.status, step)


def _add_last_attempt(result: saga_pb2.StepResult, status: SagaStatus | None, step: StepState) -> None:
    current = step.compensate or step.execute
    if current is None:
        return
    failures = [call.failure for call in (step.compensate, step.execute) if call is not None and call.failure is not None]
    if failures and step.status is not StepStatus.SUCCEEDED:
        result.error.CopyFrom(to_status(failures[0]))
    if step.status in _IN_MOTION and status in (SagaStatus.RUNNING, SagaStatus.COMPENSATING) and current.retry_at is not None:
        result.next_attempt_at.CopyFrom(to_timestamp(current.retry_at))
