"""What callers send: checked, bounded, and turned into what the engine and the journal take."""

import base64
from collections.abc import Callable

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.timestamp_pb2 import Timestamp
from google.protobuf.wrappers_pb2 import StringValue
from google.rpc import error_details_pb2
from hypothesis import given
from hypothesis import strategies as st

from coordinator.api import requests
from coordinator.api.errors import RefusedError, invalid
from coordinator.codec.definition_rules import PROBLEMS_MAX, Problem
from coordinator.codec.definitions import CompiledDefinition, compile_definition
from coordinator.codec.values import to_timestamp
from coordinator.core.values import DefinitionKey, Instant, Payload, SagaId, SagaStatus
from coordinator.engine.commands import StartCommand
from participant_sdk.ids import new_saga_id
from participant_sdk.rpc_errors import error_reason, find_detail
from saga.v1 import coordinator_pb2, participant_pb2, saga_pb2
from tests.builders import SAGA, at, seconds

STRING = "google.protobuf.StringValue"
NOW = at(1_000)


def compiled(version: int = 1, name: str = "place-order") -> CompiledDefinition:
    step = saga_pb2.StepDefinition(id="a", action="shop.act", input_type=STRING, output_type=STRING)
    made = saga_pb2.SagaDefinition(name=name, version=version, input_type=STRING, steps=[step])
    return compile_definition(made, FileDescriptorSet())


def start_request(value: str = "x", **fields: object) -> coordinator_pb2.StartSagaRequest:
    request = coordinator_pb2.StartSagaRequest(**fields)  # type: ignore[arg-type]
    request.input.Pack(StringValue(value=value))
    return request


def command(
    request: coordinator_pb2.StartSagaRequest, definition: CompiledDefinition | None = None, *, bytes_max: int = 1_024
) -> StartCommand:
    return requests.start_command(
        request,
        definition or compiled(),
        now=NOW,
        payload_bytes_max=bytes_max,
        traceparent="",
        tracestate="",
        sample_ratio=0.0,
    )


def refused(call: Callable[[], object]) -> dict[str, str]:
    """What a refusal says of which field."""
    with pytest.raises(RefusedError) as caught:
        call()
    found = find_detail(caught.value.status, error_details_pb2.BadRequest)
    assert found is not None
    return {violation.field: violation.description for violation in found.field_violations}


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


# ── Pages ────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────


@given(st.integers(-(2**62), 2**62), st.uuids().filter(lambda one: one.int))
def test_page_of_sagas_goes_on_where_it_ended(created_at: int, saga_id: object) -> None:
    place = (Instant(created_at), SagaId(str(saga_id)))
    assert requests.parse_saga_page_token(requests.saga_page_token(*place)) == place


@given(st.integers(1, 2**31 - 1), st.text(min_size=1, max_size=128))
def test_page_of_definitions_goes_on_where_it_ended(version: int, name: str) -> None:
    key = DefinitionKey(name, version)
    assert requests.parse_definition_page_token(requests.definition_page_token(key)) == key


def test_no_token_is_the_first_page() -> None:
    assert requests.parse_saga_page_token("") is None
    assert requests.parse_definition_page_token("") is None


def token(text: bytes) -> str:
    return base64.urlsafe_b64encode(text).decode()


@pytest.mark.parametrize(
    "forged",
    ["%%%", "a", "ü", token(b"\xff"), token(b"x/y"), token(b"1/y"), token(f"{10**30}/{SAGA}".encode()), token(b"9" * 5_000)],
)
def test_token_that_was_not_given_out_is_refused(forged: str) -> None:
    assert set(refused(lambda: requests.parse_saga_page_token(forged))) == {"page_token"}


@pytest.mark.parametrize("forged", ["%%%", "ü", token(b"x/y"), token(b"%d/y" % 10**30), token(b"%d/y" % -(10**30)), token(b"/" * 9)])
def test_token_of_definitions_that_was_not_given_out_is_refused(forged: str) -> None:
    assert set(refused(lambda: requests.parse_definition_page_token(forged))) == {"page_token"}


@given(st.text(max_size=40))
def test_any_token_is_read_or_refused(text: str) -> None:
    for parse in (requests.parse_saga_page_token, requests.parse_definition_page_token):
        try:
            parse(text)
        except RefusedError:
            continue


def test_page_sizes() -> None:
    assert (requests.page_size_of(0), requests.page_size_of(1), requests.page_size_of(1_000)) == (100, 1, 1_000)
    assert set(refused(lambda: requests.page_size_of(1_001))) == {"page_size"}


@pytest.mark.parametrize(
    ("sizes", "page_size", "expected"),
    [
        ([], 100, 0),
        ([1, 1, 1], 2, 2),
        ([1, 1], 2, 2),
        ([requests.PAGE_BYTES_MAX // 2] * 3, 100, 2),
        ([requests.PAGE_BYTES_MAX * 2, 1], 100, 1),  # a large one goes alone
        ([1, requests.PAGE_BYTES_MAX, 1], 100, 1),
    ],
)
def test_page_is_cut_by_number_and_by_bytes(sizes: list[int], page_size: int, expected: int) -> None:  # D6
    assert requests.page_length(sizes, page_size) == expected


def test_sequence_beyond_every_saga_is_one_that_databases_take() -> None:
    assert (requests.sequence_of(0), requests.sequence_of(7), requests.sequence_of(2**64 - 1)) == (0, 7, 2**63 - 1)


@pytest.mark.parametrize("name", ["a\0b", "a" * 129])
def test_name_that_no_definition_can_have_is_refused(name: str) -> None:  # R28
    assert set(refused(lambda: requests.definition_name_of(name, "name"))) == {"name"}


# ── Filters, registrations, ids, and how much is told ────────────────────────────────────────────────────────────────────────────


def test_filter_takes_every_condition() -> None:
    request = coordinator_pb2.ListSagasRequest(
        statuses=[saga_pb2.SAGA_STATUS_RUNNING, saga_pb2.SAGA_STATUS_FAILED], definition_name="place-order", labels={"b": "2", "a": "1"}
    )
    request.created_from.CopyFrom(to_timestamp(at(1)))
    found = requests.saga_filter(request)
    assert found.statuses == {SagaStatus.RUNNING, SagaStatus.FAILED}
    assert (found.definition_name, found.labels) == ("place-order", (("a", "1"), ("b", "2")))
    assert (found.created_from, found.created_before) == (at(1), None)


def test_filter_that_can_never_hold_is_refused() -> None:
    request = coordinator_pb2.ListSagasRequest(statuses=[0, 99], definition_name="a\0", labels={"": ""})  # type: ignore[list-item]
    request.created_before.seconds = 2**60
    assert set(refused(lambda: requests.saga_filter(request))) == {"statuses", "definition_name", "labels['']", "created_before"}


def registration(*actions: str, target: str = "127.0.0.1:1", name: str = "shop") -> coordinator_pb2.RegisterParticipantRequest:
    described = [participant_pb2.ActionDescription(name=action) for action in actions]
    return coordinator_pb2.RegisterParticipantRequest(
        target=target, description=participant_pb2.ParticipantDescription(name=name, actions=described)
    )


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


def test_id_that_is_no_uuid_is_refused() -> None:  # R2
    assert requests.saga_id_of(SAGA.upper()) == SAGA
    assert set(refused(lambda: requests.saga_id_of("order-42"))) == {"saga_id"}


def test_texts_of_a_cancel_are_bounded() -> None:
    assert set(refused(lambda: requests.check_cancel(coordinator_pb2.CancelSagaRequest(reason="r" * 1_025, actor="a" * 256)))) == {
        "reason",
        "actor",
    }


def test_refusal_tells_no_more_problems_than_a_person_can_read() -> None:
    error = invalid(Problem(f"labels[{number}]", "too long") for number in range(100_000))
    found = find_detail(error.status, error_details_pb2.BadRequest)
    assert found is not None
    assert len(found.field_violations) == PROBLEMS_MAX
