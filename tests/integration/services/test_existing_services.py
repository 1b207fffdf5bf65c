"""A service that knows nothing of sagas as a participant, end to end: its process, a coordinator's process, and what each of them saw."""

from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
from google.protobuf.message import Message

from participant_sdk import InvalidRequest, Saga, StepKind
from saga.v1 import operator_pb2, saga_pb2
from tests.integration.following import statuses, until
from tests.integration.services.stand import A_MINUTE, SETTINGS, TWICE, Stand, services_stand, two_reservations, wait_until
from tests.participants import register
from tests.warehouse import RESERVE, SERVICE, message, message_class

COMPLETED, COMPENSATED = saga_pb2.SAGA_STATUS_COMPLETED, saga_pb2.SAGA_STATUS_COMPENSATED
REFLECTION = "reflection"
WITHOUT_UNDO = SETTINGS.partition("compensate =")[0]


@pytest.fixture(params=["descriptors", REFLECTION])
async def stand(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Stand]:
    """Known by a file, and by asking."""
    async with services_stand(tmp_path, request.param) as made:
        yield made


async def test_methods_of_a_service_are_called_as_actions(stand: Stand) -> None:
    await stand.client.register(two_reservations())
    handle = await stand.order("bicycle")
    saga = await handle.wait(timeout=A_MINUTE)
    assert saga.status == COMPLETED
    first, second = stand.warehouse.calls("Reserve")
    assert first.request == message("ReserveRequest", order_id="o-1", sku="bicycle", pieces=2)
    assert first.metadata["idempotency-key"] == f"{saga.id}/first/execute/1"
    assert (first.metadata["saga-id"], first.metadata["saga-step-id"], first.metadata["saga-attempt"]) == (saga.id, "first", "1")
    assert "idempotency-execute-key" not in first.metadata
    assert first.metadata["traceparent"].split("-")[1] == second.metadata["traceparent"].split("-")[1]
    output = saga.steps[0].output
    assert output.TypeName() == "warehouse.v1.ReserveReply"
    assert message_class("ReserveReply").FromString(output.value) == message("ReserveReply", reservation_id="r-1")


async def test_refused_step_turns_the_saga_back_and_the_other_method_undoes(stand: Stand) -> None:  # R1, R12
    await stand.client.register(two_reservations())
    handle = await stand.order("bicycle", "refuse")
    saga = await handle.wait(timeout=A_MINUTE)
    assert saga.status == COMPENSATED
    assert statuses(saga) == {"first": "COMPENSATED", "second": "REJECTED"}
    (undone,) = stand.warehouse.calls("Release")
    assert undone.request == message("ReleaseRequest", reservation_id="r-1", order_id="o-1")
    assert undone.key == f"{saga.id}/first/compensate/1"
    assert undone.metadata["idempotency-execute-key"] == f"{saga.id}/first/execute/1"
    assert stand.warehouse.held() == [("bicycle", False)]


async def test_lost_reply_is_asked_for_again_with_the_same_key(tmp_path: Path) -> None:  # R1, R6
    async with services_stand(tmp_path) as stand:
        await stand.client.register(two_reservations())
        saga = await (await stand.order("lose")).wait(timeout=A_MINUTE)
        assert saga.status == COMPLETED
        first, again, _ = stand.warehouse.calls("Reserve")
        assert (first.key, first.request) == (again.key, again.request)
        assert [call.metadata["saga-attempt"] for call in (first, again)] == ["1", "2"]
        assert stand.warehouse.held() == [("lose", True), ("pump", True)]


async def test_service_that_asks_for_time_is_called_again_later(tmp_path: Path) -> None:  # R6, R7
    async with services_stand(tmp_path) as stand:
        await stand.client.register(two_reservations())
        handle = await stand.order("busy")
        saga = await handle.wait(timeout=A_MINUTE)
        assert saga.status == COMPLETED
        failed = (await until(handle, "attempt_failed")).attempt_failed
        assert failed.outcome == saga_pb2.ATTEMPT_OUTCOME_RETRY_LATER


@pytest.mark.parametrize("sku", ["mute", "garbage"])
async def test_step_of_which_nobody_knows_is_undone_by_its_key(tmp_path: Path, sku: str) -> None:  # R6, R19, R20
    """There is no output: the expression sees that, and the service finds what it did by the key."""
    async with services_stand(tmp_path) as stand:
        await stand.client.register(two_reservations(execute_retry=TWICE))
        saga = await (await stand.order(sku)).wait(timeout=A_MINUTE)
        assert saga.status == COMPENSATED
        (undone,) = stand.warehouse.calls("Release")
        assert undone.request == message("ReleaseRequest", reserve_key=f"{saga.id}/first/execute/1", order_id="o-1")
        assert stand.warehouse.held() == [(sku, False)]


async def test_undo_of_what_never_happened_is_done_if_its_status_says_so(tmp_path: Path) -> None:  # R6, R8
    """An answer that nobody understands leaves everybody in doubt, though nothing was reserved: to release it says NOT_FOUND."""
    async with services_stand(tmp_path) as stand:
        await stand.client.register(two_reservations(execute_retry=TWICE))
        saga = await (await stand.order("fail")).wait(timeout=A_MINUTE)
        assert saga.status == COMPENSATED
        assert statuses(saga)["first"] == "COMPENSATED"
        assert (len(stand.warehouse.calls("Release")), stand.warehouse.held()) == (1, [])


async def test_undo_that_is_refused_is_tried_again(tmp_path: Path) -> None:  # R8
    """NOT_FOUND is a refusal like any other where the settings do not say what it means."""
    settings = SETTINGS.replace('nothing_to_undo = ["NOT_FOUND"]', "")
    async with services_stand(tmp_path, settings=settings) as stand:
        await stand.client.register(two_reservations(execute_retry=TWICE))
        handle = await stand.order("fail")
        await wait_until(lambda: len(stand.warehouse.calls("Release")) >= 2)
        saga = await handle.get()
        assert statuses(saga)["first"] == "COMPENSATING"


async def test_service_that_was_away_is_found_again(tmp_path: Path) -> None:
    async with services_stand(tmp_path, REFLECTION) as stand:
        await stand.client.register(two_reservations())
        assert (await (await stand.order("bicycle")).wait(timeout=A_MINUTE)).status == COMPLETED
        stand.warehouse.kill()
        handle = await stand.order("bicycle")
        await until(handle, "attempt_failed")
        await stand.warehouse.start(REFLECTION)
        assert (await handle.wait(timeout=A_MINUTE)).status == COMPLETED


async def test_killed_coordinator_sends_what_was_under_way_again_with_the_same_key(tmp_path: Path) -> None:  # R1, R29
    async with services_stand(tmp_path, REFLECTION) as stand:
        await stand.client.register(two_reservations())
        handle = await stand.order("hold")
        await wait_until(lambda: len(stand.warehouse.calls("Reserve")) == 1)
        stand.coordinator.kill()
        stand.warehouse.go()
        await stand.coordinator.start()
        saga = await handle.wait(timeout=A_MINUTE)
        assert saga.status == COMPLETED
        first, again, _ = stand.warehouse.calls("Reserve")
        assert first.key == again.key
        assert stand.warehouse.held() == [("hold", True), ("pump", True)]


async def test_service_without_reflection_is_shown_with_what_to_do_and_its_calls_wait(tmp_path: Path) -> None:  # R7
    async with services_stand(tmp_path, REFLECTION) as stand:
        stand.warehouse.kill()
        stand.coordinator.terminate()
        await stand.warehouse.start()
        await stand.coordinator.start()
        await stand.client.register(two_reservations())  # of what is not known nothing is refused
        (standing,) = await stand.client.operator.participants()
        assert standing.name == "warehouse"
        assert list(standing.targets) == []
        assert "does not serve reflection; write its descriptors into a file" in standing.last_error.message
        handle = await stand.order("bicycle")
        explanation = await stand.client.operator.explain(handle.id)
        (wait,) = [wait for wait in explanation.waits if wait.reason == operator_pb2.WAIT_REASON_NO_SUCH_PARTICIPANT]
        assert f"what {stand.warehouse.address} takes and returns is not known" in wait.description
        assert stand.warehouse.calls("Reserve") == []
        stand.warehouse.kill()
        await stand.warehouse.start(REFLECTION)
        assert (await handle.wait(timeout=A_MINUTE)).status == COMPLETED


async def test_definition_that_does_not_fit_the_methods_is_refused(stand: Stand) -> None:  # R9
    saga: Saga[Message] = Saga("wrong", input=message_class("PlaceOrder"))
    for action in ("warehouse.reserve", "warehouse.restock"):
        saga.step(action, "input.first", request=message_class("ReserveRequest"), response=message_class("ReleaseRequest"))
    with pytest.raises(InvalidRequest) as refused:
        await stand.client.register(saga)
    assert [each.description for each in refused.value.violations] == [
        "warehouse.reserve returns a warehouse.v1.ReserveReply, found warehouse.v1.ReleaseRequest",
        "participant 'warehouse' has no action 'restock'; it has: reserve",
    ]


async def test_action_without_a_compensation_cannot_be_in_a_step_that_needs_one(tmp_path: Path) -> None:  # R9
    async with services_stand(tmp_path, settings=WITHOUT_UNDO) as stand:
        with pytest.raises(InvalidRequest) as refused:
            await stand.client.register(two_reservations())
        assert {each.field for each in refused.value.violations} == {"definition.steps[0].kind", "definition.steps[1].kind"}
        saga: Saga[Message] = Saga("forward", input=message_class("ReserveRequest"))
        saga.step(
            "warehouse.reserve", request=message_class("ReserveRequest"), response=message_class("ReserveReply"), kind=StepKind.RETRIABLE
        )
        await stand.client.register(saga)
        handle = await stand.client.start("forward", message("ReserveRequest", sku="bicycle"))
        assert (await handle.wait(timeout=A_MINUTE)).status == COMPLETED


async def test_participant_cannot_register_by_the_name_of_a_service(stand: Stand) -> None:  # R18
    """It would know nothing of what the service did, and undo nothing of it."""
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await register(stand.coordinator.address, stand.warehouse.address, "warehouse", "reserve")
    assert refused.value.code() is grpc.StatusCode.ALREADY_EXISTS
    assert "'warehouse' is configured as a service" in (refused.value.details() or "")


async def test_settings_that_do_not_fit_the_descriptors_keep_the_coordinator_from_starting(tmp_path: Path) -> None:
    """Every mistake is told at once, with its place."""
    async with services_stand(tmp_path) as stand:
        stand.coordinator.terminate()
        settings = tmp_path / "saga.toml"
        settings.write_text(settings.read_text().replace("output.reservation_id", "output.id").replace(RESERVE, f"{SERVICE}/Resrve"))
        await stand.coordinator.start(wait=False)
        assert await stand.coordinator.wait() == 2
        assert "participants.warehouse.actions.reserve.execute" in stand.coordinator.log
        assert 'has no method "Resrve"' in stand.coordinator.log.replace("\\", "")


async def test_wrong_settings_of_a_service_that_is_asked_are_shown_until_they_are_mended(tmp_path: Path) -> None:
    settings = SETTINGS.replace('execute = "{reserve}"', 'execute = "warehouse.v1.Warehouse/Resrve"')
    async with services_stand(tmp_path, REFLECTION, settings=settings) as stand:
        await stand.client.register(two_reservations())  # nobody can say yet that it does not fit
        (standing,) = await stand.client.operator.participants()
        assert 'has no method "Resrve"; did you mean "Reserve"?' in standing.last_error.message
        (tmp_path / "saga.toml").write_text((tmp_path / "saga.toml").read_text().replace("Resrve", "Reserve"))
        stand.coordinator.terminate()
        await stand.coordinator.start()
        assert (await (await stand.order("bicycle")).wait(timeout=A_MINUTE)).status == COMPLETED
