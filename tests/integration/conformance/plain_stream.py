"""Calls in frames, served without a line of the SDK: carefully, or carelessly in one way."""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final, NoReturn

import grpc
from google.rpc import status_pb2

from saga.v1 import participant_pb2
from tests.integration.conformance.careless import Careless

Answer = Callable[[participant_pb2.ExchangeCall, "FramedContext"], Awaitable[participant_pb2.ExchangeReply]]
_LARGE: Final = 4
"""Calls in a frame of which a careless participant forgets the first."""
_LONG_WORDS: Final = "expected something else; " * 40
_TRACEPARENT: Final = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}|")
_QUIET_S: Final = 0.1


class AbortedError(Exception):
    """A call in a frame ends with a status."""

    def __init__(self, code: grpc.StatusCode, words: str) -> None:
        super().__init__(words)
        self.status = status_pb2.Status(code=code.value[0], message=words)


class FramedContext:
    """What the unary methods ask of the context of a call."""

    async def abort(self, code: grpc.StatusCode, details: str) -> NoReturn:
        raise AbortedError(code, details)


class PlainStream:
    """One stream."""

    def __init__(self, careless: Careless, answer: Answer) -> None:
        self._careless = careless
        self._answer = answer
        self._frames: asyncio.Queue[participant_pb2.ExchangeResponse | None] = asyncio.Queue()
        self._open: dict[int, asyncio.Task[None]] = {}
        self._ids: set[int] = set()
        self._is_draining = False

    @property
    def open_calls(self) -> int:
        return len(self._open)

    def drain(self) -> None:
        self._is_draining = True
        self._frames.put_nowait(participant_pb2.ExchangeResponse(draining=True))
        if self._careless is Careless.DRAINS_IN_HASTE:
            self._frames.put_nowait(None)

    async def run(self, requests: AsyncIterator[participant_pb2.ExchangeRequest]) -> AsyncIterator[participant_pb2.ExchangeResponse]:
        reading = asyncio.create_task(self._read(requests))
        try:
            while (frame := await self._frames.get()) is not None:
                if self._careless is Careless.ONE_BIG_FRAME:
                    await self._gather_into(frame)
                yield frame
        finally:
            for task in (reading, *self._open.values()):
                task.cancel()

    async def _read(self, requests: AsyncIterator[participant_pb2.ExchangeRequest]) -> None:
        async for request in requests:
            if request.forsaken and self._careless is Careless.HANGS_UP:
                break
            for number in request.forsaken:
                if number in self._open:
                    self._open[number].cancel()
            forgets = self._careless is Careless.FORGETS_A_REPLY and len(request.calls) > _LARGE and request.calls[0].HasField("execute")
            for call in request.calls[1:] if forgets else request.calls:
                self._begin(call)
        if self._careless is not Careless.CUTS_AT_THE_END or self._is_draining:
            await asyncio.gather(*self._open.values(), return_exceptions=True)
        self._frames.put_nowait(None)

    def _begin(self, call: participant_pb2.ExchangeCall) -> None:
        is_double = call.id in self._ids and self._careless is not Careless.SERVES_AN_ID_TWICE
        if is_double or call.WhichOneof("call") is None:
            words = _LONG_WORDS if self._careless is Careless.ONE_BIG_FRAME else "expected a call with an id of its own"
            self._reply(participant_pb2.ExchangeReply(id=call.id, status=AbortedError(grpc.StatusCode.INVALID_ARGUMENT, words).status))
            return
        self._ids.add(call.id)
        task = self._open[call.id] = asyncio.create_task(self._run(call))
        task.add_done_callback(lambda _: self._open.pop(call.id, None))

    async def _run(self, call: participant_pb2.ExchangeCall) -> None:
        request = call.execute if call.HasField("execute") else call.compensate
        time_left_s = None if self._careless is Careless.FORGETS_THE_TIME else request.time_left.ToTimedelta().total_seconds()
        try:
            async with asyncio.timeout(time_left_s):
                if self._careless is Careless.CHOKES_ON_TRACES and not _TRACEPARENT.fullmatch(call.traceparent):
                    await FramedContext().abort(grpc.StatusCode.INTERNAL, "this is no trace context")
                reply = await self._answer(call, FramedContext())
        except AbortedError as error:
            reply = participant_pb2.ExchangeReply(status=error.status)
        except TimeoutError:
            reply = participant_pb2.ExchangeReply(status=AbortedError(grpc.StatusCode.DEADLINE_EXCEEDED, "too late").status)
        reply.id = call.id
        self._reply(reply)

    def _reply(self, reply: participant_pb2.ExchangeReply) -> None:
        self._frames.put_nowait(participant_pb2.ExchangeResponse(replies=[reply]))

    async def _gather_into(self, frame: participant_pb2.ExchangeResponse) -> None:
        """Everything, until nothing more has come for a while."""
        while True:
            before = len(frame.replies)
            await asyncio.sleep(_QUIET_S)
            while not self._frames.empty():
                if (more := self._frames.get_nowait()) is None:
                    self._frames.put_nowait(None)
                    return
                frame.MergeFrom(more)
            if len(frame.replies) == before:
                return
