"""gRPC without sockets: what is generated works on it, and calls meet the fate that somebody decides."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from participant_sdk.testing.in_process import Network
from participant_sdk.testing.in_process_server import InProcessServer
from participant_sdk.testing.virtual_time import run_in_virtual_time
from participant_sdk.testing.weather import CallOnItsWay, Fate, MessageOnItsWay

ADDRESS = "health:1"
SERVING = health_pb2.HealthCheckResponse.SERVING


@dataclass
class Decided:
    """Every call meets the same fate."""

    fate: Fate = field(default_factory=Fate)
    parted: bool = False

    def fate_of(self, call: CallOnItsWay, /) -> Fate:
        return self.fate

    def fate_of_message(self, message: MessageOnItsWay, /) -> Fate:
        return self.fate

    def is_parted(self, source: str, target: str, /) -> bool:
        return self.parted


class Health(health_pb2_grpc.HealthServicer):  # type: ignore[misc] # its package says nothing of types
    """Counts what arrives, and what is cancelled."""

    def __init__(self, takes_s: float) -> None:
        self.takes_s = takes_s
        self.arrived: list[float] = []
        self.cancelled = 0

    async def Check(self, request: health_pb2.HealthCheckRequest, context: Any) -> health_pb2.HealthCheckResponse:  # noqa: N802
        self.arrived.append(asyncio.get_running_loop().time())
        try:
            await asyncio.sleep(self.takes_s)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return health_pb2.HealthCheckResponse(status=SERVING)

    async def Watch(  # noqa: N802
        self, request: health_pb2.HealthCheckRequest, context: Any
    ) -> AsyncIterator[health_pb2.HealthCheckResponse]:
        for _ in range(40):
            yield health_pb2.HealthCheckResponse(status=SERVING)


@dataclass
class Stage:
    weather: Decided
    health: Health
    server: InProcessServer
    stub: Any

    async def code_of_check(self, timeout_s: float = 10.0) -> grpc.StatusCode:
        """How a call ends."""
        try:
            await self.stub.Check(health_pb2.HealthCheckRequest(), timeout=timeout_s)
        except grpc.aio.AioRpcError as error:
            return error.code()
        return grpc.StatusCode.OK


def play(scene: Callable[[Stage], Coroutine[Any, Any, None]], *, takes_s: float = 0.0, **fate: Any) -> None:
    async def main() -> None:
        weather, health = Decided(Fate(**fate)), Health(takes_s)
        network = Network(weather)
        server: Any = network.server()
        health_pb2_grpc.add_HealthServicer_to_server(health, server)
        server.add_insecure_port(ADDRESS)
        await server.start()
        await scene(Stage(weather, health, server, health_pb2_grpc.HealthStub(network.channel(ADDRESS))))

    run_in_virtual_time(main())


def now_s() -> float:
    return asyncio.get_running_loop().time()


def test_call_is_answered_and_a_stream_read_to_its_end() -> None:
    async def scene(stage: Stage) -> None:
        assert await stage.code_of_check() is grpc.StatusCode.OK
        assert len([answer async for answer in stage.stub.Watch(health_pb2.HealthCheckRequest())]) == 40

    play(scene)


@pytest.mark.parametrize(("notices", "code", "after_s"), [(None, "DEADLINE_EXCEEDED", 10.0), (0.5, "UNAVAILABLE", 0.5)])
@pytest.mark.parametrize("arrivals", [0, 1], ids=["request lost", "reply lost"])
def test_loss_is_told_by_the_connection_or_by_the_deadline(arrivals: int, notices: float | None, code: str, after_s: float) -> None:
    async def scene(stage: Stage) -> None:
        assert (await stage.code_of_check()).name == code
        assert now_s() == pytest.approx(after_s)
        assert len(stage.health.arrived) == arrivals

    play(scene, is_request_lost=not arrivals, is_reply_lost=bool(arrivals), notices_loss_after_s=notices)


@pytest.mark.parametrize(("is_lost", "arrivals"), [(True, [7.0]), (False, [0.0, 7.0])])
def test_repeated_request_arrives_later_whether_or_not_it_was_lost(is_lost: bool, arrivals: list[float]) -> None:
    async def scene(stage: Stage) -> None:
        await stage.code_of_check()
        await asyncio.sleep(10)
        assert stage.health.arrived == pytest.approx(arrivals)

    play(scene, repeated_after_s=7.0, is_request_lost=is_lost, notices_loss_after_s=0.1)


@pytest.mark.parametrize("is_cancelled", [True, False])
def test_caller_that_waits_no_longer_is_noticed_at_once_or_at_the_deadline(is_cancelled: bool) -> None:
    async def scene(stage: Stage) -> None:
        call = asyncio.create_task(stage.code_of_check(5.0))
        await asyncio.sleep(1)
        call.cancel()
        await asyncio.sleep(1)
        assert stage.health.cancelled == is_cancelled
        await asyncio.sleep(10)
        assert stage.health.cancelled == 1

    play(scene, takes_s=60.0, is_cancelled_at_server=is_cancelled)


def test_crashed_server_cuts_its_calls_and_is_gone() -> None:
    async def scene(stage: Stage) -> None:
        call = asyncio.create_task(stage.code_of_check())
        await asyncio.sleep(1)
        stage.server.crash()
        assert await call is grpc.StatusCode.UNAVAILABLE
        assert await stage.code_of_check() is grpc.StatusCode.UNAVAILABLE
        assert now_s() == pytest.approx(1.0)

    play(scene, takes_s=5.0)


def test_nothing_gets_through_a_partition_and_everything_after_it() -> None:
    async def scene(stage: Stage) -> None:
        stage.weather.parted = True
        assert await stage.code_of_check() is grpc.StatusCode.UNAVAILABLE
        stage.weather.parted = False
        assert await stage.code_of_check() is grpc.StatusCode.OK
        assert len(stage.health.arrived) == 1

    play(scene)


def test_reply_into_a_partition_is_lost() -> None:
    async def scene(stage: Stage) -> None:
        call = asyncio.create_task(stage.code_of_check())
        await asyncio.sleep(1)
        stage.weather.parted = True
        assert await call is grpc.StatusCode.DEADLINE_EXCEEDED
        assert len(stage.health.arrived) == 1

    play(scene, takes_s=5.0)
