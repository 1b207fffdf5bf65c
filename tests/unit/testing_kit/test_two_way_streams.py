"""gRPC without sockets carries streams in both directions, and breaks them as somebody decides."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest

from participant_sdk.testing.in_process import Network
from participant_sdk.testing.in_process_server import InProcessServer
from participant_sdk.testing.virtual_time import run_in_virtual_time
from participant_sdk.testing.weather import SMOOTH, CallOnItsWay, Fate, MessageOnItsWay
from saga.v1 import participant_pb2, participant_pb2_grpc

ADDRESS = "echo:1"


@dataclass
class Decided:
    """What is to happen to which message; nothing happens to the others."""

    fates: dict[tuple[bool, int], Fate] = field(default_factory=dict)
    """By whether it is a reply, and its number."""
    parted: bool = False

    def fate_of(self, call: CallOnItsWay, /) -> Fate:
        return SMOOTH

    def fate_of_message(self, message: MessageOnItsWay, /) -> Fate:
        return self.fates.get((message.is_reply, message.number), SMOOTH)

    def is_parted(self, source: str, target: str, /) -> bool:
        return self.parted


class Echo(participant_pb2_grpc.ParticipantServiceServicer):
    """Answers every frame with its ids, and remembers what came when and how streams ended."""

    def __init__(self) -> None:
        self.arrived: list[tuple[float, list[int]]] = []
        self.ends: list[str] = []

    async def Exchange(  # noqa: N802
        self, request_iterator: AsyncIterator[participant_pb2.ExchangeRequest], context: Any
    ) -> AsyncIterator[participant_pb2.ExchangeResponse]:
        try:
            async for frame in request_iterator:
                self.arrived.append((asyncio.get_running_loop().time(), [call.id for call in frame.calls]))
                if frame.forsaken:
                    await context.abort(grpc.StatusCode.ABORTED, "told to")
                yield participant_pb2.ExchangeResponse(replies=[participant_pb2.ExchangeReply(id=call.id) for call in frame.calls])
            self.ends.append("by its caller")
        except asyncio.CancelledError:
            self.ends.append("cut")
            raise


@dataclass
class Stage:
    weather: Decided
    echo: Echo
    server: InProcessServer
    channel: grpc.aio.Channel

    def call(self) -> Any:
        stub: participant_pb2_grpc.ParticipantServiceAsyncStub = participant_pb2_grpc.ParticipantServiceStub(self.channel)
        return stub.Exchange()


def frame(*ids: int, forsaken: tuple[int, ...] = ()) -> participant_pb2.ExchangeRequest:
    return participant_pb2.ExchangeRequest(calls=[participant_pb2.ExchangeCall(id=number) for number in ids], forsaken=forsaken)


async def ids_of(call: Any) -> list[int]:
    response = await call.read()
    return [reply.id for reply in response.replies]


async def code_of(call: Any) -> grpc.StatusCode:
    """How what is read ends."""
    try:
        async for _ in call:
            pass
    except grpc.aio.AioRpcError as error:
        return error.code()
    return grpc.StatusCode.OK


def now_s() -> float:
    return asyncio.get_running_loop().time()


def play(scene: Callable[[Stage], Coroutine[Any, Any, None]], fates: dict[tuple[bool, int], Fate] | None = None) -> None:
    async def main() -> None:
        weather, echo = Decided(fates or {}), Echo()  # type: ignore[abstract]
        network = Network(weather)
        server = network.server()
        participant_pb2_grpc.add_ParticipantServiceServicer_to_server(echo, server)  # type: ignore[arg-type]
        server.add_insecure_port(ADDRESS)
        await server.start()
        async with network.channel(ADDRESS) as channel:
            await scene(Stage(weather, echo, server, channel))

    run_in_virtual_time(main())


def test_frames_go_both_ways_until_the_caller_ends_the_stream() -> None:
    async def scene(stage: Stage) -> None:
        call = stage.call()
        for number in range(1, 30):
            await call.write(frame(number))
            assert await ids_of(call) == [number]
        await call.done_writing()
        assert await call.read() is grpc.aio.EOF
        assert [answer async for answer in call] == []
        assert stage.echo.ends == ["by its caller"]
        with pytest.raises(asyncio.InvalidStateError):
            await call.write(frame(30))

    play(scene)


def test_late_frame_holds_up_those_behind_it_and_then_its_writer() -> None:
    async def scene(stage: Stage) -> None:
        call = stage.call()
        await call.write(frame(1))
        await call.write(frame(2))
        assert now_s() == 0
        await call.write(frame(3))  # no more than two are on their way
        assert now_s() == pytest.approx(5.0)
        assert [await ids_of(call) for _ in range(3)] == [[1], [2], [3]]
        assert [(round(at, 3), ids) for at, ids in stage.echo.arrived] == [(5.0, [1]), (5.0, [2]), (5.0, [3])]

    play(scene, {(False, 0): Fate(request_delay_s=5.0)})


def test_late_reply_holds_up_those_behind_it() -> None:
    async def scene(stage: Stage) -> None:
        call = stage.call()
        await call.write(frame(1))
        await call.write(frame(2))
        assert [await ids_of(call) for _ in range(2)] == [[1], [2]]
        assert now_s() == pytest.approx(3.0)
        assert [at for at, _ in stage.echo.arrived] == pytest.approx([0.0, 0.0], abs=1e-3)

    play(scene, {(True, 0): Fate(reply_delay_s=3.0)})


@pytest.mark.parametrize(("lost", "arrived"), [((False, 1), 1), ((True, 1), 2)], ids=["request", "reply"])
@pytest.mark.parametrize(("is_cancelled", "end"), [(True, "cut"), (False, "by its caller")])
def test_lost_frame_breaks_the_stream_at_both_ends(lost: tuple[bool, int], arrived: int, is_cancelled: bool, end: str) -> None:
    async def scene(stage: Stage) -> None:
        call = stage.call()
        await call.write(frame(1))
        assert await ids_of(call) == [1]
        await call.write(frame(2))
        assert await code_of(call) is grpc.StatusCode.UNAVAILABLE
        assert now_s() == pytest.approx(0.5)
        assert (len(stage.echo.arrived), stage.echo.ends) == (arrived, [end])
        with pytest.raises(grpc.aio.AioRpcError):
            await call.write(frame(3))

    fate = Fate(is_request_lost=True, is_reply_lost=True, notices_loss_after_s=0.5, is_cancelled_at_server=is_cancelled)
    play(scene, {lost: fate})


def test_loss_that_nobody_notices_swallows_everything_until_the_caller_gives_up() -> None:
    async def scene(stage: Stage) -> None:
        call = stage.call()
        await call.write(frame(1))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(60):
                await call.read()
        assert stage.echo.arrived == []
        assert call.cancel()
        assert not call.cancel()

    play(scene, {(False, 0): Fate(is_request_lost=True)})


@pytest.mark.parametrize("is_lost", [True, False])
def test_frame_that_was_held_up_arrives_again_by_itself(is_lost: bool) -> None:
    async def scene(stage: Stage) -> None:
        call = stage.call()
        await call.write(frame(1))
        await asyncio.sleep(10)
        assert [(round(at, 3), ids) for at, ids in stage.echo.arrived] == [(0.0, [1])] * (not is_lost) + [(7.0, [1])]
        assert stage.echo.ends[-1] == "by its caller"

    play(scene, {(False, 0): Fate(is_request_lost=is_lost, repeated_after_s=7.0, notices_loss_after_s=0.1)})


def test_crash_of_the_server_ends_the_stream() -> None:
    async def scene(stage: Stage) -> None:
        call = stage.call()
        await call.write(frame(1))
        assert await ids_of(call) == [1]
        stage.server.crash()
        assert await code_of(call) is grpc.StatusCode.UNAVAILABLE
        assert stage.echo.ends == ["cut"]
        assert await code_of(stage.call()) is grpc.StatusCode.UNAVAILABLE
        assert stage.channel.get_state() is grpc.ChannelConnectivity.TRANSIENT_FAILURE

    play(scene)


def test_partition_swallows_what_is_sent_into_it() -> None:
    async def scene(stage: Stage) -> None:
        call = stage.call()
        await call.write(frame(1))
        assert await ids_of(call) == [1]
        stage.weather.parted = True
        await call.write(frame(2))
        await asyncio.sleep(1)
        stage.weather.parted = False
        await call.write(frame(3))
        await asyncio.sleep(1)
        assert [ids for _, ids in stage.echo.arrived] == [[1]]

    play(scene)


@pytest.mark.parametrize("closes", [True, False])
def test_caller_that_gives_up_cuts_the_stream_at_the_server(closes: bool) -> None:
    async def scene(stage: Stage) -> None:
        call = stage.call()
        await call.write(frame(1))
        assert await ids_of(call) == [1]
        if closes:
            await stage.channel.close()
        else:
            call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call.read()
        await asyncio.sleep(1)
        assert stage.echo.ends == ["cut"]

    play(scene)


def test_status_that_the_server_ends_with_is_told() -> None:
    async def scene(stage: Stage) -> None:
        call = stage.call()
        await call.write(frame(1))
        await call.write(frame(forsaken=(1,)))
        assert await code_of(call) is grpc.StatusCode.ABORTED

    play(scene)
