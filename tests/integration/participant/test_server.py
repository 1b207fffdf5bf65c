"""The server around a participant: describe, health, reflection, drain, registration, and the process."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import TypeAlias

import grpc
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.wrappers_pb2 import Int64Value, StringValue
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from participant_sdk import (
    BarrierTableMissingError,
    NoBarrier,
    Participant,
    ParticipantServer,
    ParticipantSetupError,
    StepContext,
    action,
)
from participant_sdk.testing import MemoryBarrier
from saga.v1 import coordinator_pb2, participant_pb2, participant_pb2_grpc, saga_pb2
from tests.integration.participant.till import Scale, Till, execute

Stub: TypeAlias = "participant_pb2_grpc.ParticipantServiceAsyncStub"
SERVICE = "saga.v1.ParticipantService"
SOON = timedelta(seconds=10)


@asynccontextmanager
async def connected(server: ParticipantServer) -> AsyncIterator[tuple[grpc.aio.Channel, Stub]]:
    async with grpc.aio.insecure_channel(server.address) as channel:
        yield channel, participant_pb2_grpc.ParticipantServiceStub(channel)


async def test_describe_tells_types_descriptors_and_promises() -> None:
    class Events(Participant, name="events"):
        @action
        async def note(self, request: saga_pb2.Saga, step: StepContext) -> saga_pb2.Event:
            return saga_pb2.Event()

    async with ParticipantServer(Events(barrier=MemoryBarrier()), coordinator=None) as server, connected(server) as (_, stub):
        description = (await stub.Describe(participant_pb2.DescribeRequest())).description
    assert (description.name, description.guarantee) == ("events", participant_pb2.GUARANTEE_EFFECT_ONCE)
    assert description.retention.ToTimedelta() == timedelta(days=30)
    assert list(description.actions) == [
        participant_pb2.ActionDescription(
            name="note", input_type="saga.v1.Saga", output_type="saga.v1.Event", effect=participant_pb2.EFFECT_DATABASE
        )
    ]
    names = [file.name for file in description.descriptors.file]
    assert names == ["google/rpc/status.proto", "saga/v1/saga.proto"]


async def test_describe_of_several_asks_for_a_name() -> None:
    async with ParticipantServer(Till(), Scale(), coordinator=None) as server, connected(server) as (_, stub):
        found = await stub.Describe(participant_pb2.DescribeRequest(participant="scale"))
        assert found.description.name == "scale"
        assert found.description.guarantee == participant_pb2.GUARANTEE_AT_LEAST_ONCE
        assert not found.description.HasField("retention")
        for name in ("", "nobody"):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub.Describe(participant_pb2.DescribeRequest(participant=name))
            assert caught.value.code() is grpc.StatusCode.NOT_FOUND
            assert "scale, till" in (caught.value.details() or "")


async def test_health_and_reflection_are_served() -> None:
    async with ParticipantServer(Till(), coordinator=None) as server, connected(server) as (channel, _):
        health = health_pb2_grpc.HealthStub(channel)
        for service in ("", SERVICE):
            checked = await health.Check(health_pb2.HealthCheckRequest(service=service))
            assert checked.status == health_pb2.HealthCheckResponse.SERVING
        reflection = reflection_pb2_grpc.ServerReflectionStub(channel)
        asked = [
            reflection_pb2.ServerReflectionRequest(list_services=""),
            reflection_pb2.ServerReflectionRequest(file_containing_symbol=SERVICE),
            reflection_pb2.ServerReflectionRequest(file_containing_symbol="google.protobuf.Int64Value"),
        ]
        listed, service_file, message_file = [answer async for answer in reflection.ServerReflectionInfo(iter(asked))]
        assert SERVICE in [each.name for each in listed.list_services_response.service]
        assert _names(service_file) >= {"saga/v1/participant.proto"}
        assert _names(message_file) >= {"google/protobuf/wrappers.proto"}


def _names(answer: reflection_pb2.ServerReflectionResponse) -> set[str]:
    files = answer.file_descriptor_response.file_descriptor_proto
    return {FileDescriptorProto.FromString(each).name for each in files}


async def test_stop_lets_calls_under_way_end() -> None:
    till = Till()
    server = ParticipantServer(till, coordinator=None)
    await server.start()
    async with connected(server) as (_, stub):
        call = stub.Execute(execute("wait"))
        await till.entered.wait()
        async with asyncio.TaskGroup() as tasks:
            stopping = tasks.create_task(server.stop())
            await asyncio.sleep(0)
            till.gate.set()
        assert stopping.done()
        assert Int64Value.FromString((await call).succeeded.output.value).value == 7
    await server.stop()


async def test_stop_cuts_short_what_does_not_end_within_the_limit() -> None:
    till = Till(barrier=MemoryBarrier())
    server = ParticipantServer(till, coordinator=None, drain_time_limit=timedelta(milliseconds=50))
    await server.start()
    async with connected(server) as (_, stub):
        call = stub.Execute(execute("wait"))
        await till.entered.wait()
        await server.stop()
        assert till.cancelled.is_set()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
        assert caught.value.code() in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED, grpc.StatusCode.UNKNOWN}


async def test_unix_socket_can_be_served(tmp_path: Path) -> None:
    async with ParticipantServer(Till(), address=f"unix:{tmp_path / 'till.sock'}", coordinator=None) as server:
        with pytest.raises(ParticipantSetupError, match="there is no port"):
            _ = server.port
        async with connected(server) as (_, stub):
            assert (await stub.Describe(participant_pb2.DescribeRequest())).description.name == "till"


async def test_port_that_is_taken_is_told() -> None:
    async with ParticipantServer(Till(), coordinator=None) as server:
        with pytest.raises(ParticipantSetupError, match="cannot listen"):
            await ParticipantServer(Till(), address=server.address, coordinator=None).start()


@pytest.mark.parametrize("address", ["0.0.0.0:0", "[::]:0"])
def test_wildcard_address_needs_one_to_advertise(address: str) -> None:
    with pytest.raises(ParticipantSetupError, match="advertise"):
        ParticipantServer(Till(), address=address)
    ParticipantServer(Till(), address=address, advertise="till.internal:7000")
    ParticipantServer(Till(), address=address, coordinator=None)


@pytest.mark.parametrize("ttl", [timedelta(milliseconds=999), timedelta(hours=1, seconds=1)])
def test_ttl_out_of_bounds_is_refused(ttl: timedelta) -> None:
    with pytest.raises(ParticipantSetupError, match="ttl"):
        ParticipantServer(Till(), ttl=ttl)


def test_no_participant_and_two_of_a_name_are_refused() -> None:
    with pytest.raises(ParticipantSetupError, match="at least one"):
        ParticipantServer()
    with pytest.raises(ParticipantSetupError, match="'till'"):
        ParticipantServer(Till(), Till())


async def test_barrier_that_can_never_work_stops_the_start() -> None:
    class Broken(NoBarrier):
        async def check(self) -> None:
            raise BarrierTableMissingError("no table")

    with pytest.raises(BarrierTableMissingError):
        await ParticipantServer(Till(barrier=Broken()), coordinator=None).start()


class Registry:
    """A coordinator that knows how to register, and nothing else."""

    def __init__(self) -> None:
        self.seen: asyncio.Queue[coordinator_pb2.RegisterParticipantRequest] = asyncio.Queue()
        self.refusals = 0

    async def register(
        self, request: coordinator_pb2.RegisterParticipantRequest, context: grpc.aio.ServicerContext[object, object]
    ) -> coordinator_pb2.RegisterParticipantResponse:
        if self.refusals:
            self.refusals -= 1
            await context.abort(grpc.StatusCode.ALREADY_EXISTS, "other types")
        await self.seen.put(request)
        return coordinator_pb2.RegisterParticipantResponse(ttl=request.ttl)


@asynccontextmanager
async def coordinator(registry: Registry, address: str) -> AsyncIterator[str]:
    server = grpc.aio.server()
    register = grpc.unary_unary_rpc_method_handler(
        registry.register,
        request_deserializer=coordinator_pb2.RegisterParticipantRequest.FromString,
        response_serializer=coordinator_pb2.RegisterParticipantResponse.SerializeToString,
    )
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("saga.v1.SagaService", {"RegisterParticipant": register})])
    port = server.add_insecure_port(address)
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(None)


async def test_participants_register_and_repeat_it() -> None:
    registry = Registry()
    async with (
        coordinator(registry, "127.0.0.1:0") as address,
        ParticipantServer(Till(), Scale(), coordinator=address, ttl=timedelta(seconds=1)) as server,
    ):
        await server.wait_registered(SOON)
        first = [await registry.seen.get() for _ in range(2)]
        assert [each.description.name for each in first] == ["till", "scale"]
        assert {each.target for each in first} == {server.address}
        assert first[0].ttl.ToTimedelta() == timedelta(seconds=1)
        assert {action.name for action in first[0].description.actions} == {"take", "charge", "look"}
        async with asyncio.timeout(SOON.total_seconds()):
            assert (await registry.seen.get()) == first[0]


async def test_participant_registers_with_a_coordinator_that_comes_later_and_again_after_its_restart() -> None:
    registry = Registry()
    async with coordinator(registry, "127.0.0.1:0") as address:
        """Only to learn of a port that is free."""
    # With this ttl nothing is repeated during the test: only the loss of the connection makes it register again.
    async with ParticipantServer(Till(), coordinator=address, advertise="till.internal:1", ttl=timedelta(hours=1)) as server:
        for _ in range(2):
            async with coordinator(registry, address), asyncio.timeout(SOON.total_seconds()):
                assert (await registry.seen.get()).target == "till.internal:1"
        assert server.address


async def test_refused_registration_is_told_and_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    registry = Registry()
    registry.refusals = 1
    async with (
        coordinator(registry, "127.0.0.1:0") as address,
        ParticipantServer(Till(), coordinator=address) as server,
    ):
        await server.wait_registered(SOON)
    assert "other types" in caplog.text


PROGRAM = """
import asyncio, sys
from google.protobuf.wrappers_pb2 import StringValue
from participant_sdk import NoBarrier, Participant, StepContext, action, serve

class Slow(Participant, name="slow"):
    @action
    async def work(self, request: StringValue, step: StepContext) -> StringValue:
        print("entered", flush=True)
        await asyncio.sleep(0.3)
        return request

print("starting", flush=True)
asyncio.run(serve(Slow(barrier=NoBarrier()), address=sys.argv[1], coordinator=None))
print("drained", flush=True)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_process_that_is_told_to_stop_finishes_its_calls_and_exits_cleanly(tmp_path: Path, number: signal.Signals) -> None:
    target = f"unix:{tmp_path / 'slow.sock'}"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", PROGRAM, target, stdout=asyncio.subprocess.PIPE, env=environment)
    assert process.stdout is not None
    try:
        assert await process.stdout.readline() == b"starting\n"
        async with grpc.aio.insecure_channel(target) as channel:
            stub = participant_pb2_grpc.ParticipantServiceStub(channel)
            call = stub.Execute(execute("hello", action_name="slow.work"), wait_for_ready=True, timeout=20)
            assert await process.stdout.readline() == b"entered\n"
            process.send_signal(number)
            assert StringValue.FromString((await call).succeeded.output.value).value == "hello"
        assert await process.stdout.readline() == b"drained\n"
        assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
