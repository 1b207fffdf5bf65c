"""The participant's end of a stream of many calls, by itself."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from participant_sdk import exchange, frames
from participant_sdk.exchange import ExchangeSession
from saga.v1 import participant_pb2

WAIT_S = 10.0


def frame(*ids: int, forsaken: tuple[int, ...] = ()) -> participant_pb2.ExchangeRequest:
    calls = [participant_pb2.ExchangeCall(id=number, execute=participant_pb2.ExecuteRequest(key=str(number))) for number in ids]
    return participant_pb2.ExchangeRequest(calls=calls, forsaken=forsaken)


class Caller:
    """Sends frames when a test says so, and reads what comes back."""

    def __init__(self) -> None:
        self._frames: asyncio.Queue[participant_pb2.ExchangeRequest | Exception | None] = asyncio.Queue()
        self.let_go: dict[int, asyncio.Event] = {}
        self.cut: list[int] = []
        self.session = ExchangeSession(self._answer)
        self.responses: list[participant_pb2.ExchangeResponse] = []
        self.running = asyncio.ensure_future(self._run())

    async def _run(self) -> None:
        async for response in self.session.run(self._sent()):
            self.responses.append(response)

    async def _sent(self) -> AsyncIterator[participant_pb2.ExchangeRequest]:
        while (sent := await self._frames.get()) is not None:
            if isinstance(sent, Exception):
                raise sent
            yield sent

    async def _answer(self, call: participant_pb2.ExchangeCall) -> participant_pb2.ExchangeReply:
        waits = self.let_go.get(call.id)
        try:
            if waits is not None:
                await waits.wait()
        except asyncio.CancelledError:
            self.cut.append(call.id)
            raise
        return participant_pb2.ExchangeReply(id=call.id, executed=participant_pb2.ExecuteResponse())

    def send(self, *frames: participant_pb2.ExchangeRequest | Exception | None) -> None:
        for each in frames:
            self._frames.put_nowait(each)

    @property
    def replies(self) -> dict[int, participant_pb2.ExchangeReply]:
        return {reply.id: reply for response in self.responses for reply in response.replies}

    async def until_replied(self, *ids: int) -> None:
        async with asyncio.timeout(WAIT_S):
            while not set(ids) <= self.replies.keys():
                await asyncio.sleep(0)


async def test_calls_are_answered_as_they_end_and_the_stream_ends_after_the_last() -> None:
    caller = Caller()
    caller.let_go[1] = asyncio.Event()
    caller.send(frame(1, 2, 3), None)
    await caller.until_replied(2, 3)
    assert not caller.running.done()
    caller.let_go[1].set()
    await caller.running
    assert sorted(caller.replies) == [1, 2, 3]


async def test_what_is_there_at_once_goes_as_one_frame() -> None:
    caller = Caller()
    caller.send(frame(*range(1, 31)), None)
    await caller.running
    assert [len(response.replies) for response in caller.responses] == [30]


async def test_frames_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames, "MESSAGES_MAX", 7)
    caller = Caller()
    caller.send(frame(*range(1, 21)), None)
    await caller.running
    assert [len(response.replies) for response in caller.responses] == [7, 7, 6]
    monkeypatch.setattr(frames, "BYTES_MAX", 1)
    caller = Caller()
    caller.send(frame(1, 2), None)
    await caller.running
    assert [len(response.replies) for response in caller.responses] == [1, 1]


async def test_forsaken_call_is_cut_short_and_others_are_not() -> None:
    caller = Caller()
    caller.let_go |= {1: asyncio.Event(), 2: asyncio.Event()}
    caller.send(frame(1, 2, 3))
    await caller.until_replied(3)
    caller.send(frame(4, forsaken=(1, 99)))
    await caller.until_replied(4)
    caller.let_go[2].set()
    caller.send(None)
    await caller.running
    assert (caller.cut, sorted(caller.replies)) == ([1], [2, 3, 4])


async def test_call_that_is_forsaken_before_it_began_does_not_keep_the_stream_open() -> None:
    caller = Caller()
    caller.send(frame(1), frame(2, forsaken=(1,)), None)
    async with asyncio.timeout(WAIT_S):
        await caller.running
    assert sorted(caller.replies) == [2]


async def test_broken_stream_cuts_every_call_short() -> None:
    caller = Caller()
    caller.let_go |= {1: asyncio.Event(), 2: asyncio.Event()}
    caller.send(frame(1, 2, 3))
    await caller.until_replied(3)
    caller.running.cancel()
    await asyncio.wait((caller.running,))
    assert caller.cut == [1, 2]


async def test_stream_that_cannot_be_read_on_answers_what_came_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    caller = Caller()
    caller.send(frame(1, 2), RuntimeError("garbled"))
    await caller.running
    assert sorted(caller.replies) == [1, 2]
    assert "garbled" in caplog.text


async def test_draining_is_told_once_and_calls_under_way_are_answered() -> None:
    caller = Caller()
    caller.let_go[1] = asyncio.Event()
    caller.send(frame(1, 2))
    await caller.until_replied(2)
    caller.session.drain()
    caller.session.drain()
    async with asyncio.timeout(WAIT_S):
        while not any(response.draining for response in caller.responses):
            await asyncio.sleep(0)
    caller.let_go[1].set()
    caller.send(None)
    await caller.running
    assert [response.draining for response in caller.responses].count(True) == 1
    assert sorted(caller.replies) == [1, 2]


async def test_calls_beyond_the_limit_are_put_off_and_bad_ones_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "OPEN_CALLS_MAX", 1)
    caller = Caller()
    caller.let_go[1] = asyncio.Event()
    empty = participant_pb2.ExchangeRequest(calls=[participant_pb2.ExchangeCall(id=7)])
    caller.send(frame(1), frame(2), empty)
    await caller.until_replied(2, 7)
    assert caller.replies[2].status.code == 8
    assert any("RetryInfo" in detail.type_url for detail in caller.replies[2].status.details)
    assert (caller.replies[7].status.code, "expected a call" in caller.replies[7].status.message) == (3, True)
    caller.let_go[1].set()
    caller.send(None)
    await caller.running
