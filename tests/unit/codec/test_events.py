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
from coordinator.core.events import (
    Event,
    Fact,
    IncidentClosed,
    IncidentOpened,
    LateOutcome,
    SagaBegan,
    SagaCompleted,
    SagaPaused,
    SagaStarted,
    StepCompletedEarly,
    StepDue,
    StepHeartbeat,
    StepLeftOut,
    StepPolicyChanged,
    StepResolved,
    StepRetried,
    StepSucceeded,
    StepUnfit,
)
from coordinator.core.inputs import PolicyChange, Rejected, ResolvedSkipped, Succeeded
from coordinator.core.plan import RetryPolicy
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
A, NOBODY = StepId("a"), StepId("")


def started(*, definition: DefinitionKey = D1, labels: tuple[tuple[str, str], ...] = ()) -> SagaStarted:
    return SagaStarted(definition=definition, input=INPUT, labels=labels, idempotency_key="", start_at=None, deadline=None, trace=TRACE)


def test_steps_that_are_reached_are_told_with_what_follows() -> None:  # R3
    reached = (
        StepDue(StepId("a"), INPUT),
        StepDue(StepId("b"), None),
        StepLeftOut(StepId("c")),
        StepUnfit(StepId("d"), failure(11, "division by zero")),
    )
    message = saga_pb2.Event.FromString(encode_event(SAGA, Event(2, at(1), SagaBegan(), reached)))
    assert [(one.step_id, one.WhichOneof("consequence")) for one in message.reached] == [
        ("a", "input"),
        ("b", "input_copied"),
        ("c", "left_out"),
        ("d", "error"),
    ]
    assert (message.reached[0].input.value, message.reached[3].error.message) == (INPUT.value, "division by zero")


def test_event_that_reaches_nothing_is_as_short_as_before() -> None:
    message = saga_pb2.Event.FromString(encode_event(SAGA, Event(2, at(1), SagaBegan())))
    assert not message.reached
    assert decode_event(message.SerializeToString()).reached == ()


def test_command_without_words_is_told_too() -> None:
    event = Event(2, at(1), SagaPaused(reason="", actor=""))
    assert decode_event(encode_event(SAGA, event)) == event


def test_changed_policy_keeps_its_defaults_when_those_change() -> None:
    change = PolicyChange(execute_retry=RetryPolicy(attempts_max=3))
    message = saga_pb2.Event.FromString(encode_event(SAGA, Event(2, at(1), policy_changed(change))))
    written = message.step_policy_changed.policy.execute_retry
    assert (written.max_attempts, written.initial_backoff.nanos, written.multiplier, written.max_backoff.seconds) == (3, 200_000_000, 2, 30)
    assert not message.step_policy_changed.policy.HasField("compensate_retry")


def policy_changed(change: PolicyChange) -> StepPolicyChanged:
    return StepPolicyChanged(step_id=A, change=change, reason="it is slow today", actor="ann")


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
    "reached without a step": Event(1, at(0), SagaBegan(), (StepLeftOut(NOBODY),)),
    "heartbeat without a step": Event(1, at(0), StepHeartbeat(step_id=NOBODY, accepted_until=at(1), progress=None)),
    "completion of round zero": Event(1, at(0), StepCompletedEarly(step_id=A, round=0, result=Succeeded(output=INPUT))),
    "late outcome without a step": Event(1, at(0), LateOutcome(attempt=attempt("", 1), sent_at=None, outcome=None)),
    "retry without a step": Event(
        1, at(0), StepRetried(step_id=NOBODY, direction=Direction.EXECUTE, round=1, input=None, reason="", actor="")
    ),
    "retry of round zero": Event(1, at(0), StepRetried(step_id=A, direction=Direction.EXECUTE, round=0, input=None, reason="", actor="")),
    "resolution without a step": Event(1, at(0), StepResolved(step_id=NOBODY, resolution=ResolvedSkipped(), reason="", actor="")),
    "negative backoff": Event(1, at(0), policy_changed(PolicyChange(execute_retry=RetryPolicy(initial_backoff_us=-1)))),
    "backoff that shrinks": Event(1, at(0), policy_changed(PolicyChange(compensate_retry=RetryPolicy(multiplier=0.5)))),
    "backoff beyond all bounds": Event(1, at(0), policy_changed(PolicyChange(execute_retry=RetryPolicy(multiplier=float("inf"))))),
    "negative timeout": Event(1, at(0), policy_changed(PolicyChange(attempt_timeout_us=-1))),
    "time limit of ages": Event(1, at(0), policy_changed(PolicyChange(recovery_time_limit_us=2**62))),
    "closed incident without an id": Event(1, at(0), IncidentClosed(id=0)),
    "incident without an id": Event(1, at(0), IncidentOpened(id=0, kind=IncidentKind.KEY_EXPIRED, step_id=None, failure=failure())),
}


@pytest.mark.parametrize("event", UNSTORABLE.values(), ids=UNSTORABLE.keys())
def test_event_that_could_not_be_read_again_is_not_encoded(event: Event) -> None:
    with pytest.raises((ValueError, TypeError)):
        encode_event(SAGA, event)


def wire(**fact: object) -> saga_pb2.Event:
    return saga_pb2.Event(saga_id=SAGA, sequence=1, occurred_at=Timestamp(seconds=1), **fact)  # type: ignore[arg-type]


def reaching(*reached: saga_pb2.StepReached) -> saga_pb2.Event:
    return saga_pb2.Event(sequence=1, occurred_at=Timestamp(seconds=1), saga_began=saga_pb2.SagaBegan(), reached=reached)


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
    "no closed incident": wire(incident_closed=saga_pb2.IncidentClosed()),
    "accepted for ever": wire(step_accepted=saga_pb2.StepAccepted(attempt=ATTEMPT)),
    "accepted by nobody": wire(step_accepted=saga_pb2.StepAccepted(accepted_until=Timestamp())),
    "heartbeat for ever": wire(step_heartbeat=saga_pb2.StepHeartbeat(step_id="a")),
    "heartbeat of no step": wire(step_heartbeat=saga_pb2.StepHeartbeat(accepted_until=Timestamp())),
    "completion without a result": wire(step_completed_early=saga_pb2.StepCompletedEarly(step_id="a", round=1)),
    "completion without a round": wire(
        step_completed_early=saga_pb2.StepCompletedEarly(step_id="a", rejected=saga_pb2.CompletionRejected(error={}))
    ),
    "rejected completion without an error": wire(
        step_completed_early=saga_pb2.StepCompletedEarly(step_id="a", round=1, rejected=saga_pb2.CompletionRejected(sealed=True))
    ),
    "late outcome that says nothing": wire(late_outcome=saga_pb2.LateOutcome(attempt=ATTEMPT)),
    "late outcome of no attempt": wire(late_outcome=saga_pb2.LateOutcome(compensated=saga_pb2.LateCompensation())),
    "request to turn back without a cause": wire(turn_back_requested=saga_pb2.TurnBackRequested(error={})),
    "request to turn back without an error": wire(turn_back_requested=saga_pb2.TurnBackRequested(cause=saga_pb2.TURN_BACK_CAUSE_CANCELLED)),
    "retry of no step": wire(step_retried=saga_pb2.StepRetried(direction=saga_pb2.DIRECTION_EXECUTE, round=1)),
    "retry without a direction": wire(step_retried=saga_pb2.StepRetried(step_id="a", round=1)),
    "retry without a round": wire(step_retried=saga_pb2.StepRetried(step_id="a", direction=saga_pb2.DIRECTION_EXECUTE)),
    "resolution that says nothing": wire(step_resolved=saga_pb2.StepResolved(step_id="a")),
    "resolution of no step": wire(step_resolved=saga_pb2.StepResolved(skipped=saga_pb2.ResolvedSkipped())),
    "policy that is missing": wire(step_policy_changed=saga_pb2.StepPolicyChanged(step_id="a")),
    "policy of no step": wire(step_policy_changed=saga_pb2.StepPolicyChanged(policy=saga_pb2.StepPolicy())),
    "output that is missing": wire(output_resolved=saga_pb2.OutputResolved(actor="ann")),
    "reached without a consequence": reaching(saga_pb2.StepReached(step_id="a")),
    "reached without a step": reaching(saga_pb2.StepReached(left_out=saga_pb2.StepLeftOut())),
    "reached with an input of no type": reaching(saga_pb2.StepReached(step_id="a", input=AnyMessage(type_url="x"))),
}


@pytest.mark.parametrize("message", INCOMPLETE.values(), ids=INCOMPLETE.keys())
def test_incomplete_event_is_corrupt(message: saga_pb2.Event) -> None:
    with pytest.raises(CorruptJournalError):
        decode_event(message.SerializeToString())


def test_fact_of_a_newer_version_is_corrupt() -> None:
    field_of_tomorrow = b"\xf2\x0c\x00"  # field 206, an empty message
    with pytest.raises(CorruptJournalError, match="newer"):
        decode_event(wire().SerializeToString() + field_of_tomorrow)


def test_consequence_of_a_newer_version_is_corrupt() -> None:
    field_of_tomorrow = b"\xa2\x06\x00"  # field 100, an empty message
    reached = saga_pb2.StepReached.FromString(saga_pb2.StepReached(step_id="a").SerializeToString() + field_of_tomorrow)
    with pytest.raises(CorruptJournalError, match="newer"):
        decode_event(reaching(reached).SerializeToString())


COMPLETIONS = {
    "succeeded": Succeeded(output=INPUT),
    "rejected": Rejected(failure=failure()),
    "sealed": Rejected(failure=failure(), sealed=True),
}


@pytest.mark.parametrize("result", COMPLETIONS.values(), ids=COMPLETIONS.keys())
def test_early_completion_keeps_its_result(result: Succeeded | Rejected) -> None:  # R24
    event = Event(4, at(3), StepCompletedEarly(step_id=A, round=2, result=result))
    assert decode_event(encode_event(SAGA, event)) == event


def test_output_without_a_value_is_an_empty_payload() -> None:
    event = Event(1, at(0), SagaCompleted(output=Payload("google.protobuf.Empty", b"")))
    assert decode_event(encode_event(SAGA, event)) == event
