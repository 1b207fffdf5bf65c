"""Starts on their way to the coordinator: by themselves, or many in frames on one stream when many are under way."""

import asyncio
from datetime import timedelta
from typing import Final, TypeAlias

import grpc

from participant_sdk.client.connection import Connection
from participant_sdk.client.telemetry import Metadata
from participant_sdk.framed_calls import FramedCalls, NotCarriedOutError, Unanswered
from participant_sdk.rpc_errors import status_with, to_rpc_error
from saga.v1 import coordinator_pb2

_CALL_BYTES: Final = 1_024
"""Of a start without its request, at most: a trace state, and small things."""
_Frames: TypeAlias = FramedCalls[coordinator_pb2.StartCall, coordinator_pb2.StartReply]
IN_FRAMES_FROM: Final = 4
"""Starts under way from which on the next ones go in frames: a gRPC message costs more than a start, and carries many."""


class StartCalls:
    """Makes them. Called as the stub's method is: raises AioRpcError for what the coordinator refuses, and when nobody answers."""

    def __init__(self, connection: Connection, *, in_frames: bool | None) -> None:
        """`in_frames`: whether starts go in frames; None: when many are under way."""
        self._connection = connection
        self._in_frames = in_frames
        self._under_way = 0
        self._frames: _Frames | None = None

    async def __call__(
        self,
        request: coordinator_pb2.StartSagaRequest,
        *,
        timeout: float,  # noqa: ASYNC109 - as the stub's method has it
        metadata: Metadata,
    ) -> coordinator_pb2.StartSagaResponse:
        """Starts a saga."""
        self._under_way += 1
        try:
            frames = self._wanted_frames()
            if frames is not None:
                reply = await _answer_of(frames, request, timeout, metadata)
                if isinstance(reply, coordinator_pb2.StartReply):
                    return _read(reply)
                if not isinstance(reply, NotCarriedOutError):
                    raise reply
            return await self._connection.saga_service.StartSaga(request, timeout=timeout, metadata=metadata)
        finally:
            self._under_way -= 1

    def _wanted_frames(self) -> _Frames | None:
        is_wanted = self._under_way >= IN_FRAMES_FROM if self._in_frames is None else self._in_frames
        if not is_wanted:
            return None
        stub = self._connection.saga_service  # also sees that the client is open
        if self._frames is None:
            self._frames = FramedCalls(stub.StartSagas, coordinator_pb2.StartSagasRequest, streams_max=1)
        return None if self._frames.is_refused else self._frames


async def _answer_of(
    frames: _Frames, request: coordinator_pb2.StartSagaRequest, timeout_s: float, metadata: Metadata
) -> coordinator_pb2.StartReply | Unanswered:
    start = _Start(request, timeout_s, metadata)
    sent = frames.send(start, _CALL_BYTES + request.ByteSize(), timeout_s)
    try:
        return await start.answer
    except asyncio.CancelledError:
        frames.forsake(sent)
        raise


class _Start:
    """A start among others, for the stream that carries it."""

    __slots__ = ("_metadata", "_request", "_timeout_s", "answer")

    def __init__(self, request: coordinator_pb2.StartSagaRequest, timeout_s: float, metadata: Metadata) -> None:
        self._request = request
        self._timeout_s = timeout_s
        self._metadata = metadata
        self.answer: asyncio.Future[coordinator_pb2.StartReply | Unanswered] = asyncio.get_running_loop().create_future()

    def write(self, message: coordinator_pb2.StartCall) -> None:
        """Fills its message."""
        message.start.CopyFrom(self._request)
        if self._metadata:
            trace = dict(self._metadata)
            message.traceparent, message.tracestate = trace.get("traceparent", ""), trace.get("tracestate", "")
        if self._request.inherit_deadline:
            message.time_left.FromTimedelta(timedelta(seconds=self._timeout_s))

    def end(self, answer: coordinator_pb2.StartReply | Unanswered) -> None:
        """It is answered, or will not be."""
        if not self.answer.done():
            self.answer.set_result(answer)


def _read(reply: coordinator_pb2.StartReply) -> coordinator_pb2.StartSagaResponse:
    if reply.HasField("started"):
        return reply.started
    raise to_rpc_error(
        reply.status if reply.HasField("status") else status_with(grpc.StatusCode.UNKNOWN, "the answer to the start is empty")
    )
