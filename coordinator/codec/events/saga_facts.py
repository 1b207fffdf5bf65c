"""Facts about a saga as a whole."""

from collections.abc import Callable
from typing import Any, Final

from coordinator.codec.events.parts import attempt_of, fill_attempt, optional_step, required_failure
from coordinator.codec.values import fill_any, fill_status, fill_timestamp, instant_of, payload_of
from coordinator.core.events import (
    Fact,
    IncidentClosed,
    IncidentOpened,
    SagaBegan,
    SagaCompensated,
    SagaCompleted,
    SagaFailed,
    SagaRecovered,
    SagaStarted,
    SagaTurnedBack,
    TurnBackRequested,
)
from coordinator.core.values import DefinitionKey, IncidentKind, TraceContext, TurnBackCause
from saga.v1 import saga_pb2


def _fill_saga_started(message: saga_pb2.Event, fact: SagaStarted) -> None:
    filled = message.saga_started
    if not fact.definition.name or not fact.definition.version:
        raise ValueError(f"a started saga names its definition and version, found {fact.definition}")
    filled.definition.name, filled.definition.version = fact.definition
    fill_any(filled.input, fact.input)
    if fact.labels:
        filled.labels.update(fact.labels)
    filled.idempotency_key = fact.idempotency_key
    if fact.start_at is not None:
        fill_timestamp(filled.start_at, fact.start_at)
    if fact.deadline is not None:
        fill_timestamp(filled.deadline, fact.deadline)
    filled.traceparent = fact.trace.traceparent
    filled.parent_traceparent = fact.trace.parent_traceparent
    filled.tracestate = fact.trace.tracestate


def _read_saga_started(message: saga_pb2.Event) -> SagaStarted:
    read = message.saga_started
    if not read.definition.name or not read.definition.version:
        raise ValueError("a started saga names its definition and version")
    if not read.HasField("input"):
        raise ValueError("the input is missing")
    return SagaStarted(
        definition=DefinitionKey(read.definition.name, read.definition.version),
        input=payload_of(read.input),
        labels=tuple(sorted(read.labels.items())),
        idempotency_key=read.idempotency_key,
        start_at=instant_of(read.start_at) if read.HasField("start_at") else None,
        deadline=instant_of(read.deadline) if read.HasField("deadline") else None,
        trace=TraceContext(traceparent=read.traceparent, parent_traceparent=read.parent_traceparent, tracestate=read.tracestate),
    )


def _fill_saga_began(message: saga_pb2.Event, _: SagaBegan) -> None:
    message.saga_began.SetInParent()


def _read_saga_began(_: saga_pb2.Event) -> SagaBegan:
    return SagaBegan()


def _fill_saga_turned_back(message: saga_pb2.Event, fact: SagaTurnedBack) -> None:
    filled = message.saga_turned_back
    filled.cause = saga_pb2.TurnBackCause.ValueType(fact.cause)
    filled.step_id = fact.step_id or ""
    fill_status(filled.error, fact.failure)
    fill_timestamp(filled.quiet_at, fact.quiet_at)
    filled.actor = fact.actor


def _read_saga_turned_back(message: saga_pb2.Event) -> SagaTurnedBack:
    read = message.saga_turned_back
    if not read.HasField("quiet_at"):
        raise ValueError("the instant at which the saga is quiet is missing")
    return SagaTurnedBack(
        cause=TurnBackCause(read.cause),
        step_id=optional_step(read.step_id),
        failure=required_failure(read),
        quiet_at=instant_of(read.quiet_at),
        actor=read.actor,
    )


def _fill_incident_opened(message: saga_pb2.Event, fact: IncidentOpened) -> None:
    filled = message.incident_opened.incident
    if not fact.id:
        raise ValueError("incidents count from 1, found 0")
    filled.id = fact.id
    filled.kind = saga_pb2.IncidentKind.ValueType(fact.kind)
    filled.step_id = fact.step_id or ""
    fill_status(filled.error, fact.failure)
    filled.opened_at.CopyFrom(message.occurred_at)


def _read_incident_opened(message: saga_pb2.Event) -> IncidentOpened:
    read = message.incident_opened.incident
    if not read.id:
        raise ValueError("the id of the incident is missing")
    return IncidentOpened(
        id=read.id,
        kind=IncidentKind(read.kind),
        step_id=optional_step(read.step_id),
        failure=required_failure(read),
    )


def _fill_saga_completed(message: saga_pb2.Event, fact: SagaCompleted) -> None:
    message.saga_completed.SetInParent()
    if fact.output is not None:
        fill_any(message.saga_completed.output, fact.output)


def _read_saga_completed(message: saga_pb2.Event) -> SagaCompleted:
    read = message.saga_completed
    return SagaCompleted(output=payload_of(read.output) if read.HasField("output") else None)


def _fill_saga_compensated(message: saga_pb2.Event, _: SagaCompensated) -> None:
    message.saga_compensated.SetInParent()


def _read_saga_compensated(_: saga_pb2.Event) -> SagaCompensated:
    return SagaCompensated()


def _fill_saga_failed(message: saga_pb2.Event, _: SagaFailed) -> None:
    message.saga_failed.SetInParent()


def _read_saga_failed(_: saga_pb2.Event) -> SagaFailed:
    return SagaFailed()


def _fill_saga_recovered(message: saga_pb2.Event, fact: SagaRecovered) -> None:
    filled = message.saga_recovered
    filled.SetInParent()
    for attempt in fact.in_doubt:
        fill_attempt(filled.in_doubt.add(), attempt, None)


def _read_saga_recovered(message: saga_pb2.Event) -> SagaRecovered:
    return SagaRecovered(in_doubt=tuple(attempt_of(attempt) for attempt in message.saga_recovered.in_doubt))


def _fill_turn_back_requested(message: saga_pb2.Event, fact: TurnBackRequested) -> None:
    filled = message.turn_back_requested
    filled.cause = saga_pb2.TurnBackCause.ValueType(fact.cause)
    filled.step_id = fact.step_id or ""
    fill_status(filled.error, fact.failure)
    filled.actor = fact.actor


def _read_turn_back_requested(message: saga_pb2.Event) -> TurnBackRequested:
    read = message.turn_back_requested
    return TurnBackRequested(
        cause=TurnBackCause(read.cause), step_id=optional_step(read.step_id), failure=required_failure(read), actor=read.actor
    )


def _fill_incident_closed(message: saga_pb2.Event, fact: IncidentClosed) -> None:
    filled = message.incident_closed
    filled.incident_id = _checked_incident(fact.id)
    filled.actor, filled.reason = fact.actor, fact.reason


def _read_incident_closed(message: saga_pb2.Event) -> IncidentClosed:
    read = message.incident_closed
    return IncidentClosed(id=_checked_incident(read.incident_id), reason=read.reason, actor=read.actor)


def _checked_incident(number: int) -> int:
    if not number:
        raise ValueError("incidents count from 1, found 0")
    return number


FILL: Final[dict[type[Fact], Callable[[saga_pb2.Event, Any], None]]] = {
    SagaStarted: _fill_saga_started,
    SagaBegan: _fill_saga_began,
    TurnBackRequested: _fill_turn_back_requested,
    SagaTurnedBack: _fill_saga_turned_back,
    IncidentOpened: _fill_incident_opened,
    IncidentClosed: _fill_incident_closed,
    SagaCompleted: _fill_saga_completed,
    SagaCompensated: _fill_saga_compensated,
    SagaFailed: _fill_saga_failed,
    SagaRecovered: _fill_saga_recovered,
}
READ: Final[dict[str, Callable[[saga_pb2.Event], Fact]]] = {
    "saga_started": _read_saga_started,
    "saga_began": _read_saga_began,
    "turn_back_requested": _read_turn_back_requested,
    "saga_turned_back": _read_saga_turned_back,
    "incident_opened": _read_incident_opened,
    "incident_closed": _read_incident_closed,
    "saga_completed": _read_saga_completed,
    "saga_compensated": _read_saga_compensated,
    "saga_failed": _read_saga_failed,
    "saga_recovered": _read_saga_recovered,
}
