"""A stream of frames, held as the contract says; not by the coordinator's own code, which it stands beside."""

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from types import TracebackType
from typing import Final, Self

import grpc

from participant_sdk.testing.conformance.replies import Kind, Reply, no_answer, read_error, read_reply
from saga.v1 import participant_pb2, participant_pb2_grpc

_OVER: Final = (grpc.aio.AioRpcError, asyncio.InvalidStateError)
"""How writing ends on a stream that has ended. How that came is told where it is read."""


class Stream:
    """One stream, to be entered. Sends what it is told, and keeps what comes back."""

    def __init__(self, stub: "participant_pb2_grpc.ParticipantServiceAsyncStub") -> None:
        self._call: grpc.aio.StreamStreamCall[participant_pb2.ExchangeRequest, participant_pb2.ExchangeResponse] = stub.Exchange()
        self._asked = 0
        self._replies: dict[int, list[participant_pb2.ExchangeReply]] = defaultdict(list)
        self._news = asyncio.Condition()
        self._writing = asyncio.Lock()
        """gRPC takes one message at a time."""
        self._reading: asyncio.Task[None] | None = None
        self.is_draining: bool = False
        self.has_ended: bool = False
        self.error: grpc.aio.AioRpcError | None = None
        """What it ended with; None: it has not, or ended well."""
        self.frame_bytes_max: int = 0
        """Of the largest frame that came."""

    async def __aenter__(self) -> Self:
        self._reading = asyncio.create_task(self._read())
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._call.cancel()
        if self._reading is not None:
            await asyncio.gather(self._reading, return_exceptions=True)

    @property
    def takes_calls(self) -> bool:
        """Whether a coordinator would send more on it."""
        return not self.is_draining and not self.has_ended

    async def send(self, *calls: participant_pb2.ExchangeCall, forsaken: Sequence[int] = ()) -> list[int]:
        """One frame. Calls without an id get the next one; returns the ids."""
        for call in calls:
            self._asked += 1
            call.id = call.id or self._asked
        async with self._writing:
            with suppress(*_OVER):
                await self._call.write(participant_pb2.ExchangeRequest(calls=calls, forsaken=forsaken))
        return [call.id for call in calls]

    async def end(self) -> None:
        """Says that no more calls come."""
        async with self._writing:
            with suppress(*_OVER):
                await self._call.done_writing()

    async def replies_to(self, number: int, within_s: float, *, count: int = 1) -> list[Reply]:
        """Those that have come when there are so many of them, when the stream has ended, or when the time is over."""
        try:
            async with asyncio.timeout(within_s), self._news:
                await self._news.wait_for(lambda: self.has_ended or len(self._replies[number]) >= count)
        except TimeoutError:
            pass  # what has come by then counts
        return [read_reply(reply) for reply in self._replies[number]]

    async def wait_ended(self, within_s: float) -> bool:
        """Whether it has ended by then."""
        try:
            async with asyncio.timeout(within_s), self._news:
                await self._news.wait_for(lambda: self.has_ended)
        except TimeoutError:
            return False
        return True

    async def ask(self, call: participant_pb2.ExchangeCall, timeout_s: float) -> Reply:
        """One call, to its answer. If none comes in time, the participant is told that nobody waits any more."""
        (number,) = await self.send(call)
        replies = await self.replies_to(number, timeout_s)
        if replies:
            return replies[0]
        if self.has_ended:
            return Reply(Kind.UNKNOWN, no_answer("the stream has ended")) if self.error is None else read_error(self.error)
        await self.send(forsaken=[number])
        return Reply(Kind.UNKNOWN, no_answer("no answer in time", grpc.StatusCode.DEADLINE_EXCEEDED))

    async def _read(self) -> None:
        try:
            async for frame in self._call:
                await self._hear(frame)
        except grpc.aio.AioRpcError as error:
            self.error = error
        finally:
            self.has_ended = True
            async with self._news:
                self._news.notify_all()

    async def _hear(self, frame: participant_pb2.ExchangeResponse) -> None:
        self.frame_bytes_max = max(self.frame_bytes_max, frame.ByteSize() if len(frame.replies) > 1 else 0)
        for reply in frame.replies:
            self._replies[reply.id].append(reply)
        if frame.draining and not self.is_draining:
            self.is_draining = True
            await self.end()  # every call has left already
        async with self._news:
            self._news.notify_all()
