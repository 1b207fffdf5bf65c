"""Services that know nothing of sagas: what travels beside the message, and what is never sent."""

from dataclasses import replace
from typing import Any, NoReturn

import grpc
import pytest

from coordinator.codec.services import compile_service
from coordinator.core.inputs import Compensated, Mismatched, NotSent, Outcome, Rejected, Succeeded
from coordinator.core.values import Direction, Payload
from coordinator.engine.ports import CallPlace
from saga.v1 import participant_pb2
from tests.contract.dispatcher.stand import STRING, Stand, call
from tests.participants import PlainParticipant, serving
from tests.plain_service import service_of

pytestmark = pytest.mark.parametrize("new_stand", ["service"], indirect=True)
INT = "google.protobuf.Int64Value"


class Watchful(PlainParticipant):
    """Remembers what came beside the messages."""

    def __init__(self) -> None:
        super().__init__()
        self.metadata: list[dict[str, str]] = []

    async def Execute(self, request: participant_pb2.ExecuteRequest, context: Any) -> participant_pb2.ExecuteResponse:  # noqa: N802
        self.metadata.append(dict(context.invocation_metadata()))
        return await super().Execute(request, context)

    async def Compensate(  # noqa: N802
        self, request: participant_pb2.CompensateRequest, context: Any
    ) -> participant_pb2.CompensateResponse:
        self.metadata.append(dict(context.invocation_metadata()))
        return await super().Compensate(request, context)


async def not_found(request: participant_pb2.CompensateRequest, context: Any) -> NoReturn:
    await context.abort(grpc.StatusCode.NOT_FOUND, "never heard of it")
    raise AssertionError


async def sent(stand: Stand, action: str = "shop.act", **options: Any) -> Outcome:
    """How a call ends."""
    one = call(action, **options)
    stand.dispatcher.send([one])
    return await stand.replies.outcome_of(one)


def add(stand: Stand, target: str, **changes: Any) -> None:
    """The service, with something else said of its action."""
    service, descriptors = service_of("shop", target, "act")
    service = replace(service, actions={"act": replace(service.actions["act"], **changes)})
    stand.services.add("shop", service, compile_service("shop", service, descriptors))


@pytest.mark.parametrize("direction", Direction)
async def test_keys_and_whose_call_it_is_travel_as_metadata(stand: Stand, direction: Direction) -> None:  # R1
    service = Watchful()
    async with serving(service) as target:
        await stand.register(target)
        one = call(direction=direction, number=3)
        stand.dispatcher.send([one])
        await stand.replies.to(one)
    (said,) = service.metadata
    assert (said["idempotency-key"], said["saga-id"], said["saga-step-id"], said["saga-attempt"]) == (one.key, one.saga_id, "step", "3")
    assert said.get("idempotency-execute-key") == (None if direction is Direction.EXECUTE else one.execute_key)
    assert said["traceparent"].startswith("00-")
    (request,) = service.executions or service.compensations
    assert request.input.value == one.input.value


async def test_key_goes_by_the_name_that_is_configured(stand: Stand) -> None:
    service = Watchful()
    async with serving(service) as target:
        configured, descriptors = service_of("shop", target, "act")
        configured = replace(configured, key_metadata="x-request-id")
        stand.services.add("shop", configured, compile_service("shop", configured, descriptors))
        one = call()
        stand.dispatcher.send([one])
        assert isinstance(await stand.replies.outcome_of(one), Succeeded)
    assert service.metadata[0]["x-request-id"] == one.key


async def test_refusal_to_undo_is_what_it_is_unless_its_status_is_configured(stand: Stand) -> None:  # R8
    service = PlainParticipant()
    service.on_compensate["shop.act"] = not_found
    async with serving(service) as target:
        add(stand, target)
        assert isinstance(await sent(stand, direction=Direction.COMPENSATE), Rejected)
        add(stand, target, nothing_to_undo=("NOT_FOUND",))
        assert await sent(stand, direction=Direction.COMPENSATE) == Compensated(handler_ran=False)


@pytest.mark.parametrize(
    "options",
    [
        {"input_type": INT},
        {"output_type": INT},
        {"input_type": INT, "direction": Direction.COMPENSATE},
        {"output": Payload(INT, b""), "direction": Direction.COMPENSATE},
    ],
    ids=str,
)
async def test_other_messages_than_the_method_takes_are_never_sent(stand: Stand, options: dict[str, Any]) -> None:
    """A method takes any bytes for its message: it would do something, and nobody knows what."""
    service = PlainParticipant()
    async with serving(service) as target:
        await stand.register(target)
        outcome = await sent(stand, **options)
    assert isinstance(outcome, Mismatched)
    assert f"found {INT}" in outcome.failure.message or f"the definition says {INT}" in outcome.failure.message
    assert (service.executions, service.compensations) == ([], [])


async def test_undo_of_what_has_no_compensation_any_more_needs_a_person(stand: Stand) -> None:
    service = PlainParticipant()
    async with serving(service) as target:
        add(stand, target, compensate="")
        outcome = await sent(stand, direction=Direction.COMPENSATE)
        assert isinstance(outcome, Mismatched)
        assert "name one in the settings" in outcome.failure.message
        assert isinstance(await sent(stand), Succeeded)


async def test_undo_that_cannot_be_worded_needs_a_person_and_is_not_sent(stand: Stand) -> None:
    """It would fail for these values however often it were tried."""
    service = PlainParticipant()
    async with serving(service) as target:
        add(stand, target, compensate_input="google.protobuf.StringValue{value: string(1 / size(output))}")
        one = call(direction=Direction.COMPENSATE, output=Payload(STRING, b""))
        stand.dispatcher.send([one])
        reply = await stand.replies.to(one)
    assert isinstance(reply.outcome, Mismatched)
    assert "mend compensate_input" in reply.outcome.failure.message
    assert reply.sent_at is None
    assert service.compensations == []


async def test_action_that_is_not_configured_is_not_sent(stand: Stand) -> None:  # R7
    async with serving(PlainParticipant()) as target:
        await stand.register(target)
        outcome = await sent(stand, "shop.other", timeout_s=0.2)
    assert isinstance(outcome, NotSent)


async def test_calls_of_a_service_that_is_not_known_yet_wait_and_it_is_said_why(stand: Stand) -> None:  # R7
    service = PlainParticipant()
    async with serving(service) as target:
        configured, descriptors = service_of("shop", target, "act")
        stand.services.add("shop", configured, None)
        one = call()
        stand.dispatcher.send([one])
        assert await stand.dispatcher.describe("shop") is None  # it was asked, and serves no reflection
        standing = stand.dispatcher.standing_of("shop")
        assert "does not serve reflection" in standing.unreadable
        assert standing.last_failure is not None
        assert stand.dispatcher.place_of("shop", one.saga_id, one.attempt) is CallPlace.NO_TARGET
        assert service.executions == []
        stand.services.add("shop", configured, compile_service("shop", configured, descriptors))
        assert isinstance(await stand.replies.outcome_of(one), Succeeded)
        described_now = await stand.dispatcher.describe("shop")
        assert described_now is not None
        assert [action.name for action in described_now.actions] == ["act"]


async def test_call_that_waited_in_vain_says_why(stand: Stand) -> None:  # R7
    configured, _ = service_of("shop", "127.0.0.1:1", "act")
    stand.services.add("shop", configured, None)
    await stand.services.ask("shop")
    outcome = await sent(stand, timeout_s=0.1)
    assert isinstance(outcome, NotSent)
    assert "what 127.0.0.1:1 takes and returns is not known" in outcome.failure.message
