"""Bad input of callers: the right status, a reason for programs, the field for people, and nothing lost."""

from collections.abc import Awaitable

import grpc
import pytest
from google.protobuf.any_pb2 import Any
from google.protobuf.wrappers_pb2 import Int64Value, StringValue
from google.rpc import error_details_pb2, status_pb2

from participant_sdk.ids import new_saga_id
from participant_sdk.rpc_errors import error_reason, find_detail, from_rpc_error
from saga.v1 import coordinator_pb2, saga_pb2
from tests.integration.conftest import Running
from tests.integration.definitions import plain
from tests.participants import PlainParticipant, register, serving, text

STRING = "google.protobuf.StringValue"


async def refused(call: Awaitable[object]) -> tuple[grpc.StatusCode, status_pb2.Status]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value.code(), from_rpc_error(caught.value)


def violations(status: status_pb2.Status) -> dict[str, str]:
    found = find_detail(status, error_details_pb2.BadRequest)
    assert found is not None
    return {violation.field: violation.description for violation in found.field_violations}


def step(step_id: str, *, after: list[str] | None = None, **fields: str) -> saga_pb2.StepDefinition:
    made = saga_pb2.StepDefinition(id=step_id, action="plain.act", input_type=STRING, output_type=STRING, **fields)  # type: ignore[arg-type]
    if after is not None:
        made.after.CopyFrom(saga_pb2.StepOrder(step_ids=after))
    return made


def definition(*steps: saga_pb2.StepDefinition, **fields: str) -> coordinator_pb2.RegisterDefinitionRequest:
    made = saga_pb2.SagaDefinition(name="bad", version=1, input_type=STRING, steps=steps, **fields)  # type: ignore[arg-type]
    return coordinator_pb2.RegisterDefinitionRequest(definition=made)


def start(name: str = "fine", value: str = "x", **fields: str) -> coordinator_pb2.StartSagaRequest:
    reference = saga_pb2.DefinitionReference(name=name)
    return coordinator_pb2.StartSagaRequest(definition=reference, input=text(value), **fields)  # type: ignore[arg-type]


async def test_start_of_unknown_definition_or_version_is_not_found(running: Running) -> None:
    code, status = await refused(running.stub.StartSaga(start("nobody-knows")))
    assert (code, error_reason(status)) == (grpc.StatusCode.NOT_FOUND, "DEFINITION_NOT_FOUND")
    resource = find_detail(status, error_details_pb2.ResourceInfo)
    assert resource is not None
    assert resource.resource_name == "nobody-knows"

    await running.client.register(plain("fine", "act"))
    request = start("fine")
    request.definition.version = 7
    code, status = await refused(running.stub.StartSaga(request))
    assert (code, error_reason(status)) == (grpc.StatusCode.NOT_FOUND, "DEFINITION_NOT_FOUND")
    assert "version 7" in status.message


@pytest.mark.parametrize(
    ("request_", "field", "told"),
    [
        (definition(step("a", after=["b"]), step("b", after=["a"])), "definition.steps", "cycles"),
        (definition(step("a"), step("a")), "definition.steps[1].id", "unique"),
        (definition(step("a", after=["nowhere"])), "definition.steps[0].after.step_ids[0]", "no step 'nowhere'"),
        (definition(), "definition.steps", "1 to 256"),
        (definition(step("a", input="b", after=[]), step("b", after=[])), "definition.steps[0].input", "not there yet"),
        (definition(step("no good")), "definition.steps[0].id", "letter"),
        (definition(step("input")), "definition.steps[0].id", "reserved"),
        (definition(step("a"), output="nothing"), "definition.output", 'no variable "nothing"'),
    ],
)
async def test_registering_a_wrong_definition_names_the_field(
    running: Running, request_: coordinator_pb2.RegisterDefinitionRequest, field: str, told: str
) -> None:
    code, status = await refused(running.stub.RegisterDefinition(request_))
    assert (code, error_reason(status)) == (grpc.StatusCode.INVALID_ARGUMENT, "DEFINITION_INVALID")
    assert told in violations(status)[field]


async def test_registering_tells_every_problem_at_once(running: Running) -> None:
    wrong = definition(step("a", after=["nowhere"]), step("1"))
    wrong.definition.name = "no good name"
    wrong.definition.steps[0].action = "no-dot"
    wrong.definition.steps[0].input_type = "shop.v1.Missing"
    wrong.definition.steps[1].attempt_timeout.FromMilliseconds(-1)
    wrong.definition.steps[1].execute_retry.multiplier = 0.5
    _, status = await refused(running.stub.RegisterDefinition(wrong))
    assert set(violations(status)) == {
        "definition.name",
        "definition.steps[0].after.step_ids[0]",
        "definition.steps[0].action",
        "definition.steps[0].input_type",
        "definition.steps[1].id",
        "definition.steps[1].attempt_timeout",
        "definition.steps[1].execute_retry.multiplier",
    }


async def test_fields_that_this_version_does_not_know_are_refused(running: Running) -> None:
    wrong = definition(step("a"))
    wrong.definition.steps[0].MergeFromString(b"\xf8\x3f\x01")  # field 1023, a number: from a newer client
    _, status = await refused(running.stub.RegisterDefinition(wrong))
    assert "field numbers 1023" in violations(status)["definition.steps[0]"]


async def test_types_that_do_not_flow_are_refused(running: Running) -> None:
    wrong = definition(step("a"), step("b", input="a"))
    wrong.definition.steps[0].output_type = "google.protobuf.Int64Value"
    _, status = await refused(running.stub.RegisterDefinition(wrong))
    told = 'expected a google.protobuf.StringValue, because plain.act takes it; "a" is a google.protobuf.Int64Value'
    assert told in violations(status)["definition.steps[1].input"]


async def test_definition_that_contradicts_a_participant_is_refused(running: Running) -> None:  # R9
    async with serving(PlainParticipant()) as target:
        await register(running.address, target, "plain", "act", compensatable=False)
        _, status = await refused(running.stub.RegisterDefinition(definition(step("a"))))
        assert "has no compensation" in violations(status)["definition.steps[0].kind"]
        unknown = definition(step("a"))
        unknown.definition.steps[0].action = "plain.other"
        _, status = await refused(running.stub.RegisterDefinition(unknown))
        assert "no action 'other'; it has: act" in violations(status)["definition.steps[0].action"]


async def test_registering_a_version_again_is_accepted_only_with_the_same_content(running: Running) -> None:
    assert await running.client.register(plain("fine", "act")) is True
    assert await running.client.register(plain("fine", "act")) is False
    other = plain("fine", "act", "another")
    request = coordinator_pb2.RegisterDefinitionRequest(definition=other.definition(), descriptors=other.descriptors())
    code, status = await refused(running.stub.RegisterDefinition(request))
    assert (code, error_reason(status)) == (grpc.StatusCode.ALREADY_EXISTS, "DEFINITION_CONFLICT")
    assert "register version 2" in status.message


async def test_input_of_the_wrong_type_is_refused(running: Running) -> None:
    await running.client.register(plain("fine", "act"))
    request = start()
    request.input.Pack(Int64Value(value=1))
    code, status = await refused(running.stub.StartSaga(request))
    assert (code, error_reason(status)) == (grpc.StatusCode.INVALID_ARGUMENT, "INPUT_TYPE_MISMATCH")
    assert violations(status)["input"] == f"expected a {STRING}, found google.protobuf.Int64Value"


async def test_input_that_cannot_be_decoded_is_refused(running: Running) -> None:
    await running.client.register(plain("fine", "act"))
    request = start()
    request.input.CopyFrom(Any(type_url=f"type.googleapis.com/{STRING}", value=b"\xff\xff"))
    code, status = await refused(running.stub.StartSaga(request))
    assert (code, error_reason(status)) == (grpc.StatusCode.INVALID_ARGUMENT, "INPUT_INVALID")


async def test_oversized_payload_is_refused_with_sizes(running: Running) -> None:  # D6
    await running.client.register(plain("fine", "act"))
    code, status = await refused(running.stub.StartSaga(start(value="x" * (1024 * 1024 + 1))))
    assert (code, error_reason(status)) == (grpc.StatusCode.INVALID_ARGUMENT, "PAYLOAD_TOO_LARGE")
    info = find_detail(status, error_details_pb2.ErrorInfo)
    assert info is not None
    assert info.metadata["bytes_max"] == str(1024 * 1024)


async def test_message_beyond_the_wire_limit_is_refused_by_grpc(running: Running) -> None:
    await running.client.register(plain("fine", "act"))
    code, _ = await refused(running.stub.StartSaga(start(value="x" * (5 * 1024 * 1024))))
    assert code == grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_same_key_with_the_same_input_returns_the_saga_that_is_there(running: Running) -> None:  # H1, R4
    await running.client.register(plain("fine", "act"))
    first = await running.stub.StartSaga(start(idempotency_key="order-42"))
    again = await running.stub.StartSaga(start(idempotency_key="order-42"))
    assert (first.created, again.created) == (True, False)
    assert again.saga.id == first.saga.id


async def test_same_key_with_other_input_is_refused(running: Running) -> None:  # H1, R4
    await running.client.register(plain("fine", "act"))
    first = await running.stub.StartSaga(start(idempotency_key="order-42"))
    code, status = await refused(running.stub.StartSaga(start(value="y", idempotency_key="order-42")))
    assert (code, error_reason(status)) == (grpc.StatusCode.ALREADY_EXISTS, "IDEMPOTENCY_KEY_REUSED")
    info = find_detail(status, error_details_pb2.ErrorInfo)
    assert info is not None
    assert info.metadata["saga_id"] == first.saga.id


async def test_same_id_is_the_same_saga_or_refused(running: Running) -> None:  # R2
    await running.client.register(plain("fine", "act"))
    saga_id = new_saga_id()
    assert (await running.stub.StartSaga(start(saga_id=saga_id))).created
    assert not (await running.stub.StartSaga(start(saga_id=saga_id.upper()))).created
    code, status = await refused(running.stub.StartSaga(start(value="y", saga_id=saga_id)))
    assert (code, error_reason(status)) == (grpc.StatusCode.ALREADY_EXISTS, "SAGA_ID_REUSED")


async def test_two_encodings_of_one_input_are_the_same_start(running: Running) -> None:  # R3
    await running.client.register(plain("fine", "act"))
    request = start(idempotency_key="order-42")
    first = await running.stub.StartSaga(request)
    request.input.value = b"\x0a\x01q" + request.input.value  # the field twice: the last one counts
    again = await running.stub.StartSaga(request)
    assert again.saga.id == first.saga.id


@pytest.mark.parametrize("method", ["GetSaga", "GetHistory", "CancelSaga"])
async def test_unknown_saga_is_not_found(running: Running, method: str) -> None:
    request = getattr(coordinator_pb2, f"{method}Request")(saga_id=new_saga_id())
    code, status = await refused(getattr(running.stub, method)(request))
    assert (code, error_reason(status)) == (grpc.StatusCode.NOT_FOUND, "SAGA_NOT_FOUND")


async def test_watching_an_unknown_saga_is_not_found(running: Running) -> None:
    async def watch() -> None:
        async for _ in running.stub.WatchSaga(coordinator_pb2.WatchSagaRequest(saga_id=new_saga_id())):
            raise AssertionError("there is nothing to be seen")

    code, status = await refused(watch())
    assert (code, error_reason(status)) == (grpc.StatusCode.NOT_FOUND, "SAGA_NOT_FOUND")


async def test_id_that_is_no_uuid_is_refused(running: Running) -> None:  # R2
    code, status = await refused(running.stub.GetSaga(coordinator_pb2.GetSagaRequest(saga_id="order-42")))
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert "UUID" in violations(status)["saga_id"]


async def test_cancelling_a_finished_saga_is_refused(running: Running) -> None:
    async with serving(PlainParticipant()) as target:
        await register(running.address, target, "plain", "act")
        await running.client.register(plain("fine", "act"))
        done = await running.client.run("fine", StringValue(value="x"))
    code, status = await refused(running.stub.CancelSaga(coordinator_pb2.CancelSagaRequest(saga_id=done.id)))
    assert (code, error_reason(status)) == (grpc.StatusCode.FAILED_PRECONDITION, "SAGA_ALREADY_ENDED")
    assert "COMPLETED" in status.message


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"idempotency_key": "k" * 256}, "idempotency_key"),
        ({"idempotency_key": "a\0b"}, "idempotency_key"),
        ({"labels": {"": "x"}}, "labels['']"),
        ({"labels": {"team": "x" * 256}}, "labels['team']"),
        ({"saga_id": "42"}, "saga_id"),
    ],
)
async def test_texts_that_are_too_long_or_hold_nul_are_refused(running: Running, fields: dict[str, str], field: str) -> None:  # R28
    await running.client.register(plain("fine", "act"))
    code, status = await refused(running.stub.StartSaga(start(**fields)))
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert field in violations(status)


async def test_bad_pages_are_refused(running: Running) -> None:
    _, status = await refused(running.stub.ListSagas(coordinator_pb2.ListSagasRequest(page_size=1001)))
    assert "page_size" in violations(status)
    _, status = await refused(running.stub.ListSagas(coordinator_pb2.ListSagasRequest(page_token="%%%")))
    assert "page_token" in violations(status)


async def test_bad_registration_is_refused(running: Running) -> None:
    _, status = await refused(running.stub.RegisterParticipant(coordinator_pb2.RegisterParticipantRequest()))
    assert set(violations(status)) == {"target", "description.name", "description.actions"}


async def test_two_services_of_one_name_with_other_types_are_refused(running: Running) -> None:
    await register(running.address, "127.0.0.1:1", "plain", "act")
    request = coordinator_pb2.RegisterParticipantRequest(target="127.0.0.1:2")
    request.description.name = "plain"
    request.description.actions.add(name="act", input_type="other.v1.Message", output_type=STRING)
    code, status = await refused(running.stub.RegisterParticipant(request))
    assert (code, error_reason(status)) == (grpc.StatusCode.ALREADY_EXISTS, "PARTICIPANT_CONFLICT")
