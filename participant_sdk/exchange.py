"""Many calls on one stream: the participant's end of `Exchange`.

A gRPC message costs more than what it carries, so calls and replies travel in frames. What a call means is the same as by itself: it has
its own task, its own time, and is cut short when its caller goes away.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from functools import partial
from typing import Final

import grpc
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2

from participant_sdk.frames import fitting
from participant_sdk.rpc_errors import ErrorReason, error_details, status_with
from saga.v1 import participant_pb2

OPEN_CALLS_MAX: Final = 4_096
"""Calls under way on one stream; further ones are put off."""
_PUT_OFF_MS: Final = 100

Answer = Callable[[participant_pb2.ExchangeCall], Awaitable[participant_pb2.ExchangeReply]]
"""Answers one call, whatever comes of it. Cancelled when nobody waits for it any more."""


class ExchangeSession:
    """One stream, from its beginning to its end."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._open: dict[int, asyncio.Task[None]] = {}
        self._replies: list[participant_pb2.ExchangeReply] = []
        self._ready = asyncio.Event()
        self._is_draining = False
        self._has_ended = False
        """Whether the caller sends no more calls."""

    def drain(self) -> None:
        """Asks the caller to send no more calls. Those under way are answered."""
        self._is_draining = True
        self._ready.set()

    async def run(self, frames: AsyncIterator[participant_pb2.ExchangeRequest]) -> AsyncIterator[participant_pb2.ExchangeResponse]:
        """Answers calls as they come, until the caller has ended the stream and every call is answered."""
        reading = asyncio.get_running_loop().create_task(self._read(frames))
        has_told = False
        try:
            while not (self._has_ended and not self._open and not self._replies):
                await self._ready.wait()
                self._ready.clear()
                if self._is_draining and not has_told:
                    has_told = True
                    yield participant_pb2.ExchangeResponse(draining=True)
                for frame in self._take_frames():
                    yield frame
        finally:
            ending = [reading, *self._open.values()]
            for task in ending:
                task.cancel()
            await asyncio.gather(*ending, return_exceptions=True)

    async def _read(self, frames: AsyncIterator[participant_pb2.ExchangeRequest]) -> None:
        try:
            async for frame in frames:
                for number in frame.forsaken:
                    task = self._open.get(number)
                    if task is not None:
                        task.cancel()
                for call in frame.calls:
                    self._begin(call)
        finally:
            self._has_ended = True
            self._ready.set()

    def _begin(self, call: participant_pb2.ExchangeCall) -> None:
        if call.id in self._open or call.WhichOneof("call") is None:
            message = "expected a call with an id of its own, to execute or to compensate"
            self._reply(_refused(call.id, grpc.StatusCode.INVALID_ARGUMENT, message))
        elif len(self._open) >= OPEN_CALLS_MAX:
            self._reply(_put_off(call.id))
        else:
            task = self._open[call.id] = asyncio.get_running_loop().create_task(self._run(call))
            task.add_done_callback(partial(self._note_end, call.id))

    async def _run(self, call: participant_pb2.ExchangeCall) -> None:
        self._reply(await self._answer(call))

    def _note_end(self, number: int, _: "asyncio.Task[None]") -> None:
        """Also of a call that was cut short before it began."""
        del self._open[number]
        self._ready.set()

    def _reply(self, reply: participant_pb2.ExchangeReply) -> None:
        self._replies.append(reply)
        self._ready.set()

    def _take_frames(self) -> Iterator[participant_pb2.ExchangeResponse]:
        """What is there now. Nothing waits for company."""
        while self._replies:
            count = fitting(self._replies)
            some, self._replies = self._replies[:count], self._replies[count:]
            yield participant_pb2.ExchangeResponse(replies=some)


def _refused(number: int, code: grpc.StatusCode, message: str) -> participant_pb2.ExchangeReply:
    return participant_pb2.ExchangeReply(id=number, status=status_with(code, message, error_details(ErrorReason.REQUEST_INVALID)))


def _put_off(number: int) -> participant_pb2.ExchangeReply:
    later = error_details_pb2.RetryInfo(retry_delay=Duration(nanos=_PUT_OFF_MS * 1_000_000))
    message = f"{OPEN_CALLS_MAX} calls are under way on this stream already"
    status = status_with(grpc.StatusCode.RESOURCE_EXHAUSTED, message, error_details(ErrorReason.OVERLOADED), later)
    return participant_pb2.ExchangeReply(id=number, status=status)
