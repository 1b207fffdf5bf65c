"""Deadlines that are inherited, hooks that are waited for, and steps that finish later: the client over a real socket."""

import asyncio
from datetime import timedelta

import grpc
import pytest

from participant_sdk.client import SagaClient, SagaNotCompleted, StepNotWaitingError
from participant_sdk.completion_token import SIGNATURE_BYTES, CompletionIdentity, write_token
from participant_sdk.errors import Rejected
from participant_sdk.ids import new_saga_id
from participant_sdk.rpc_errors import ErrorReason, error_details, status_with
from saga.v1 import coordinator_pb2, saga_pb2
from shop.v1.shop_pb2 import PaymentCharged, PlaceOrder
from tests.unit.client.fake_coordinator import FakeCoordinator

ORDER = PlaceOrder(order_id="42", sku="widget", quantity=1)


async def _complete(coordinator: FakeCoordinator, saga_id: str) -> None:
    await coordinator.move(saga_id, saga_pb2.SAGA_STATUS_COMPLETED, saga_completed=saga_pb2.SagaCompleted())


# ── Deadlines, filters, hooks ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("waits", [True, False])
async def test_start_that_inherits_a_deadline_calls_with_that_deadline(  # H5
    client: SagaClient, coordinator: FakeCoordinator, *, waits: bool
) -> None:
    timeout = timedelta(seconds=90)
    if waits:
        run = asyncio.ensure_future(client.run("place-order", ORDER, timeout=timeout, inherit_deadline=True))
        (request,) = await coordinator.wait_for(coordinator_pb2.StartSagaRequest)
        await _complete(coordinator, request.saga_id)
        await run
    else:
        await client.start("place-order", ORDER, timeout=timeout, inherit_deadline=True)
        (request,) = coordinator.received(coordinator_pb2.StartSagaRequest)
    assert request.inherit_deadline
    left = coordinator.seconds_left[0]
    assert left is not None
    assert 80 < left < 91  # and not the 10 s or 60 s of one attempt


async def test_start_without_it_leaves_the_deadline_of_one_attempt_to_itself(client: SagaClient, coordinator: FakeCoordinator) -> None:
    await client.start("place-order", ORDER, timeout=timedelta(seconds=90))
    (request,) = coordinator.received(coordinator_pb2.StartSagaRequest)
    assert not request.inherit_deadline
    assert coordinator.seconds_left[0] is not None
    assert coordinator.seconds_left[0] < 11


async def test_start_that_inherits_no_deadline_is_not_sent(client: SagaClient, coordinator: FakeCoordinator) -> None:
    with pytest.raises(ValueError, match="inherit_deadline needs timeout"):
        await client.start("place-order", ORDER, inherit_deadline=True)
    assert coordinator.requests == []


async def test_list_sends_what_is_asked_for_and_leaves_out_what_is_not(client: SagaClient, coordinator: FakeCoordinator) -> None:
    _ = [saga async for saga in client.list(paused=True, needs_person=False)]
    _ = [saga async for saga in client.list()]
    narrow, wide = coordinator.received(coordinator_pb2.ListSagasRequest)
    assert (narrow.paused, narrow.needs_person) == (True, False)
    assert (narrow.HasField("needs_person"), wide.HasField("paused"), wide.HasField("needs_person")) == (True, False, False)


async def test_watch_goes_on_until_the_hook_is_at_rest(client: SagaClient, coordinator: FakeCoordinator) -> None:  # R16
    handle = await client.start("place-order", ORDER)
    coordinator.sagas[handle.id].hook.status = saga_pb2.STEP_STATUS_EXECUTING
    await _complete(coordinator, handle.id)
    coordinator.watch_ends_after.append(2)  # just when the saga itself has ended
    events = handle.watch()
    assert [(await anext(events)).event.sequence for _ in range(2)] == [1, 2]
    following = asyncio.ensure_future(anext(events))
    await coordinator.wait_for(coordinator_pb2.WatchSagaRequest, 2)  # it has asked how the saga stands, and watches on
    coordinator.sagas[handle.id].hook.status = saga_pb2.STEP_STATUS_SUCCEEDED
    await coordinator.move(handle.id, saga_pb2.SAGA_STATUS_COMPLETED, step_succeeded=saga_pb2.StepSucceeded())
    assert (await following).event.sequence == 3
    assert [response async for response in events] == []


async def test_watch_whose_stream_ends_early_goes_on_to_the_last_event(client: SagaClient, coordinator: FakeCoordinator) -> None:
    handle = await client.start("place-order", ORDER)
    await _complete(coordinator, handle.id)
    coordinator.watch_ends_after.append(1)
    assert [response.event.sequence async for response in handle.watch()] == [1, 2]


async def test_watch_of_a_failed_saga_ends_when_it_is_terminated(client: SagaClient, coordinator: FakeCoordinator) -> None:  # R15
    handle = await client.start("place-order", ORDER)
    await coordinator.move(handle.id, saga_pb2.SAGA_STATUS_FAILED, saga_failed=saga_pb2.SagaFailed())
    coordinator.sagas[handle.id].terminated.actor = "ann"
    await coordinator.move(handle.id, saga_pb2.SAGA_STATUS_FAILED, saga_terminated=saga_pb2.SagaTerminated(actor="ann"))
    assert [response.event.sequence async for response in handle.watch()] == [1, 2, 3]


async def test_result_of_a_terminated_saga_says_who_did_it(client: SagaClient, coordinator: FakeCoordinator) -> None:
    handle = await client.start("place-order", ORDER)
    coordinator.sagas[handle.id].terminated.actor = "ann"
    coordinator.sagas[handle.id].terminated.reason = "by hand"
    await coordinator.move(handle.id, saga_pb2.SAGA_STATUS_FAILED, saga_terminated=saga_pb2.SagaTerminated(actor="ann"))
    with pytest.raises(SagaNotCompleted, match="is FAILED; terminated by ann: by hand"):
        await handle.result()


# ── Steps that finish later ──────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_accepted_step_is_completed_rejected_and_kept_alive(client: SagaClient, coordinator: FakeCoordinator) -> None:  # R24
    token = write_token(CompletionIdentity(new_saga_id(), "approve", 1), bytes(SIGNATURE_BYTES))
    beat = await client.heartbeat(token, time_limit=timedelta(minutes=5), progress=PlaceOrder(order_id="42"))
    assert (beat.time_left, beat.is_cancelled, beat.is_turn_back_requested) == (timedelta(minutes=5), False, True)
    assert await client.complete_step(token, PaymentCharged(payment_id="p1")) is False
    assert await client.reject_step(token, Rejected("DENIED", "not this year")) is True
    (heartbeat,) = coordinator.received(coordinator_pb2.HeartbeatStepRequest)
    completed, rejected = coordinator.received(coordinator_pb2.CompleteStepRequest)
    assert {request.completion_token for request in (heartbeat, completed, rejected)} == {token}
    assert PaymentCharged.FromString(completed.succeeded.output.value) == PaymentCharged(payment_id="p1")
    assert rejected.rejected.status.message == "not this year"


async def test_completion_that_is_too_late_raises_step_not_waiting(client: SagaClient, coordinator: FakeCoordinator) -> None:  # R24
    token = write_token(CompletionIdentity(new_saga_id(), "approve", 1), bytes(SIGNATURE_BYTES))
    coordinator.failures["CompleteStep"].append(
        status_with(grpc.StatusCode.FAILED_PRECONDITION, "over", error_details(ErrorReason.STEP_NOT_WAITING))
    )
    with pytest.raises(StepNotWaitingError):
        await client.complete_step(token, PaymentCharged())
