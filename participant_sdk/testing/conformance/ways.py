"""The two ways in which a participant is called: each call by itself, or in frames on a stream."""

from contextlib import AsyncExitStack
from enum import StrEnum
from typing import Protocol

import grpc

from participant_sdk.testing.conformance.replies import Reply, read_compensate, read_error, read_execute
from participant_sdk.testing.conformance.streams import Stream
from saga.v1 import participant_pb2, participant_pb2_grpc


class Way(StrEnum):
    """How a rule was tried out."""

    ONE_BY_ONE = "one by one"
    IN_FRAMES = "in frames"


class Caller(Protocol):
    """Makes one call and reads its answer."""

    async def execute(self, request: participant_pb2.ExecuteRequest, timeout_s: float, /) -> Reply: ...

    async def compensate(self, request: participant_pb2.CompensateRequest, timeout_s: float, /) -> Reply: ...


class OneByOne:
    """By Execute and Compensate."""

    def __init__(self, stub: "participant_pb2_grpc.ParticipantServiceAsyncStub") -> None:
        self._stub = stub

    async def execute(self, request: participant_pb2.ExecuteRequest, timeout_s: float, /) -> Reply:
        try:
            return read_execute(await self._stub.Execute(request, timeout=timeout_s))
        except grpc.aio.AioRpcError as error:
            return read_error(error)

    async def compensate(self, request: participant_pb2.CompensateRequest, timeout_s: float, /) -> Reply:
        try:
            return read_compensate(await self._stub.Compensate(request, timeout=timeout_s))
        except grpc.aio.AioRpcError as error:
            return read_error(error)


class InFrames:
    """By Exchange, on one stream as long as it takes calls. Closed with the stack."""

    def __init__(self, stub: "participant_pb2_grpc.ParticipantServiceAsyncStub", stack: AsyncExitStack) -> None:
        self._stub = stub
        self._stack = stack
        self._stream: Stream | None = None

    async def execute(self, request: participant_pb2.ExecuteRequest, timeout_s: float, /) -> Reply:
        return await (await self._open()).ask(participant_pb2.ExchangeCall(execute=request), timeout_s)

    async def compensate(self, request: participant_pb2.CompensateRequest, timeout_s: float, /) -> Reply:
        return await (await self._open()).ask(participant_pb2.ExchangeCall(compensate=request), timeout_s)

    async def _open(self) -> Stream:
        stream = self._stream
        if stream is None or not stream.takes_calls:
            stream = self._stream = Stream(self._stub)
            await self._stack.enter_async_context(stream)
        return stream
