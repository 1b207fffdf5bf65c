"""Both services over a real socket: every method is served, refusals arrive with their reasons, and streams end."""

import asyncio
from collections.abc import AsyncIterator, Awaitable

import grpc
import pytest
from google.protobuf.wrappers_pb2 import StringValue
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from coordinator.api import ApiServer
from coordinator.api.parts import ServiceParts
from coordinator.api.server import make_server
from coordinator.core.values import SagaStatus
from coordinator.dispatcher.channels import open_channel
from coordinator.engine.shards import ONE_SHARD
from participant_sdk.ids import new_saga_id
from participant_sdk.rpc_errors import error_reason, from_rpc_error
from saga.v1 import coordinator_pb2, coordinator_pb2_grpc, operator_pb2, operator_pb2_grpc, participant_pb2, saga_pb2
from tests.builders import SAGA
from tests.unit.api.stand import PAYLOAD_BYTES_MAX, Stand, accepted, done, opened, packed

TIMEOUT_S = 10.0


class Nobody:
    """A directory in which no participant is known."""

    async def register(self, target: str, description: participant_pb2.ParticipantDescription, ttl_us: int) -> None:
        """Forgets it."""

    async def describe(self, participant: str) -> participant_pb2.ParticipantDescription | None:
        """Nobody describes anything."""
        return None


class Served:
    """A stand that listens, and the stubs to call it."""

    def __init__(self, stand: Stand, channel: grpc.aio.Channel) -> None:
        self.stand = stand
        self.channel = channel
        self.sagas = coordinator_pb2_grpc.SagaServiceStub(channel)
        self.operator = operator_pb2_grpc.OperatorServiceStub(channel)


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    async with opened() as stand:
        parts = ServiceParts(
            clock=stand.clock,
            engine=stand.engine,
            journal=stand.journal,
            catalog=stand.catalog,
            participants=Nobody(),
            whereabouts=stand.whereabouts,
            shards=ONE_SHARD,
            hints=None,
            open_channel=open_channel,
            tokens=stand.tokens,
            payload_bytes_max=PAYLOAD_BYTES_MAX,
            trace_sample_ratio=0.0,
        )
        server = ApiServer(parts=parts, address="127.0.0.1:0", server=make_server())
        await server.start()
        try:
            async with grpc.aio.insecure_channel(server.address) as channel:
                yield Served(stand, channel)
        finally:
            await server.stop()


async def refused(call: Awaitable[object]) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value.code(), error_reason(from_rpc_error(caught.value))


async def test_stuck_saga_is_looked_at_and_moved(served: Served) -> None:
    await served.stand.fail()
    explained = await served.operator.ExplainSaga(operator_pb2.ExplainSagaRequest(saga_id=SAGA), timeout=TIMEOUT_S)
    assert explained.waits[0].reason == operator_pb2.WAIT_REASON_INCIDENT
    assert "RetryStep ship (as it is or with an input)" in explained.choices
    listed = await served.operator.ListIncidents(operator_pb2.ListIncidentsRequest(definition_name="trip"), timeout=TIMEOUT_S)
    assert [(one.saga_id, one.incident.step_id, one.incident.id) for one in listed.incidents] == [(SAGA, "ship", 1)]
    retry = operator_pb2.RetryStepRequest(saga_id=SAGA, step_id="ship", input=packed("another street"), reason="moved", actor="ann")
    answer = await served.operator.RetryStep(retry, timeout=TIMEOUT_S)
    assert (answer.saga.status, answer.saga.needs_person) == (saga_pb2.SAGA_STATUS_RUNNING, False)
    assert not (await served.operator.ListIncidents(operator_pb2.ListIncidentsRequest(), timeout=TIMEOUT_S)).incidents
    closed = await served.operator.ListIncidents(operator_pb2.ListIncidentsRequest(include_closed=True), timeout=TIMEOUT_S)
    assert closed.incidents[0].incident.HasField("closed_at")


async def test_saga_is_paused_changed_resumed_and_terminated(served: Served) -> None:
    await served.stand.start()
    paused = await served.operator.PauseSaga(operator_pb2.PauseSagaRequest(saga_id=SAGA, actor="ann"), timeout=TIMEOUT_S)
    assert paused.saga.paused.actor == "ann"
    found = await served.sagas.ListSagas(coordinator_pb2.ListSagasRequest(paused=True), timeout=TIMEOUT_S)
    assert [(one.id, one.HasField("paused")) for one in found.sagas] == [(SAGA, True)]
    change = operator_pb2.ChangeStepPolicyRequest(saga_id=SAGA, step_id="reserve", actor="ann")
    change.policy.attempt_timeout.FromSeconds(60)
    assert (await served.operator.ChangeStepPolicy(change, timeout=TIMEOUT_S)).saga.id == SAGA
    resumed = await served.operator.ResumeSaga(operator_pb2.ResumeSagaRequest(saga_id=SAGA), timeout=TIMEOUT_S)
    assert not resumed.saga.HasField("paused")
    ended = await served.operator.TerminateSaga(operator_pb2.TerminateSagaRequest(saga_id=SAGA, reason="enough"), timeout=TIMEOUT_S)
    assert (ended.saga.status, ended.saga.terminated.reason) == (saga_pb2.SAGA_STATUS_FAILED, "enough")
    watched = served.sagas.WatchSaga(coordinator_pb2.WatchSagaRequest(saga_id=SAGA), timeout=TIMEOUT_S)
    facts = [response.event.WhichOneof("fact") async for response in watched]
    assert facts == ["saga_started", "saga_paused", "step_policy_changed", "saga_resumed", "saga_terminated"]


async def test_step_is_resolved_and_the_saga_ends(served: Served) -> None:
    await served.stand.fail()
    resolve = operator_pb2.ResolveStepRequest(saga_id=SAGA, step_id="ship", succeeded=packed("by hand"), reason="seen", actor="ann")
    answer = await served.operator.ResolveStep(resolve, timeout=TIMEOUT_S)
    assert answer.saga.status == saga_pb2.SAGA_STATUS_COMPLETED
    whole = await served.sagas.GetSaga(coordinator_pb2.GetSagaRequest(saga_id=SAGA), timeout=TIMEOUT_S)
    output = StringValue()
    assert whole.saga.output.Unpack(output)
    assert output.value == "by hand"
    given = operator_pb2.ResolveOutputRequest(saga_id=SAGA, output=packed("x"), reason="seen")
    assert await refused(served.operator.ResolveOutput(given, timeout=TIMEOUT_S)) == (
        grpc.StatusCode.FAILED_PRECONDITION,
        "SAGA_ALREADY_ENDED",
    )


async def test_refusals_arrive_with_code_and_reason(served: Served) -> None:
    await served.stand.start()
    retry = operator_pb2.RetryStepRequest(saga_id=SAGA, step_id="reserve")
    assert await refused(served.operator.RetryStep(retry, timeout=TIMEOUT_S)) == (
        grpc.StatusCode.FAILED_PRECONDITION,
        "ATTEMPT_UNDER_WAY",
    )
    retry.step_id = "sail"
    assert await refused(served.operator.RetryStep(retry, timeout=TIMEOUT_S)) == (grpc.StatusCode.NOT_FOUND, "STEP_NOT_FOUND")
    nothing = operator_pb2.TerminateSagaRequest(saga_id=SAGA)
    assert await refused(served.operator.TerminateSaga(nothing, timeout=TIMEOUT_S)) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        "REQUEST_INVALID",
    )


async def test_many_sagas_are_acted_on_one_response_each(served: Served) -> None:
    await served.stand.fail()
    request = operator_pb2.ActOnSagasRequest(action=operator_pb2.BULK_ACTION_RETRY, dry_run=True)
    request.selection.needs_person = True
    dry = [response async for response in served.operator.ActOnSagas(request, timeout=TIMEOUT_S)]
    assert [(one.saga.id, one.found, one.HasField("error")) for one in dry] == [(SAGA, 1, False)]
    request.dry_run, request.reason = False, "van is back"
    request.saga_ids.append(dry[0].saga.id)
    async for response in served.operator.ActOnSagas(request, timeout=TIMEOUT_S):
        assert response.saga.status == saga_pb2.SAGA_STATUS_RUNNING


async def test_participants_are_listed_by_name(served: Served) -> None:
    listed = await served.operator.ListParticipants(operator_pb2.ListParticipantsRequest(), timeout=TIMEOUT_S)
    assert [(one.name, one.concurrency, one.circuit) for one in listed.participants] == [
        ("charge", 8, operator_pb2.CIRCUIT_STATE_CLOSED),
        ("ship", 8, operator_pb2.CIRCUIT_STATE_CLOSED),
    ]


async def test_accepted_step_is_kept_alive_and_completed(served: Served) -> None:
    await served.stand.start()
    await served.stand.end("reserve", accepted(60))
    token = served.stand.token("reserve")
    beat = await served.sagas.HeartbeatStep(coordinator_pb2.HeartbeatStepRequest(completion_token=token), timeout=TIMEOUT_S)
    assert (beat.time_left.ToSeconds(), beat.cancelled) == (60, False)
    complete = coordinator_pb2.CompleteStepRequest(completion_token=token, succeeded=participant_pb2.Succeeded(output=packed("R-1")))
    assert not (await served.sagas.CompleteStep(complete, timeout=TIMEOUT_S)).repeated
    assert (await served.sagas.CompleteStep(complete, timeout=TIMEOUT_S)).repeated


async def test_deadline_of_the_call_bounds_the_saga_when_asked(served: Served) -> None:  # H5
    request = coordinator_pb2.StartSagaRequest(saga_id=SAGA, input=packed("order-42"), inherit_deadline=True)
    request.definition.name = "trip"
    assert await refused(served.sagas.StartSaga(request)) == (grpc.StatusCode.INVALID_ARGUMENT, "REQUEST_INVALID")
    answer = await served.sagas.StartSaga(request, timeout=TIMEOUT_S)
    left_s = (answer.saga.deadline.ToDatetime() - answer.saga.created_at.ToDatetime()).total_seconds()
    assert 0 < left_s <= TIMEOUT_S * 1.02  # gRPC rounds deadlines up


async def test_waiting_start_does_not_wait_for_the_hook(served: Served) -> None:
    definition = (await served.stand.catalog.find("trip", 1)).message  # type: ignore[union-attr]
    hooked = saga_pb2.SagaDefinition()
    hooked.CopyFrom(definition)
    hooked.version = 2
    hooked.on_success.action, hooked.on_success.input_type = "mail.send", definition.input_type
    hooked.on_success.output_type = definition.input_type
    await served.stand.register(hooked)
    request = coordinator_pb2.StartSagaRequest(saga_id=SAGA, input=packed("order-42"), wait=True)
    request.definition.name = "trip"
    waiting = asyncio.ensure_future(_answer(served.sagas.StartSaga(request, timeout=TIMEOUT_S)))
    for step_id in ("reserve", "charge", "ship"):
        async with asyncio.timeout(TIMEOUT_S):
            while f"{step_id} execute 1" not in served.stand.dispatcher.sent():
                await asyncio.sleep(0)
        await served.stand.end(step_id, done())
    answer = await waiting
    assert answer.saga.status == saga_pb2.SAGA_STATUS_COMPLETED
    assert answer.saga.hook.status == saga_pb2.STEP_STATUS_EXECUTING
    assert await served.stand.status() is SagaStatus.COMPLETED
    request.wait = False
    again = await served.sagas.StartSaga(request, timeout=TIMEOUT_S)
    assert (again.created, again.saga.status) == (False, saga_pb2.SAGA_STATUS_COMPLETED)
    assert {field.name for field, _ in again.saga.ListFields()}.isdisjoint({"hook", "steps", "output", "input"})


async def test_start_that_is_there_and_sleeps_is_waited_for(served: Served) -> None:  # D9
    served.stand.engine.held._resting_max = 1
    request = coordinator_pb2.StartSagaRequest(saga_id=SAGA, input=packed("order-42"))
    request.definition.name = "trip"
    request.start_at.FromSeconds(2_000)
    await served.sagas.StartSaga(request, timeout=TIMEOUT_S)
    other = coordinator_pb2.StartSagaRequest()
    other.CopyFrom(request)
    other.saga_id = new_saga_id()
    await served.sagas.StartSaga(other, timeout=TIMEOUT_S)
    assert SAGA not in served.stand.engine.held
    request.wait = True
    waiting = asyncio.ensure_future(_answer(served.sagas.StartSaga(request, timeout=TIMEOUT_S)))
    async with asyncio.timeout(TIMEOUT_S):
        while SAGA not in served.stand.engine._subscriptions._listeners:
            await asyncio.sleep(0)
    await served.sagas.CancelSaga(coordinator_pb2.CancelSagaRequest(saga_id=SAGA), timeout=TIMEOUT_S)
    answer = await waiting
    assert (answer.created, answer.saga.status) == (False, saga_pb2.SAGA_STATUS_COMPENSATED)


async def _answer(call: Awaitable[coordinator_pb2.StartSagaResponse]) -> coordinator_pb2.StartSagaResponse:
    return await call


async def test_both_services_are_announced(served: Served) -> None:
    names = {"saga.v1.SagaService", "saga.v1.OperatorService"}
    health = health_pb2_grpc.HealthStub(served.channel)
    for name in names:
        answer = await health.Check(health_pb2.HealthCheckRequest(service=name), timeout=TIMEOUT_S)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
    stub = reflection_pb2_grpc.ServerReflectionStub(served.channel)
    asked = reflection_pb2.ServerReflectionRequest(list_services="*")
    async for reply in stub.ServerReflectionInfo(iter([asked]), timeout=TIMEOUT_S):
        assert names <= {service.name for service in reply.list_services_response.service}
