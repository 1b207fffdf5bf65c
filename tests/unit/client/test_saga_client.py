"""The client over a real socket: what it sends, what it repeats, and what it raises."""

import asyncio
import uuid
from datetime import UTC, datetime, timedelta

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2, status_pb2

from participant_sdk.builder import Saga
from participant_sdk.client import (
    AlreadyExists,
    CoordinatorError,
    CoordinatorUnavailable,
    DefinitionNotFound,
    InvalidRequest,
    SagaClient,
    SagaNotCompleted,
    WaitTimedOut,
    output_of,
)
from participant_sdk.client.retries import Retries
from participant_sdk.client.start_calls import IN_FRAMES_FROM
from participant_sdk.client.watching import watch_events
from participant_sdk.ids import new_saga_id
from participant_sdk.rpc_errors import ErrorReason, error_details, status_with
from saga.v1 import coordinator_pb2, coordinator_pb2_grpc, saga_pb2
from shop.v1.shop_pb2 import PaymentCharged, PlaceOrder
from tests.unit.client.fake_coordinator import FakeCoordinator, served, unavailable

ORDER = PlaceOrder(order_id="42", sku="widget", quantity=1)
SHORT = timedelta(milliseconds=300)


def _place_order() -> Saga[PlaceOrder, PaymentCharged]:
    saga = Saga("place-order", input=PlaceOrder, output=PaymentCharged, version=3)
    charged = saga.step("payments.charge", request=PlaceOrder, response=PaymentCharged)
    saga.returns(charged)
    return saga


def _refusal(code: grpc.StatusCode, reason: ErrorReason) -> status_pb2.Status:
    return status_with(code, "because", error_details(reason))


async def _complete(coordinator: FakeCoordinator, saga_id: str) -> None:
    coordinator.sagas[saga_id].output.Pack(PaymentCharged(payment_id="p1", amount_cents=5))
    await coordinator.move(saga_id, saga_pb2.SAGA_STATUS_COMPLETED, saga_completed=saga_pb2.SagaCompleted())


async def _compensate(coordinator: FakeCoordinator, saga_id: str) -> None:
    saga = coordinator.sagas[saga_id]
    saga.cause, saga.failed_step_id = saga_pb2.TURN_BACK_CAUSE_STEP_REJECTED, "charge"
    saga.error.CopyFrom(status_with(grpc.StatusCode.FAILED_PRECONDITION, "no money", error_details_pb2.ErrorInfo(reason="CARD_DECLINED")))
    turned_back = saga_pb2.SagaTurnedBack(cause=saga.cause, step_id="charge", error=saga.error)
    await coordinator.move(saga_id, saga_pb2.SAGA_STATUS_COMPENSATING, saga_turned_back=turned_back)
    await coordinator.move(saga_id, saga_pb2.SAGA_STATUS_COMPENSATED, saga_compensated=saga_pb2.SagaCompensated())


# ── Definitions ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_register_says_whether_it_is_new(client: SagaClient, coordinator: FakeCoordinator) -> None:
    assert await client.register(_place_order())
    assert not await client.register(_place_order())
    (first, second) = coordinator.received(coordinator_pb2.RegisterDefinitionRequest)
    assert first == second
    assert (await client.get_definition("place-order")).definition == _place_order().definition()


async def test_unknown_definition_raises_definition_not_found(client: SagaClient) -> None:
    with pytest.raises(DefinitionNotFound) as caught:
        await client.get_definition("nothing")
    assert caught.value.reason == "DEFINITION_NOT_FOUND"


async def test_list_definitions_reads_every_page(client: SagaClient, coordinator: FakeCoordinator) -> None:
    coordinator.page_size = 2
    for version in range(1, 6):
        definition = saga_pb2.SagaDefinition(name="place-order", version=version)
        coordinator.definitions.append(coordinator_pb2.GetDefinitionResponse(definition=definition))
    assert [definition.version async for definition in client.list_definitions()] == [1, 2, 3, 4, 5]


# ── Starting ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_start_makes_the_id_and_pins_the_version(client: SagaClient, coordinator: FakeCoordinator) -> None:  # R2
    handle = await client.start(_place_order(), ORDER)
    (request,) = coordinator.received(coordinator_pb2.StartSagaRequest)
    assert uuid.UUID(request.saga_id).version == 7
    assert (handle.id, handle.is_new) == (request.saga_id, True)
    assert request.definition == saga_pb2.DefinitionReference(name="place-order", version=3)
    assert not request.wait
    assert PlaceOrder.FromString(request.input.value) == ORDER


async def test_start_sends_every_option(client: SagaClient, coordinator: FakeCoordinator) -> None:
    saga_id = new_saga_id()
    await client.start(
        "place-order",
        ORDER,
        key="order-42",
        key_ttl=timedelta(days=1),
        saga_id=saga_id.upper(),
        version=2,
        labels={"customer": "7"},
        start_at=datetime(2030, 1, 1, tzinfo=UTC),
        time_limit=timedelta(minutes=1),
    )
    expected = coordinator_pb2.StartSagaRequest(
        saga_id=saga_id,
        definition=saga_pb2.DefinitionReference(name="place-order", version=2),
        idempotency_key="order-42",
        idempotency_key_ttl=Duration(seconds=86400),
        labels={"customer": "7"},
        time_limit=Duration(seconds=60),
    )
    expected.input.Pack(ORDER)
    expected.start_at.FromDatetime(datetime(2030, 1, 1))  # noqa: DTZ001 - protobuf reads naive as UTC
    assert coordinator.received(coordinator_pb2.StartSagaRequest) == [expected]


async def test_start_whose_reply_is_lost_is_repeated_with_the_same_request(client: SagaClient, coordinator: FakeCoordinator) -> None:  # R2
    coordinator.lost_replies["StartSaga"].extend(
        [unavailable(), _refusal(grpc.StatusCode.UNAVAILABLE, ErrorReason.JOURNAL_UNAVAILABLE), status_with(grpc.StatusCode.CANCELLED, "")]
    )
    handle = await client.start("place-order", ORDER)
    requests = coordinator.received(coordinator_pb2.StartSagaRequest)
    assert len(requests) == 4
    assert all(request == requests[0] for request in requests)
    assert list(coordinator.sagas) == [handle.id]
    assert handle.is_new is False


async def test_start_while_nobody_listens_raises_unavailable_with_the_id() -> None:
    saga_id = new_saga_id()
    async with SagaClient("127.0.0.1:1", timeout=SHORT) as client:
        with pytest.raises(CoordinatorUnavailable) as caught:
            await client.start("place-order", ORDER, saga_id=saga_id)
    assert caught.value.saga_id == saga_id


async def test_start_before_the_coordinator_is_there_waits_for_it(coordinator: FakeCoordinator) -> None:
    async with served(coordinator) as address:
        pass
    async with SagaClient(address) as client:
        start = asyncio.ensure_future(client.start("place-order", ORDER))
        async with served(coordinator, address):
            handle = await start
    assert list(coordinator.sagas) == [handle.id]


@pytest.mark.parametrize(
    ("reason", "error"),
    [
        (ErrorReason.IDEMPOTENCY_KEY_REUSED, AlreadyExists),
        (ErrorReason.SAGA_ID_REUSED, AlreadyExists),
        (ErrorReason.DEFINITION_NOT_FOUND, DefinitionNotFound),
        (ErrorReason.INPUT_TYPE_MISMATCH, InvalidRequest),
        (ErrorReason.PAYLOAD_TOO_LARGE, InvalidRequest),
    ],
)
async def test_refused_start_raises_by_reason(
    client: SagaClient, coordinator: FakeCoordinator, reason: ErrorReason, error: type[CoordinatorError]
) -> None:
    coordinator.failures["StartSaga"].append(_refusal(grpc.StatusCode.UNKNOWN, reason))
    with pytest.raises(error) as caught:
        await client.start("place-order", ORDER)
    assert caught.value.reason == reason
    assert len(coordinator.requests) == 1


@pytest.mark.parametrize("code", [grpc.StatusCode.INTERNAL, grpc.StatusCode.NOT_FOUND, grpc.StatusCode.UNIMPLEMENTED])
async def test_answer_without_reason_is_no_definite_refusal(
    client: SagaClient, coordinator: FakeCoordinator, code: grpc.StatusCode
) -> None:
    coordinator.failures["StartSaga"].append(status_with(code, "somebody in between"))
    with pytest.raises(CoordinatorError) as caught:
        await client.start("place-order", ORDER)
    assert type(caught.value) is CoordinatorError


async def test_invalid_request_lists_the_violations(client: SagaClient, coordinator: FakeCoordinator) -> None:
    violation = error_details_pb2.BadRequest.FieldViolation(field="labels", description="too many")
    coordinator.failures["StartSaga"].append(
        status_with(
            grpc.StatusCode.INVALID_ARGUMENT,
            "wrong",
            error_details(ErrorReason.REQUEST_INVALID),
            error_details_pb2.BadRequest(field_violations=[violation]),
        )
    )
    with pytest.raises(InvalidRequest) as caught:
        await client.start("place-order", ORDER)
    assert [str(each) for each in caught.value.violations] == ["labels: too many"]


async def test_input_of_another_type_raises_before_anything_is_sent(client: SagaClient, coordinator: FakeCoordinator) -> None:
    with pytest.raises(TypeError, match=r"starts with shop\.v1\.PlaceOrder, found PaymentCharged"):
        await client.start(_place_order(), PaymentCharged())  # type: ignore[misc]
    with pytest.raises(ValueError, match="time zone"):
        await client.start("place-order", ORDER, start_at=datetime(2030, 1, 1))  # noqa: DTZ001
    assert coordinator.requests == []


# ── Waiting ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_run_returns_what_the_saga_returns(client: SagaClient, coordinator: FakeCoordinator) -> None:
    run = asyncio.ensure_future(client.run(_place_order(), ORDER))
    (request,) = await coordinator.wait_for(coordinator_pb2.StartSagaRequest)
    await _complete(coordinator, request.saga_id)
    assert await run == PaymentCharged(payment_id="p1", amount_cents=5)


async def test_run_of_a_saga_without_output_returns_none(client: SagaClient, coordinator: FakeCoordinator) -> None:
    run = asyncio.ensure_future(client.run(Saga("place-order", input=PlaceOrder), ORDER))
    (request,) = await coordinator.wait_for(coordinator_pb2.StartSagaRequest)
    await _complete(coordinator, request.saga_id)
    assert list(await asyncio.gather(run)) == [None]


async def test_run_by_name_returns_the_completed_saga(client: SagaClient, coordinator: FakeCoordinator) -> None:
    run = asyncio.ensure_future(client.run("place-order", ORDER))
    (request,) = await coordinator.wait_for(coordinator_pb2.StartSagaRequest)
    await _complete(coordinator, request.saga_id)
    assert output_of(await run, PaymentCharged) == PaymentCharged(payment_id="p1", amount_cents=5)


async def test_run_across_a_restart_asks_again_with_the_same_id(coordinator: FakeCoordinator) -> None:  # R2
    async with served(coordinator) as address:
        client = SagaClient(address)
        run = asyncio.ensure_future(client.run("place-order", ORDER))
        (first,) = await coordinator.wait_for(coordinator_pb2.StartSagaRequest)
    async with served(coordinator, address), client:
        _, second = await coordinator.wait_for(coordinator_pb2.StartSagaRequest, 2)
        assert first == second
        await _complete(coordinator, first.saga_id)
        assert (await run).id == first.saga_id


async def test_run_that_takes_too_long_raises_wait_timed_out(client: SagaClient, coordinator: FakeCoordinator) -> None:
    with pytest.raises(WaitTimedOut) as caught:
        await client.run("place-order", ORDER, timeout=SHORT)
    assert [caught.value.saga_id] == list(coordinator.sagas)


@pytest.mark.parametrize("by_run", [True, False])
async def test_saga_that_was_undone_raises_not_completed(client: SagaClient, coordinator: FakeCoordinator, *, by_run: bool) -> None:
    async def outcome() -> None:
        if by_run:
            await client.run("place-order", ORDER)
        else:
            await (await client.start("place-order", ORDER)).result()

    waiting = asyncio.ensure_future(outcome())
    (request,) = await coordinator.wait_for(coordinator_pb2.StartSagaRequest)
    await _compensate(coordinator, request.saga_id)
    with pytest.raises(SagaNotCompleted) as caught:
        await waiting
    error = caught.value
    assert (error.saga_id, error.status) == (request.saga_id, saga_pb2.SAGA_STATUS_COMPENSATED)
    assert (error.cause, error.failed_step, error.reason) == (saga_pb2.TURN_BACK_CAUSE_STEP_REJECTED, "charge", "CARD_DECLINED")


async def test_failed_saga_does_not_wait_for_ever(client: SagaClient, coordinator: FakeCoordinator) -> None:  # R15
    handle = await client.start("place-order", ORDER)
    await coordinator.move(handle.id, saga_pb2.SAGA_STATUS_FAILED, saga_failed=saga_pb2.SagaFailed())
    with pytest.raises(SagaNotCompleted, match="a person is needed") as caught:
        await handle.result()
    assert caught.value.failed_step is None


async def test_result_waits_and_unpacks(client: SagaClient, coordinator: FakeCoordinator) -> None:
    handle = await client.start("place-order", ORDER)
    result = asyncio.ensure_future(handle.result(PaymentCharged))
    await coordinator.wait_for(coordinator_pb2.WatchSagaRequest)
    await _complete(coordinator, handle.id)
    assert await result == PaymentCharged(payment_id="p1", amount_cents=5)


async def test_result_has_the_type_that_the_saga_returns(client: SagaClient, coordinator: FakeCoordinator) -> None:
    handle = await client.start(_place_order(), ORDER)
    await _complete(coordinator, handle.id)
    assert (await handle.result()).payment_id == "p1"
    assert (await client.attach(handle.id, _place_order()).result()).payment_id == "p1"
    assert list(await asyncio.gather(client.attach(handle.id).result())) == [None]


async def test_result_of_another_type_than_the_definition_says_raises_type_error(client: SagaClient, coordinator: FakeCoordinator) -> None:
    handle = await client.start(Saga("place-order", input=PlaceOrder, output=PlaceOrder), ORDER)
    await _complete(coordinator, handle.id)
    with pytest.raises(TypeError, match=r"expected shop\.v1\.PlaceOrder, found shop\.v1\.PaymentCharged"):
        await handle.result()


async def test_result_of_a_saga_that_returned_nothing_raises_type_error(client: SagaClient, coordinator: FakeCoordinator) -> None:
    handle = await client.start(_place_order(), ORDER)
    await coordinator.move(handle.id, saga_pb2.SAGA_STATUS_COMPLETED, saga_completed=saga_pb2.SagaCompleted())
    with pytest.raises(TypeError, match="has no output"):
        await handle.result()


async def test_result_of_another_type_raises_type_error(client: SagaClient, coordinator: FakeCoordinator) -> None:
    handle = await client.start("place-order", ORDER)
    await _complete(coordinator, handle.id)
    with pytest.raises(TypeError, match=r"expected shop\.v1\.PlaceOrder, found shop\.v1\.PaymentCharged"):
        await handle.result(PlaceOrder)


# ── Watching ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_watch_that_breaks_goes_on_without_gap_or_double(client: SagaClient, coordinator: FakeCoordinator) -> None:  # H2
    handle = await client.start("place-order", ORDER)
    for _ in range(4):
        await coordinator.move(handle.id, saga_pb2.SAGA_STATUS_RUNNING, step_succeeded=saga_pb2.StepSucceeded())
    await _complete(coordinator, handle.id)
    coordinator.watch_breaks_after.extend([2, 0, 1])
    assert [response.event.sequence async for response in handle.watch()] == [1, 2, 3, 4, 5, 6]
    assert [request.after_sequence for request in coordinator.received(coordinator_pb2.WatchSagaRequest)] == [0, 2, 2, 3]


async def test_watch_across_a_restart_goes_on(coordinator: FakeCoordinator) -> None:
    async with served(coordinator) as address:
        client = SagaClient(address)
        handle = await client.start("place-order", ORDER)
        events = handle.watch()
        assert (await anext(events)).event.sequence == 1
        following = asyncio.ensure_future(anext(events))
        await coordinator.wait_for(coordinator_pb2.WatchSagaRequest)
    async with served(coordinator, address), client:
        await coordinator.move(handle.id, saga_pb2.SAGA_STATUS_RUNNING, step_succeeded=saga_pb2.StepSucceeded())
        assert (await following).event.sequence == 2
        await events.aclose()


async def test_watch_after_the_last_event_of_an_ended_saga_ends(client: SagaClient, coordinator: FakeCoordinator) -> None:
    handle = await client.start("place-order", ORDER)
    await _complete(coordinator, handle.id)
    assert [response async for response in handle.watch(after=2)] == []


async def test_watch_with_timeout_raises_wait_timed_out(client: SagaClient) -> None:
    handle = await client.start("place-order", ORDER)
    with pytest.raises(WaitTimedOut):
        _ = [response async for response in handle.watch(timeout=SHORT)]


async def test_watch_while_nobody_listens_raises_unavailable() -> None:
    async with SagaClient("127.0.0.1:1", timeout=SHORT) as client:
        with pytest.raises(CoordinatorUnavailable):
            await anext(client.watch(new_saga_id()))


@pytest.mark.parametrize("code", [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.INTERNAL])
async def test_starts_on_a_stream_that_breaks_are_repeated(address: str, coordinator: FakeCoordinator, code: grpc.StatusCode) -> None:  # R2
    """gRPC calls it INTERNAL when it cannot write to a connection that is breaking."""
    coordinator.failures["StartSagas"].append(status_with(code, "Internal error from Core"))
    async with SagaClient(address, start_in_frames=True) as client:
        handles = await asyncio.gather(*(client.start("place-order", ORDER) for _ in range(3)))
    assert {handle.id for handle in handles} == set(coordinator.sagas)
    assert coordinator.streams >= 2


async def test_watch_of_a_silent_saga_over_connections_that_break_is_no_outage(coordinator: FakeCoordinator, address: str) -> None:
    """It is heard each time: so it is not given up, although nothing was told for longer than an outage may last."""
    coordinator.silent_watches = asyncio.Queue()
    coordinator.sagas["s"] = saga_pb2.Saga(id="s")
    heard, now_s = asyncio.Event(), 0.0

    class Heard(Retries):
        def note_progress(self) -> None:
            super().note_progress()
            heard.set()

    retries = Heard(outage=timedelta(seconds=10), timeout=None, now=lambda: now_s)
    async with grpc.aio.insecure_channel(address) as channel, asyncio.timeout(30):
        events = watch_events(coordinator_pb2_grpc.SagaServiceStub(channel), "s", after=0, retries=retries)
        following = asyncio.ensure_future(anext(events))
        for _ in range(5):
            broken = await coordinator.silent_watches.get()
            await heard.wait()
            heard.clear()
            now_s += 6.0
            broken.set()
        await heard.wait()
        assert not following.done()
        following.cancel()
        await asyncio.wait((following,))


async def test_watch_with_a_missing_event_is_refused(client: SagaClient, coordinator: FakeCoordinator) -> None:
    handle = await client.start("place-order", ORDER)
    coordinator.events[handle.id][0].event.sequence = 2
    with pytest.raises(CoordinatorError, match="expected event 1, found 2"):
        await anext(handle.watch())


async def test_many_starts_go_in_frames_and_one_by_one_where_nobody_knows_frames(client: SagaClient, coordinator: FakeCoordinator) -> None:
    await client.start("place-order", ORDER)
    assert coordinator.streams == 0  # one at a time needs no company
    await asyncio.gather(*(client.start("place-order", ORDER) for _ in range(2 * IN_FRAMES_FROM)))
    assert coordinator.streams == 1
    assert len(coordinator.received(coordinator_pb2.StartSagaRequest)) == 1 + 2 * IN_FRAMES_FROM
    await asyncio.gather(*(client.start("place-order", ORDER) for _ in range(2 * IN_FRAMES_FROM)))
    assert coordinator.streams == 1  # not asked again so soon
