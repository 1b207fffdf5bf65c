"""A stream whose participant does not take what is written: what waits must not leave when its time is over (R12)."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any, cast

import grpc
import pytest

from coordinator.dispatcher.exchange import Exchange
from participant_sdk import frames
from participant_sdk.framed_calls import FramedCalls, NotCarriedOutError, Unanswered, WithdrawnError
from saga.v1 import participant_pb2
from tests.fakes import one_turn


class Stuck:
    """A stub and its one stream: takes frames when a test lets it, and ends when a test says how."""

    def __init__(self) -> None:
        self.takes = asyncio.Event()
        self.written: list[participant_pb2.ExchangeRequest] = []
        self._end: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def Exchange(self) -> "Stuck":  # noqa: N802 - named by gRPC
        return self

    async def write(self, frame: participant_pb2.ExchangeRequest) -> None:
        await self.takes.wait()
        self.written.append(frame)

    async def done_writing(self) -> None:
        """Nobody reads on."""

    async def __aiter__(self) -> AsyncIterator[participant_pb2.ExchangeResponse]:
        await self._end
        yield participant_pb2.ExchangeResponse()

    def end(self, code: grpc.StatusCode) -> None:
        self._end.set_exception(grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(), details="told to"))

    @property
    def keys(self) -> list[str]:
        return [call.execute.key for frame in self.written for call in frame.calls]


def asked(stub: Stuck, may_leave: Callable[[], bool] = lambda: True) -> Exchange:
    return FramedCalls(cast("Any", stub).Exchange, participant_pb2.ExchangeRequest, streams_max=1, may_leave=may_leave)


class Asked:
    """A call by its key, and what becomes of it."""

    def __init__(self, key: str) -> None:
        self._key = key
        self.answer: asyncio.Future[participant_pb2.ExchangeReply | Unanswered] = asyncio.get_running_loop().create_future()

    def write(self, message: participant_pb2.ExchangeCall) -> None:
        message.execute.key = self._key

    def end(self, answer: participant_pb2.ExchangeReply | Unanswered) -> None:
        self.answer.set_result(answer)


def ask(exchange: Exchange, key: str, timeout_s: float) -> asyncio.Future[participant_pb2.ExchangeReply | Unanswered]:
    call = Asked(key)
    exchange.send(call, 100, timeout_s)
    return call.answer


@pytest.fixture
def one_call_a_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames, "MESSAGES_MAX", 1)


@pytest.mark.usefixtures("one_call_a_frame")
async def test_call_whose_time_is_over_before_it_left_never_leaves() -> None:  # R12
    stub = Stuck()
    exchange = asked(stub)
    first = ask(exchange, "first", 10.0)
    await one_turn()
    ended = await ask(exchange, "second", 0.01)
    assert isinstance(ended, grpc.aio.AioRpcError)
    assert ended.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    third = ask(exchange, "third", 10.0)
    stub.takes.set()
    await one_turn()
    assert stub.keys == ["first", "third"]
    assert [list(frame.forsaken) for frame in stub.written] == [[], []]  # nobody there knows of the second
    stub.end(grpc.StatusCode.UNAVAILABLE)
    assert {type(each) for each in await asyncio.gather(first, third)} == {grpc.aio.AioRpcError}


async def test_call_whose_time_is_over_when_it_has_left_is_forsaken() -> None:
    stub = Stuck()
    stub.takes.set()
    exchange = asked(stub)
    assert isinstance(await ask(exchange, "first", 0.01), grpc.aio.AioRpcError)
    await one_turn()
    assert [list(frame.forsaken) for frame in stub.written] == [[], [1]]


async def test_write_that_never_comes_back_ends_with_its_stream() -> None:
    stub = Stuck()
    answer = ask(asked(stub), "first", 10.0)
    await one_turn()
    stub.end(grpc.StatusCode.UNAVAILABLE)
    assert isinstance(await answer, grpc.aio.AioRpcError)
    await one_turn()
    assert asyncio.all_tasks() == {asyncio.current_task()}


@pytest.mark.usefixtures("one_call_a_frame")
async def test_what_had_not_left_when_the_stream_broke_goes_by_itself() -> None:
    stub = Stuck()
    exchange = asked(stub)
    on_its_way, waiting = [ask(exchange, key, 10.0) for key in ("first", "second")]
    await one_turn()
    stub.end(grpc.StatusCode.UNAVAILABLE)
    ends = await asyncio.gather(on_its_way, waiting)
    assert [type(each) for each in ends] == [grpc.aio.AioRpcError, NotCarriedOutError]


async def test_call_whose_time_ran_out_while_the_process_stood_still_never_leaves(monkeypatch: pytest.MonkeyPatch) -> None:  # R12
    stub = Stuck()
    stub.takes.set()
    exchange = asked(stub)
    late = ask(exchange, "late", 10.0)
    loop = asyncio.get_running_loop()
    woken_at_s = loop.time() + 20.0
    monkeypatch.setattr(loop, "time", lambda: woken_at_s)  # what was to be written comes before the timers in that turn
    in_time = ask(exchange, "in time", 10.0)
    await one_turn()
    assert stub.keys == ["in time"]
    assert isinstance(await late, grpc.aio.AioRpcError)
    assert not in_time.done()
    stub.end(grpc.StatusCode.UNAVAILABLE)
    await in_time


@pytest.mark.usefixtures("one_call_a_frame")
async def test_withdrawn_call_never_leaves_unless_it_has() -> None:  # R12
    stub = Stuck()
    exchange = asked(stub)
    calls = [Asked("first"), Asked("second")]
    first, second = [exchange.send(call, 100, 10.0) for call in calls]
    await one_turn()
    for _ in range(2):
        exchange.withdraw(first)
        exchange.withdraw(second)
    ask(exchange, "third", 10.0)
    stub.takes.set()
    await one_turn()
    assert stub.keys == ["first", "third"]
    assert not calls[0].answer.done()
    assert isinstance(await calls[1].answer, WithdrawnError)
    stub.end(grpc.StatusCode.UNAVAILABLE)


@pytest.mark.usefixtures("one_call_a_frame")
async def test_call_that_waits_for_room_does_not_leave_from_a_node_that_has_lost_its_saga() -> None:  # R31
    stub, ours = Stuck(), [True]
    exchange = asked(stub, lambda: ours[0])
    first, second = ask(exchange, "first", 10.0), ask(exchange, "second", 10.0)
    await one_turn()
    ours[0] = False
    stub.takes.set()
    assert isinstance(await second, NotCarriedOutError)
    assert (stub.keys, first.done()) == (["first"], False)
    stub.end(grpc.StatusCode.UNAVAILABLE)
