"""Many calls on few streams: what a stream does to its calls when it ends, is refused, is drained or grows old (R6)."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import grpc
import pytest
from google.protobuf.message import Message

from coordinator.core.inputs import Succeeded, Unknown
from coordinator.dispatcher.exchange import STREAMS_MAX
from participant_sdk import framed_calls, frames
from saga.v1 import participant_pb2
from tests.contract.dispatcher.stand import WAIT_S, NewStand, call
from tests.participants import Gate, PlainParticipant, serving

Context = grpc.aio.ServicerContext[Message, Message]
pytestmark = pytest.mark.parametrize("new_stand", ["exchange"], indirect=True)


class Counting(PlainParticipant):
    """Counts streams and frames, and refuses both if it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.streams = 0
        self.frames: list[int] = []
        self.refuses = False

    async def Exchange(  # noqa: N802
        self, request_iterator: AsyncIterator[participant_pb2.ExchangeRequest], context: Context
    ) -> AsyncIterator[participant_pb2.ExchangeResponse]:
        self.streams += 1
        if self.refuses:
            await context.abort(grpc.StatusCode.UNIMPLEMENTED, "calls one by one, please")
        async for frame in super().Exchange(self._counted(request_iterator), context):
            yield frame

    async def _counted(self, frames: AsyncIterator[participant_pb2.ExchangeRequest]) -> AsyncIterator[participant_pb2.ExchangeRequest]:
        async for frame in frames:
            self.frames.append(len(frame.calls))
            yield frame


async def arrived(participant: PlainParticipant, count: int) -> None:
    async with asyncio.timeout(WAIT_S):
        while len(participant.executions) < count:
            await asyncio.sleep(0.005)


async def test_calls_of_one_turn_travel_in_one_frame(new_stand: NewStand) -> None:
    participant = Counting()
    async with serving(participant) as target, new_stand(concurrency=64) as stand:
        await stand.register(target)
        calls = [call() for _ in range(64)]
        stand.dispatcher.send(calls)
        assert {type(await stand.replies.outcome_of(each)) for each in calls} == {Succeeded}
        assert sum(participant.frames) == 64
        assert len(participant.frames) <= 4
        assert participant.streams <= 2


async def test_broken_stream_leaves_its_open_calls_unknown_and_the_next_call_gets_another(new_stand: NewStand) -> None:
    participant, let_go = Counting(), Gate()
    participant.on_execute["shop.act"] = let_go
    async with AsyncExitStack() as stack:
        stand = await stack.enter_async_context(new_stand())
        async with serving(participant) as target:
            await stand.register(target)
            open_call = call()
            stand.dispatcher.send([open_call])
            await arrived(participant, 1)
        assert isinstance(await stand.replies.outcome_of(open_call), Unknown)
        let_go.open.set()
        port = int(target.rpartition(":")[2])
        async with serving(participant, port):
            again = call()
            stand.dispatcher.send([again])
            while isinstance(await stand.replies.outcome_of(again), Unknown):
                again = call()  # gRPC may still be waiting before it connects again
                stand.dispatcher.send([again])
            assert isinstance(await stand.replies.outcome_of(again), Succeeded)


async def test_participant_that_takes_no_streams_after_all_is_called_one_by_one(new_stand: NewStand) -> None:
    """It was replaced by a release without them: nothing is in doubt, and it is not asked again for a while."""
    participant = Counting()
    participant.refuses = True
    async with serving(participant) as target, new_stand() as stand:
        await stand.register(target)
        for _ in range(3):
            calls = [call(), call()]
            stand.dispatcher.send(calls)
            for each in calls:
                reply = await stand.replies.to(each)
                assert isinstance(reply.outcome, Succeeded)
        assert (participant.streams, len(participant.executions)) == (1, 6)


async def test_drained_stream_answers_what_it_has_and_gets_nothing_new(new_stand: NewStand) -> None:
    participant, let_go = Counting(), Gate()
    participant.on_execute["shop.act"] = let_go
    async with serving(participant) as target, new_stand() as stand:
        await stand.register(target)
        first = call()
        stand.dispatcher.send([first])
        await arrived(participant, 1)
        for session in participant.sessions:
            session.drain()
        async with asyncio.timeout(WAIT_S):
            while participant.streams < 2:
                other = call()
                stand.dispatcher.send([other])
                await asyncio.sleep(0.02)
        let_go.open.set()
        assert isinstance(await stand.replies.outcome_of(first), Succeeded)
        async with asyncio.timeout(WAIT_S):
            while len(participant.sessions) > 1:
                await asyncio.sleep(0.005)


async def test_old_stream_ends_when_its_last_call_has(new_stand: NewStand, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(framed_calls, "RECYCLE_S", 0.0)
    participant = Counting()
    async with serving(participant) as target, new_stand() as stand:
        await stand.register(target)
        for number in range(3):
            one = call()
            stand.dispatcher.send([one])
            assert isinstance(await stand.replies.outcome_of(one), Succeeded)
            assert participant.streams == number + 1
        async with asyncio.timeout(WAIT_S):
            while len(participant.sessions) > 1:  # the last one is retired by the next call only
                await asyncio.sleep(0.005)


async def test_what_goes_at_once_shares_a_stream_and_the_next_goes_on_another(new_stand: NewStand) -> None:
    participant, let_go = Counting(), Gate()
    participant.on_execute["shop.act"] = let_go
    async with serving(participant) as target, new_stand(concurrency=20) as stand:
        await stand.register(target)
        calls = [[call(), call()] for _ in range(STREAMS_MAX + 2)]
        for number, together in enumerate(calls, 1):
            stand.dispatcher.send(together)
            await arrived(participant, 2 * number)
            assert participant.streams == min(number, STREAMS_MAX)
        let_go.open.set()
        outcomes = [await stand.replies.outcome_of(each) for together in calls for each in together]
        assert {type(outcome) for outcome in outcomes} == {Succeeded}


async def test_frames_are_bounded_by_their_size(new_stand: NewStand, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames, "BYTES_MAX", 1_000)
    monkeypatch.setattr(frames, "MESSAGES_MAX", 3)
    participant = Counting()
    async with serving(participant) as target, new_stand(concurrency=20) as stand:
        await stand.register(target)
        calls = [call() for _ in range(20)]
        stand.dispatcher.send(calls)
        assert {type(await stand.replies.outcome_of(each)) for each in calls} == {Succeeded}
        assert max(participant.frames) <= 3


async def test_call_that_nobody_waits_for_any_more_is_cut_short(new_stand: NewStand) -> None:
    participant, cut = Counting(), asyncio.Event()

    async def wait(request: participant_pb2.ExecuteRequest, context: Context) -> participant_pb2.ExecuteResponse:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cut.set()
            raise
        raise AssertionError("nobody sets it")

    participant.on_execute["shop.act"] = wait
    async with serving(participant) as target, new_stand() as stand:
        await stand.register(target)
        short = call(timeout_s=0.2)
        stand.dispatcher.send([short])
        assert isinstance(await stand.replies.outcome_of(short), Unknown)
        async with asyncio.timeout(WAIT_S):
            await cut.wait()
