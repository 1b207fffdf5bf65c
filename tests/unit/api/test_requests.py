"""What callers send: checked, bounded, and turned into what the engine and the journal take."""

from collections.abc import Callable

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.timestamp_pb2 import Timestamp
from google.protobuf.wrappers_pb2 import StringValue
from hypothesis import given
from hypothesis import strategies as st

from coordinator.api import requests
from coordinator.api.caller import Caller
from coordinator.api.errors import RefusedError
from coordinator.codec.definitions import CompiledDefinition, compile_definition
from coordinator.codec.values import to_timestamp
from coordinator.core.values import Instant, Payload
from coordinator.engine.commands import StartCommand
from participant_sdk.ids import new_saga_id
from participant_sdk.rpc_errors import error_reason
from saga.v1 import coordinator_pb2, participant_pb2, saga_pb2
from tests.builders import SAGA, at, seconds
from tests.unit.api.refusals import refused

STRING = "google.protobuf.StringValue"
NOW = at(1_000)


def compiled(version: int = 1, name: str = "place-order", *, limit_s: int = 0) -> CompiledDefinition:
    step = saga_pb2.StepDefinition(id="a", action="shop.act", input_type=STRING, output_type=STRING)
    made = saga_pb2.SagaDefinition(name=name, version=version, input_type=STRING, steps=[step])
    if limit_s:
        made.time_limit.FromSeconds(limit_s)
    return compile_definition(made, FileDescriptorSet())


def start_request(value: str = "x", **fields: object) -> coordinator_pb2.StartSagaRequest:
    request = coordinator_pb2.StartSagaRequest(**fields)  # type: ignore[arg-type]
    request.input.Pack(StringValue(value=value))
    return request


def command(
    request: coordinator_pb2.StartSagaRequest,
    definition: CompiledDefinition | None = None,
    *,
    bytes_max: int = 1_024,
    call_time_left_s: float | None = None,
) -> StartCommand:
    return requests.start_command(
        request,
        definition or compiled(),
        caller=Caller(call_time_left_s, "", ""),
        now=NOW,
        payload_bytes_max=bytes_max,
        sample_ratio=0.0,
    )


# ── Starts ───────────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_plain_start_begins_at_once_under_an_id_of_its_own() -> None:  # R2
    first, second = command(start_request()), command(start_request())
    assert first.saga_id != second.saga_id
    assert first.key is None
    assert (first.start.start_at, first.start.time_limit_us, first.start.labels) == (None, None, ())
    assert first.start.input == Payload(STRING, StringValue(value="x").SerializeToString())


def test_everything_that_was_asked_for_is_in_the_command() -> None:
    request = start_request(saga_id=SAGA.upper(), idempotency_key="order-42", labels={"b": "2", "a": "1"})
    request.start_at.CopyFrom(to_timestamp(at(2_000)))
    request.time_limit.FromSeconds(60)
    request.idempotency_key_ttl.FromSeconds(3_600)
    made = command(request)
    assert made.saga_id == SAGA
    assert made.start.labels == (("a", "1"), ("b", "2"))
    assert (made.start.start_at, made.start.time_limit_us, made.start.idempotency_key) == (at(2_000), seconds(60), "order-42")
    assert made.key is not None
    assert (made.key.definition_name, made.key.key, made.key.expires_at) == ("place-order", "order-42", at(1_000 + 3_600))


def test_key_is_kept_for_a_week_unless_said_otherwise() -> None:
    made = command(start_request(idempotency_key="order-42"))
    assert made.key is not None
    assert made.key.expires_at == at(1_000 + 7 * 86_400)


def test_latest_begin_leaves_room_for_its_deadline() -> None:
    """An instant beyond the year 9999 could not be written to the journal."""
    request = start_request()
    request.start_at.CopyFrom(to_timestamp(requests.START_AT_MAX))
    request.time_limit.FromSeconds(366 * 86_400)
    made = command(request)
    assert made.start.start_at is not None
    assert made.start.time_limit_us is not None
    to_timestamp(Instant(made.start.start_at + made.start.time_limit_us))
    request.start_at.CopyFrom(to_timestamp(Instant(requests.START_AT_MAX + 1)))
    assert "before the year 9999" in refused(lambda: command(request))["start_at"]


def change_id(request: coordinator_pb2.StartSagaRequest) -> None:
    request.saga_id = "order-42"


def change_nanos(request: coordinator_pb2.StartSagaRequest) -> None:
    request.start_at.CopyFrom(Timestamp(nanos=-1))


def change_limit(request: coordinator_pb2.StartSagaRequest) -> None:
    request.time_limit.SetInParent()


def change_ttl(request: coordinator_pb2.StartSagaRequest) -> None:
    request.idempotency_key_ttl.FromSeconds(366 * 86_400)


@pytest.mark.parametrize(
    ("change", "field"),
    [(change_id, "saga_id"), (change_nanos, "start_at"), (change_limit, "time_limit"), (change_ttl, "idempotency_key_ttl")],
)
def test_start_that_cannot_be_is_refused_with_its_field(change: Callable[[coordinator_pb2.StartSagaRequest], None], field: str) -> None:
    request = start_request()
    change(request)
    assert set(refused(lambda: command(request))) == {field}


def test_input_that_grows_beyond_the_limit_in_its_canonical_form_is_refused() -> None:
    """Packed numbers of a field that is not packed take a tag each; every attempt sends the canonical form."""
    file = FileDescriptorSet()
    one = file.file.add(name="a.proto", package="a", syntax="proto2")
    one.message_type.add(name="Numbers").field.add(name="n", number=1, type=5, label=3)
    step = saga_pb2.StepDefinition(id="a", action="shop.act", input_type="a.Numbers", output_type="a.Numbers")
    definition = compile_definition(saga_pb2.SagaDefinition(name="a", version=1, input_type="a.Numbers", steps=[step]), file)
    request = coordinator_pb2.StartSagaRequest()
    request.input.type_url, request.input.value = "x/a.Numbers", b"\x0a\x64" + b"\x01" * 100
    assert len(command(request, definition, bytes_max=200).start.input.value) == 200
    with pytest.raises(RefusedError) as caught:
        command(request, definition, bytes_max=199)
    assert error_reason(caught.value.status) == "PAYLOAD_TOO_LARGE"


# ── Fingerprints (R3) ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_fingerprint_is_of_definition_and_input_only() -> None:
    plain = command(start_request())
    other = start_request(saga_id=new_saga_id(), idempotency_key="k", labels={"a": "1"})
    other.input.value = b"\x0a\x01y" + other.input.value
    assert command(other, compiled(version=2)).fingerprint == plain.fingerprint
    assert command(start_request("y")).fingerprint != plain.fingerprint
    assert command(start_request(), compiled(name="other")).fingerprint != plain.fingerprint


def test_fingerprint_is_stable_between_releases() -> None:
    """Golden: a key that was stored by an earlier version must still be recognised."""
    found = requests.fingerprint_of("place-order", Payload("shop.v1.PlaceOrder", b"order-42")).hex()
    assert found == "7ad4b9b3708322d8295be930a87d7b9816f54aa30c9627ebbdd2fac9466db89b"


texts = st.text(max_size=8)


@given(texts, texts, st.binary(max_size=8), texts, texts, st.binary(max_size=8))
def test_other_starts_have_other_fingerprints(a: str, b: str, c: bytes, d: str, e: str, f: bytes) -> None:
    same = (a, b, c) == (d, e, f)
    assert (requests.fingerprint_of(a, Payload(b, c)) == requests.fingerprint_of(d, Payload(e, f))) == same


def test_parts_of_a_fingerprint_cannot_run_into_each_other() -> None:
    assert requests.fingerprint_of("ab", Payload("c", b"")) != requests.fingerprint_of("a", Payload("bc", b""))


# ── The deadline of the call (H5) ────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("asked_s", "planned_s", "left_s", "expected_s"),
    [
        (0, 0, 30.0, 30),  # nothing else bounds it
        (60, 0, 30.0, 30),
        (10, 0, 30.0, 10),  # the earlier one
        (0, 20, 30.0, 20),
        (0, 60, 30.0, 30),
        (60, 20, 90.0, 60),  # what the start says counts instead of the definition
        (0, 0, -1.0, 0.001),  # over already: it turns back at once, and says so
        (0, 0, 1e12, 366 * 86_400),
    ],
)
def test_saga_inherits_the_time_that_its_call_has_left(asked_s: int, planned_s: int, left_s: float, expected_s: float) -> None:
    request = start_request(inherit_deadline=True)
    if asked_s:
        request.time_limit.FromSeconds(asked_s)
    made = command(request, compiled(limit_s=planned_s), call_time_left_s=left_s)
    assert made.start.time_limit_us == seconds(expected_s)


def test_saga_that_begins_later_has_what_is_left_then() -> None:
    request = start_request(inherit_deadline=True)
    request.start_at.CopyFrom(to_timestamp(at(1_020)))
    assert command(request, call_time_left_s=30).start.time_limit_us == seconds(10)
    assert "use time_limit" in refused(lambda: command(request, call_time_left_s=20))["start_at"]


def test_call_without_a_deadline_hands_none_down() -> None:
    assert "without" in refused(lambda: command(start_request(inherit_deadline=True)))["inherit_deadline"]
    assert command(start_request(), call_time_left_s=30).start.time_limit_us is None


# ── Registrations, and who asks ──────────────────────────────────────────────────────────────────────────────────────────────────


def registration(
    *actions: str, target: str = "127.0.0.1:1", name: str = "shop", rate: float = 0.0
) -> coordinator_pb2.RegisterParticipantRequest:
    described = [participant_pb2.ActionDescription(name=action) for action in actions]
    description = participant_pb2.ParticipantDescription(name=name, actions=described, rate_per_second=rate)
    return coordinator_pb2.RegisterParticipantRequest(target=target, description=description)


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (registration("act", target=""), "target"),
        (registration("act", target="a\0b"), "target"),
        (registration("act", target="a" * 1_025), "target"),
        (registration("act", name="Shop"), "description.name"),
        (registration("act", name="a" * 65), "description.name"),
        (registration(), "description.actions"),
        (registration(*(["act"] * 1_001)), "description.actions"),
        (registration("act", "no good"), "description.actions[1].name"),
        (registration("act", "act"), "description.actions[1].name"),
        (registration("act", rate=-1.0), "description.rate_per_second"),
        (registration("act", rate=float("nan")), "description.rate_per_second"),
    ],
)
def test_bad_registration_names_the_field(request_: coordinator_pb2.RegisterParticipantRequest, field: str) -> None:
    assert set(refused(lambda: requests.registration_ttl_us(request_))) == {field}


def test_registration_holds_as_long_as_was_asked_for() -> None:
    request = registration("act")
    assert requests.registration_ttl_us(request) == seconds(30)
    request.ttl.FromSeconds(3_600)
    assert requests.registration_ttl_us(request) == seconds(3_600)
    request.ttl.FromSeconds(3_601)
    assert set(refused(lambda: requests.registration_ttl_us(request))) == {"ttl"}


def test_texts_of_a_cancel_are_bounded() -> None:
    request = coordinator_pb2.CancelSagaRequest(reason="r" * 1_025, actor="a" * 256)
    assert set(refused(lambda: requests.cancel_command(request))) == {"reason", "actor"}
