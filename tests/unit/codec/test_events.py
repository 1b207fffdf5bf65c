"""Events as bytes: what is refused on the way in, and what on the way out."""

from enum import IntEnum
from typing import get_args

import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.internal.enum_type_wrapper import EnumTypeWrapper
from google.protobuf.timestamp_pb2 import Timestamp

from coordinator.codec import events
from coordinator.codec.events import decode_event, encode_event
from coordinator.codec.values import INSTANT_MAX
from coordinator.core.errors import CorruptJournalError
from coordinator.core.events import Event, Fact, IncidentOpened, SagaBegan, SagaCompleted, SagaStarted, StepSucceeded
from coordinator.core.values import (
    AttemptKey,
    AttemptOutcome,
    DefinitionKey,
    Direction,
    IncidentKind,
    Instant,
    Payload,
    SagaStatus,
    StepId,
    StepKind,
    StepStatus,
    TurnBackCause,
)
from saga.v1 import saga_pb2
from tests.builders import INPUT, SAGA, TRACE, at, attempt, failure

MIRRORED = [
    (SagaStatus, saga_pb2.SagaStatus, "SAGA_STATUS"),
    (StepStatus, saga_pb2.StepStatus, "STEP_STATUS"),
    (StepKind, saga_pb2.StepKind, "STEP_KIND"),
    (Direction, saga_pb2.Direction, "DIRECTION"),
    (AttemptOutcome, saga_pb2.AttemptOutcome, "ATTEMPT_OUTCOME"),
    (TurnBackCause, saga_pb2.TurnBackCause, "TURN_BACK_CAUSE"),
    (IncidentKind, saga_pb2.IncidentKind, "INCIDENT_KIND"),
]


@pytest.mark.parametrize(("core", "proto", "prefix"), MIRRORED, ids=[prefix for _, _, prefix in MIRRORED])
def test_enum_of_the_core_agrees_with_the_wire(core: type[IntEnum], proto: EnumTypeWrapper, prefix: str) -> None:
    ours = {f"{prefix}_{member.name}": int(member) for member in core}
    assert {f"{prefix}_UNSPECIFIED": 0, **ours} == dict(proto.items())


def test_every_fact_has_an_encoder_and_a_decoder() -> None:
    of_wire = {field.name for field in saga_pb2.Event.DESCRIPTOR.oneofs_by_name["fact"].fields}
    assert set(events._FILL) == set(get_args(Fact))
    assert set(events._READ) == of_wire


def test_occurrence_is_stored_to_the_microsecond() -> None:
    encoded = encode_event(SAGA, Event(7, Instant(1_700_000_000_123_456), SagaBegan()))
    assert saga_pb2.Event.FromString(encoded) == saga_pb2.Event(
        saga_id=SAGA,
        sequence=7,
        occurred_at=Timestamp(seconds=1_700_000_000, nanos=123_456_000),
        saga_began=saga_pb2.SagaBegan(),
    )


def test_instant_before_1970_keeps_its_nanoseconds_positive() -> None:
    event = Event(1, Instant(-1), SagaBegan())
    encoded = encode_event(SAGA, event)
    assert saga_pb2.Event.FromString(encoded).occurred_at == Timestamp(seconds=-1, nanos=999_999_000)
    assert decode_event(encoded) == event


def test_incident_carries_the_instant_of_its_event() -> None:
    fact = IncidentOpened(id=1, kind=IncidentKind.KEY_EXPIRED, step_id=None, failure=failure())
    message = saga_pb2.Event.FromString(encode_event(SAGA, Event(3, at(5), fact)))
    assert message.incident_opened.incident.opened_at == message.occurred_at


D1 = DefinitionKey("d", 1)


def started(*, definition: DefinitionKey = D1, labels: tuple[tuple[str, str], ...] = ()) -> SagaStarted:
    return SagaStarted(definition=definition, input=INPUT, labels=labels, idempotency_key="", start_at=None, deadline=None, trace=TRACE)


def test_labels_come_back_sorted() -> None:
    event = Event(1, at(0), started(labels=(("b", "2"), ("a", "1"))))
    assert decode_event(encode_event(SAGA, event)).fact == started(labels=(("a", "1"), ("b", "2")))


UNSTORABLE = {
    "sequence zero": Event(0, at(0), SagaBegan()),
    "sequence beyond 64 bits": Event(2**64, at(0), SagaBegan()),
    "instant after the year 9999": Event(1, Instant(INSTANT_MAX + 1), SagaBegan()),
    "lone surrogate": Event(1, at(0), started(definition=DefinitionKey("\ud800", 1))),
    "definition without a name": Event(1, at(0), started(definition=DefinitionKey("", 1))),
    "definition without a version": Event(1, at(0), started(definition=DefinitionKey("d", 0))),
    "attempt without a step": Event(1, at(0), StepSucceeded(attempt=attempt("", 1), sent_at=None, output=INPUT)),
    "attempt without a number": Event(1, at(0), StepSucceeded(attempt=attempt("a", 0), sent_at=None, output=INPUT)),
    "round beyond 32 bits": Event(
        1, at(0), StepSucceeded(attempt=AttemptKey(StepId("a"), Direction.EXECUTE, 2**32, 1), sent_at=None, output=INPUT)
    ),
    "incident without an id": Event(1, at(0), IncidentOpened(id=0, kind=IncidentKind.KEY_EXPIRED, step_id=None, failure=failure())),
}


@pytest.mark.parametrize("event", UNSTORABLE.values(), ids=UNSTORABLE.keys())
def test_event_that_could_not_be_read_again_is_not_encoded(event: Event) -> None:
    with pytest.raises((ValueError, TypeError)):
        encode_event(SAGA, event)


def wire(**fact: object) -> saga_pb2.Event:
    return saga_pb2.Event(saga_id=SAGA, sequence=1, occurred_at=Timestamp(seconds=1), **fact)  # type: ignore[arg-type]


ATTEMPT = saga_pb2.Attempt(step_id="a", direction=saga_pb2.DIRECTION_EXECUTE, round=1, number=1)
INCOMPLETE = {
    "no fact": wire(),
    "no instant": saga_pb2.Event(sequence=1, saga_began=saga_pb2.SagaBegan()),
    "no sequence": saga_pb2.Event(occurred_at=Timestamp(), saga_began=saga_pb2.SagaBegan()),
    "impossible nanoseconds": saga_pb2.Event(sequence=1, occurred_at=Timestamp(nanos=-1), saga_began=saga_pb2.SagaBegan()),
    "no input": wire(saga_started=saga_pb2.SagaStarted(definition=saga_pb2.DefinitionReference(name="d", version=1))),
    "no attempt": wire(step_succeeded=saga_pb2.StepSucceeded(output=AnyMessage(type_url="type.googleapis.com/x"))),
    "no output": wire(step_succeeded=saga_pb2.StepSucceeded(attempt=ATTEMPT)),
    "output without a type": wire(step_succeeded=saga_pb2.StepSucceeded(attempt=ATTEMPT, output=AnyMessage(type_url="x"))),
    "no error": wire(step_unknown=saga_pb2.StepUnknown(attempt=ATTEMPT)),
    "no cause": wire(saga_turned_back=saga_pb2.SagaTurnedBack(error={}, quiet_at=Timestamp())),
    "attempt of round zero": wire(saga_recovered=saga_pb2.SagaRecovered(in_doubt=[saga_pb2.Attempt(step_id="a", number=1)])),
    "no direction": wire(saga_recovered=saga_pb2.SagaRecovered(in_doubt=[saga_pb2.Attempt(step_id="a", round=1, number=1)])),
    "no incident": wire(incident_opened=saga_pb2.IncidentOpened()),
}


@pytest.mark.parametrize("message", INCOMPLETE.values(), ids=INCOMPLETE.keys())
def test_incomplete_event_is_corrupt(message: saga_pb2.Event) -> None:
    with pytest.raises(CorruptJournalError):
        decode_event(message.SerializeToString())


def test_fact_of_a_newer_version_is_corrupt() -> None:
    field_of_tomorrow = b"\xf2\x0c\x00"  # field 206, an empty message
    with pytest.raises(CorruptJournalError, match="newer"):
        decode_event(wire().SerializeToString() + field_of_tomorrow)


def test_output_without_a_value_is_an_empty_payload() -> None:
    event = Event(1, at(0), SagaCompleted(output=Payload("google.protobuf.Empty", b"")))
    assert decode_event(encode_event(SAGA, event)) == event
