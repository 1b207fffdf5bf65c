"""Participants in a gRPC server that a team has already, beside its other services; TLS; heartbeats from handlers."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import grpc
import pytest
from google.protobuf.wrappers_pb2 import StringValue
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from participant_sdk import (
    HostedParticipants,
    HostingOptions,
    NoBarrier,
    Participant,
    ParticipantServer,
    ParticipantSetupError,
    StepContext,
    action,
)
from participant_sdk.testing import completion_token
from saga.v1 import participant_pb2_grpc
from tests.certificates import Certificate, self_signed
from tests.integration.participant.scripted_coordinator import ScriptedCoordinator, served
from tests.integration.participant.till import compensate, execute

SERVICE = "saga.v1.ParticipantService"
SOON = timedelta(seconds=10)


class Slow(Participant, name="slow"):
    def __init__(self) -> None:
        super().__init__(barrier=NoBarrier())
        self.begun = asyncio.Event()
        self.go_on = asyncio.Event()
        self.beats: list[bool] = []

    @action
    async def work(self, request: StringValue, step: StepContext) -> StringValue:
        self.begun.set()
        await self.go_on.wait()
        return StringValue(value="done")

    @action
    async def beat(self, request: StringValue, step: StepContext) -> StringValue:
        beat = await step.heartbeat(progress=StringValue(value="half"))
        return StringValue(value=f"{beat.is_cancelled} {step.cancelled} {beat.time_left}")

    @beat.compensation
    async def unbeat(self, request: StringValue, output: StringValue, step: StepContext) -> None:
        await step.heartbeat()


async def _greet(request: bytes, context: "grpc.aio.ServicerContext[bytes, bytes]") -> bytes:
    return b"hello " + request


class Host:
    """A server as a team has it: a service of its own, health, and a port."""

    def __init__(self) -> None:
        self.server = grpc.aio.server()
        greeting = grpc.method_handlers_generic_handler("greeting.Greeter", {"Greet": grpc.unary_unary_rpc_method_handler(_greet)})
        self.server.add_generic_rpc_handlers((greeting,))
        self.health = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self.health, self.server)
        self.address = f"127.0.0.1:{self.server.add_insecure_port('127.0.0.1:0')}"


@asynccontextmanager
async def started(host: Host) -> AsyncIterator[grpc.aio.Channel]:
    await host.server.start()
    try:
        async with grpc.aio.insecure_channel(host.address) as channel:
            yield channel
    finally:
        await host.server.stop(0)


async def greeting_for(channel: grpc.aio.Channel, name: bytes) -> bytes:
    greet: Any = channel.unary_unary("/greeting.Greeter/Greet")
    answer: bytes = await greet(name)
    return answer


async def health_of(channel: grpc.aio.Channel) -> "health_pb2.HealthCheckResponse.ServingStatus.ValueType":
    return (await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service=SERVICE))).status


async def test_participants_are_served_beside_the_services_that_are_there() -> None:
    coordinator, host, slow = ScriptedCoordinator(), Host(), Slow()
    async with served(coordinator) as address:
        options = HostingOptions(coordinator=address)
        hosted = HostedParticipants(host.server, slow, advertise=host.address, health_servicer=host.health, options=options)
        async with started(host) as channel:
            async with hosted:
                await hosted.wait_registered(SOON)
                assert await health_of(channel) == health_pb2.HealthCheckResponse.SERVING
                assert await greeting_for(channel, b"ann") == b"hello ann"
                stub = participant_pb2_grpc.ParticipantServiceStub(channel)
                slow.go_on.set()
                assert (await stub.Execute(execute("x", action_name="slow.work"))).HasField("succeeded")
            assert await health_of(channel) == health_pb2.HealthCheckResponse.NOT_SERVING
            assert await greeting_for(channel, b"bob") == b"hello bob"
            with pytest.raises(grpc.aio.AioRpcError, match="not served here any more") as refused:
                await stub.Execute(execute("x", action_name="slow.work"))
            assert refused.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_leaving_lets_calls_under_way_end() -> None:
    host, slow = Host(), Slow()
    hosted = HostedParticipants(host.server, slow, advertise=host.address, options=HostingOptions(coordinator=None))
    async with started(host) as channel:
        stub = participant_pb2_grpc.ParticipantServiceStub(channel)
        async with hosted:
            call = asyncio.ensure_future(stub.Execute(execute("x", action_name="slow.work")))
            await slow.begun.wait()
            asyncio.get_running_loop().call_later(0.05, slow.go_on.set)
        assert (await call).HasField("succeeded")


async def test_participants_are_served_once() -> None:
    host = Host()
    hosted = HostedParticipants(host.server, Slow(), advertise=host.address, options=HostingOptions(coordinator=None))
    async with started(host):
        async with hosted:
            pass
        with pytest.raises(ParticipantSetupError, match="were served before"):
            await hosted.__aenter__()


def test_options_are_checked() -> None:
    with pytest.raises(ParticipantSetupError, match="ttl must be from 1 s to 1 h"):
        HostingOptions(ttl=timedelta(days=1))


# ── TLS ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_participant_is_served_over_tls() -> None:
    certificate: Certificate = self_signed()
    credentials = grpc.ssl_server_credentials([(certificate.key, certificate.chain)])
    slow = Slow()
    slow.go_on.set()
    server = ParticipantServer(slow, address="localhost:0", coordinator=None, server_credentials=credentials)
    trusting = grpc.ssl_channel_credentials(root_certificates=certificate.chain)
    async with server, grpc.aio.secure_channel(server.address, trusting) as channel:
        stub = participant_pb2_grpc.ParticipantServiceStub(channel)
        assert (await stub.Execute(execute("x", action_name="slow.work"))).HasField("succeeded")
        async with grpc.aio.insecure_channel(server.address) as plain:
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await participant_pb2_grpc.ParticipantServiceStub(plain).Execute(execute("x", action_name="slow.work"), timeout=5)
            assert refused.value.code() in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED}


# ── Heartbeats ───────────────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("is_wanted", "said"), [(True, "False False 0:05:00"), (False, "True True 0:00:00")])
async def test_handler_learns_by_a_heartbeat_whether_its_step_is_wanted(is_wanted: bool, said: str) -> None:  # R24
    coordinator = ScriptedCoordinator(is_step_wanted=is_wanted)
    request = execute("x", action_name="slow.beat")
    request.completion_token = completion_token(request.saga_id, request.step_id)
    async with (
        served(coordinator) as address,
        ParticipantServer(Slow(), coordinator=address) as server,
        grpc.aio.insecure_channel(server.address) as channel,
    ):
        answer = await participant_pb2_grpc.ParticipantServiceStub(channel).Execute(request)
    output = StringValue()
    answer.succeeded.output.Unpack(output)
    assert output.value == said
    assert coordinator.heartbeats[0].completion_token == request.completion_token
    assert coordinator.heartbeats[0].progress.value == StringValue(value="half").SerializeToString()


async def test_heartbeat_that_nobody_can_hear_is_an_error() -> None:
    async with ParticipantServer(Slow(), coordinator=None) as server, grpc.aio.insecure_channel(server.address) as channel:
        stub = participant_pb2_grpc.ParticipantServiceStub(channel)
        request = execute("x", action_name="slow.beat")
        request.completion_token = completion_token(request.saga_id, request.step_id)
        with pytest.raises(grpc.aio.AioRpcError, match="knows no coordinator to send heartbeats to"):
            await stub.Execute(request)
        undo = compensate("x", action_name="slow.beat", saga_id=request.saga_id)
        undo.succeeded.output.Pack(StringValue(value="x"))
        with pytest.raises(grpc.aio.AioRpcError, match="a compensation has no heartbeat"):
            await stub.Compensate(undo)
